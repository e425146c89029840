//! `cargo shuttle`: the whole heap on random schedules.

use crate::explore::{self, Checker};
use crate::failure::Outcome;
use crate::models::RUNS;
use std::time::Instant;

const SHUTTLE: Checker = Checker { name: "shuttle", models: RUNS, variable: "PAGEMILL_SCHEDULES" };

/// How many times the usual number of schedules: some seconds' worth.
const TIMES: usize = 1;
/// The same for `cargo full`.
pub(crate) const FULL_TIMES: usize = 30;

pub(crate) fn run(words: &[String]) -> Outcome {
    let (filter, times) = explore::parse("shuttle", words, "--times", TIMES)?;
    check(filter, times)
}

/// Makes the runs whose path contains `filter`.
pub(crate) fn check(filter: &str, times: usize) -> Outcome {
    let start = Instant::now();
    let (runs, mutants) = SHUTTLE.check(filter, times)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("shuttle: {runs} runs passed, {mutants} mutants caught, {seconds:.1} s");
    Ok(())
}
