//! Models of every edge where two CPUs meet, explored by loom: the real code on a machine of a few frames.
//!
//! A model states a property and names the faults (`sync::mutant`) that would break it. It runs once as the code
//! stands, and must pass; then once with each fault switched on, and must fail each time: a model that cannot fail
//! proves nothing. `cargo loom` runs them and compares what they print with its own list.
//!
//! Run by hand: `RUSTFLAGS="--cfg loom" cargo test --release -p pagemill --lib models:: -- --nocapture`; the bound on
//! preemptions is `LOOM_MAX_PREEMPTIONS`, 2 if unset.

#[cfg(test)]
mod depot;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod fold;
#[cfg(test)]
mod heap;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod pending;
#[cfg(test)]
mod reserve;
#[cfg(test)]
mod slab;
#[cfg(test)]
mod split;
#[cfg(test)]
mod tiny;
#[cfg(test)]
mod twice;
#[cfg(test)]
mod word;

use std::cell::Cell;

std::thread_local! {
    // Of the thread that runs the model: loom's own threads are coroutines on it, so all of them see it, and models
    // that run beside it do not.
    static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Whether the running model has this fault switched on.
pub(crate) fn mutant_is_on(name: &str) -> bool {
    MUTANT.get() == Some(name)
}

#[cfg(test)]
mod runner {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::MUTANT;

    /// The bound on preemptions if the environment sets none.
    const PREEMPTIONS: usize = 2;
    /// Steps of one execution; loom's own limit is too small for setting up a machine.
    const STEPS: usize = 100_000;

    /// Explores `model`, then each of its mutants, and prints what `cargo loom` reads.
    ///
    /// # Panics
    /// If the model fails, or if it passes with a fault switched on.
    pub(super) fn check(name: &str, mutants: &[&'static str], model: fn()) {
        check_within(PREEMPTIONS, name, mutants, model);
    }

    /// As [`check`], of a model small enough for more preemptions: so many, if the environment does not ask for yet more.
    pub(super) fn check_within(least: usize, name: &str, mutants: &[&'static str], model: fn()) {
        let explore = |mutant| explore(least, mutant, model);
        let iterations = explore(None).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let caught: Vec<_> = mutants.iter().map(|mutant| (mutant, explore(Some(mutant)).is_err())).collect();
        let count = caught.iter().filter(|(_, caught)| *caught).count();
        println!("loom model={name} iterations={iterations} mutants={} caught={count}", mutants.len());
        for (mutant, caught) in caught {
            assert!(caught, "model {name} passes with the fault {mutant}");
        }
    }

    fn explore(least: usize, mutant: Option<&'static str>, model: fn()) -> std::thread::Result<u64> {
        let iterations = Arc::new(AtomicU64::new(0));
        let counter = iterations.clone();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.max(Some(least));
        builder.max_branches = STEPS;
        MUTANT.set(mutant);
        let explored = catch_unwind(AssertUnwindSafe(|| {
            builder.check(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                model();
            });
        }));
        MUTANT.set(None);
        explored.map(|()| iterations.load(Ordering::Relaxed))
    }
}
