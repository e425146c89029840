//! `cargo loom`: the loom models of the core crate.

use crate::explore::{self, Checker};
use crate::failure::Outcome;
use crate::models::MODELS;
use std::time::Instant;

const LOOM: Checker = Checker { name: "loom", models: MODELS, variable: "LOOM_MAX_PREEMPTIONS" };

/// Bound on preemptions per execution: most ordering bugs need no more, and the models stay small enough for every
/// commit.
const BOUND: usize = 2;
/// The bound of `cargo full`.
pub(crate) const FULL_BOUND: usize = 3;

pub(crate) fn run(words: &[String]) -> Outcome {
    let (filter, bound) = explore::parse("loom", words, "--bound", BOUND)?;
    check(filter, bound)
}

/// Runs the models whose path contains `filter`.
pub(crate) fn check(filter: &str, bound: usize) -> Outcome {
    let start = Instant::now();
    let (models, mutants) = LOOM.check(filter, bound)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("loom: {models} models passed, {mutants} mutants caught, bound {bound}, {seconds:.1} s");
    Ok(())
}
