//! A long command as a list of named steps: all of them run, each is timed, and the last line counts them.

use crate::failure::{Failure, Outcome};
use std::time::{Duration, Instant};

/// The steps done so far.
pub(crate) struct Steps {
    command: &'static str,
    done: Vec<(String, Duration, Outcome)>,
}

impl Steps {
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, done: Vec::new() }
    }

    /// Does one step, and goes on when it fails.
    pub(crate) fn step(&mut self, name: impl Into<String>, work: impl FnOnce() -> Outcome) {
        let name = name.into();
        println!("== {name}");
        let start = Instant::now();
        let outcome = work();
        if let Err(failure) = &outcome {
            eprintln!("{}", failure.reason);
        }
        self.done.push((name, start.elapsed(), outcome));
    }

    /// Prints the summary; fails when a step failed.
    pub(crate) fn finish(self) -> Outcome {
        println!();
        for (name, time, outcome) in &self.done {
            let verdict = if outcome.is_ok() { "passed" } else { "FAILED" };
            println!("{verdict}  {:>7.1} s  {name}", time.as_secs_f64());
            if let Err(failure) = outcome {
                println!("                   {}", failure.reason.trim());
            }
        }
        let failed = self.done.iter().filter(|(_, _, outcome)| outcome.is_err()).count();
        let summary = format!("{}: {} passed, {failed} failed", self.command, self.done.len() - failed);
        if failed == 0 {
            println!("{summary}");
            Ok(())
        } else {
            Err(Failure::new(summary))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole_but_stops_nothing() {
        let mut steps = Steps::new("checks");
        let mut reached = false;
        steps.step("first", || Err(Failure::new("first: no luck")));
        steps.step("second", || {
            reached = true;
            Ok(())
        });
        assert_eq!(steps.finish().unwrap_err().reason, "checks: 1 passed, 1 failed");
        assert!(reached);
    }
}
