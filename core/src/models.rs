//! Models of every edge where two CPUs meet, explored by loom: the real code on a machine of a few frames. And runs of
//! the whole heap on such a machine, on schedules that shuttle picks.
//!
//! A model states a property and names the faults (`sync::mutant`) that would break it. It runs once as the code
//! stands, and must pass; then once with each fault switched on, and must fail each time: a model that cannot fail
//! proves nothing. `cargo loom` runs them and compares what they print with its own list.
//!
//! Loom tries every order of a few operations, weak ones too. Shuttle tries some orders of many, each as if all were
//! sequentially consistent: what it finds is wrong in what the parts do together. `cargo shuttle` runs those, likewise.
//!
//! Run by hand: `RUSTFLAGS="--cfg loom" cargo test --release -p pagemill --lib models:: -- --nocapture`; the bound on
//! preemptions is `LOOM_MAX_PREEMPTIONS`, 2 if unset. With `--cfg shuttle`, the schedules of each run are so many times
//! the usual as `PAGEMILL_SCHEDULES` says.

#[cfg(loom)]
use loom as checker;
#[cfg(shuttle)]
use shuttle as checker;

#[cfg(all(test, shuttle))]
mod composed;
#[cfg(all(test, loom))]
mod depot;
#[cfg(all(test, loom))]
mod drain;
#[cfg(all(test, loom))]
mod exhaustion;
#[cfg(all(test, loom))]
mod fold;
#[cfg(all(test, loom))]
mod heap;
#[cfg(test)]
mod machine;
#[cfg(all(test, loom))]
mod pending;
#[cfg(all(test, loom))]
mod ready;
#[cfg(all(test, loom))]
mod reserve;
#[cfg(all(test, loom))]
mod shrinkers;
#[cfg(all(test, loom))]
mod slab;
#[cfg(all(test, loom))]
mod split;
#[cfg(all(test, loom))]
mod tiny;
#[cfg(all(test, loom))]
mod twice;
#[cfg(all(test, loom))]
mod word;

use std::cell::Cell;

std::thread_local! {
    // Of the thread that runs the model: the checkers' own threads are coroutines on it, so all of them see it, and
    // models that run beside it do not.
    static MUTANT: Cell<Option<&'static str>> = const { Cell::new(None) };
    // Whether other threads of a run may go on between two steps.
    #[cfg(shuttle)]
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the running model has this fault switched on.
pub(crate) fn mutant_is_on(name: &str) -> bool {
    MUTANT.get() == Some(name)
}

/// Whether this is inside a run, at a step before which others may go on.
#[cfg(shuttle)]
pub(crate) fn is_exploring() -> bool {
    EXPLORING.get()
}

/// Lets others go on, who have what the caller waits for.
#[cfg(shuttle)]
pub(crate) fn give_way() {
    if is_exploring() {
        shuttle::thread::yield_now();
    }
}

#[cfg(all(test, loom))]
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

    /// As [`check`], of a model small enough for more preemptions: so many, if the environment does not ask for yet
    /// more.
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

#[cfg(all(test, shuttle))]
mod runner {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};

    use super::{EXPLORING, MUTANT};

    /// Schedules of each scheduler; a multiple of that if the environment asks for it.
    const SCHEDULES: usize = 1000;
    /// How many times a run may change its mind about who is to go first.
    const DEPTH: usize = 4;
    /// The same schedules each time: what is found is found again.
    const SEED: u64 = 0x7061_6765;
    /// More steps than any run takes, unless it hangs.
    const STEPS: usize = 2_000_000;
    /// Bytes of a thread's stack.
    const STACK: usize = 1 << 20;

    /// Runs `run` on many schedules, then with each of its faults until that is found, and prints what `cargo shuttle`
    /// reads.
    ///
    /// # Panics
    /// If the run fails, or if a fault is not found.
    pub(super) fn check(name: &str, mutants: &[&'static str], run: fn()) {
        let times = std::env::var("PAGEMILL_SCHEDULES").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
        let schedules = explore(SCHEDULES * times, None, run).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // More than are needed today: with other code the same numbers make other schedules.
        let is_caught = |&mutant| explore(10 * SCHEDULES, Some(mutant), run).is_err();
        let caught: Vec<_> = mutants.iter().map(|mutant| (mutant, is_caught(mutant))).collect();
        let count = caught.iter().filter(|(_, caught)| *caught).count();
        println!("shuttle model={name} iterations={schedules} mutants={} caught={count}", mutants.len());
        for (mutant, caught) in caught {
            assert!(caught, "run {name} passes with the fault {mutant}");
        }
    }

    /// Explores with both schedulers; answers on how many schedules.
    fn explore(schedules: usize, mutant: Option<&'static str>, run: fn()) -> std::thread::Result<u64> {
        let random = RandomScheduler::new_from_seed(SEED, schedules);
        let priorities = PctScheduler::new_from_seed(SEED, DEPTH, schedules);
        Ok(explore_with(random, mutant, run)? + explore_with(priorities, mutant, run)?)
    }

    fn explore_with(
        scheduler: impl Scheduler + 'static,
        mutant: Option<&'static str>,
        run: fn(),
    ) -> std::thread::Result<u64> {
        let schedules = Arc::new(AtomicU64::new(0));
        let counter = schedules.clone();
        let mut config = shuttle::Config::new();
        config.stack_size = STACK;
        config.max_steps = shuttle::MaxSteps::FailAfter(STEPS);
        config.silence_warnings = true;
        if mutant.is_some() {
            config.failure_persistence = shuttle::FailurePersistence::None;
        }
        MUTANT.set(mutant);
        let explored = catch_unwind(AssertUnwindSafe(|| {
            shuttle::Runner::new(scheduler, config).run(move || {
                counter.fetch_add(1, Ordering::Relaxed);
                run();
            });
        }));
        MUTANT.set(None);
        EXPLORING.set(false);
        let schedules = schedules.load(Ordering::Relaxed);
        if let (Some(mutant), Err(_)) = (mutant, &explored) {
            println!("{mutant} found on schedule {schedules}");
        }
        explored.map(|()| schedules)
    }

    /// From here on the threads of a run meet. What comes before it, and after the last of them, is one step.
    pub(super) fn exploring<R>(work: impl FnOnce() -> R) -> R {
        EXPLORING.set(true);
        let result = work();
        EXPLORING.set(false);
        result
    }
}
