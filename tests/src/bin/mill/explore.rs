//! Models of the core crate, run by a model checker: `cargo loom` and `cargo shuttle`.
//!
//! A model is a test below `models::` in the core crate; it prints one line to stdout:
//!
//! ```text
//! CHECKER model=NAME iterations=N mutants=M caught=M
//! ```
//!
//! The lines are compared with the checker's list (`models.rs`).

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use std::process::{Command, Stdio};

/// A model checker: how the core is built for it, and what must run.
pub(crate) struct Checker {
    /// Its name: the cfg, the directory that is built in, and how its lines begin.
    pub(crate) name: &'static str,
    /// Each model with the number of its mutants.
    pub(crate) models: &'static [(&'static str, usize)],
    /// What the models read from the environment.
    pub(crate) variable: &'static str,
}

/// Reads the words of a command: an option with a number, and a part of the models' names.
pub(crate) fn parse<'w>(name: &str, words: &'w [String], option: &str, usual: usize) -> Outcome<(&'w str, usize)> {
    let mut filter = None;
    let mut number = usual;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            word if word == option => {
                let next = words.next().and_then(|number| number.parse().ok());
                number = next.ok_or_else(|| Failure::usage(format!("mill {name}: {option} wants a number")))?;
            }
            word if word.starts_with('-') || filter.is_some() => {
                return Err(Failure::usage(format!("mill {name}: unexpected argument {word:?}")));
            }
            word => filter = Some(word),
        }
    }
    Ok((filter.unwrap_or(""), number))
}

impl Checker {
    /// Runs the models whose path contains `filter`, with `number` in their environment, and compares what they report
    /// with the list; answers how many models and mutants that were, and prints how long it took.
    pub(crate) fn check(&self, filter: &str, number: usize) -> Outcome<(usize, usize)> {
        let name = self.name;
        cargo::finish(self.command(number).arg("--no-run"), &format!("{name}: building the models"))?;
        let tests = self.list(filter, number)?;
        let mut command = self.command(number);
        command.args(["--", "--exact", "--nocapture"]).args(&tests);
        // Caught mutants panic, so stderr is full of expected messages: shown only if the run fails.
        let log = cargo::target_dir().join(name).join("stderr.log");
        let file = std::fs::File::create(&log);
        let file = file.map_err(|error| Failure::new(format!("{name}: {}: {error}", log.display())))?;
        command.stderr(Stdio::from(file));
        let mut reports = Vec::new();
        println!("{:<40}{:>12}  mutants caught", "model", "iterations");
        let ran = libtest::read_lines(&mut command, &format!("{name}: the models"), |line| match self.report(line) {
            Some(report) => {
                println!("{:<40}{:>12}  {} of {}", report.name, report.iterations, report.caught, report.mutants);
                reports.push(report);
            }
            None if line.starts_with("test ") && line.ends_with("FAILED") => println!("{line}"),
            None => {}
        });
        if let Err(failure) = ran {
            eprint!("{}", std::fs::read_to_string(&log).unwrap_or_default());
            return Err(failure);
        }
        let expected: Vec<_> = self.models.iter().copied().filter(|(name, _)| name.contains(filter)).collect();
        let faults = faults(&reports, &expected, self.models);
        if !faults.is_empty() {
            return Err(Failure::new(format!("{name}: {}", faults.join(&format!("\n{name}: ")))));
        }
        Ok((reports.len(), reports.iter().map(|report| report.caught).sum()))
    }

    /// `cargo test` of the core crate built for the checker. Its own target directory, since every crate is built anew;
    /// no LTO, which would cost more time than the models take; with assertions, which are then explored too.
    fn command(&self, number: usize) -> Command {
        let mut command = cargo::cargo();
        command.args(["test", "--release", "-p", "pagemill", "--lib", "--target-dir"]);
        command.arg(cargo::target_dir().join(self.name));
        command.env("RUSTFLAGS", format!("--cfg {}", self.name)).env(self.variable, number.to_string());
        // Every caught mutant panics; a backtrace each would take longer than the models.
        command.env("RUST_BACKTRACE", "0");
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
        command.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
        command
    }

    /// Full names of the model tests that `filter` selects.
    fn list(&self, filter: &str, number: usize) -> Outcome<Vec<String>> {
        let name = self.name;
        let mut command = self.command(number);
        command.args(["--quiet", "--", "--list"]);
        let lines = libtest::read_lines(&mut command, &format!("{name}: listing the models"), |_| ())?;
        let models =
            lines.iter().filter_map(|line| line.strip_suffix(": test")).filter(|test| test.starts_with("models::"));
        let chosen: Vec<_> = models.filter(|test| test.contains(filter)).map(str::to_owned).collect();
        if chosen.is_empty() {
            let which = if filter.is_empty() { String::new() } else { format!(" with {filter:?} in its name") };
            return Err(Failure::new(format!("{name}: no model{which} in the core crate")));
        }
        Ok(chosen)
    }

    /// What a line of the checker's says.
    fn report(&self, line: &str) -> Option<Report> {
        Report::of_line(self.name, line)
    }
}

/// What one model says about its run.
#[derive(Debug, PartialEq)]
struct Report {
    name: String,
    iterations: u64,
    mutants: usize,
    caught: usize,
}

impl Report {
    /// libtest may have written `test NAME ... ` in front of it.
    fn of_line(checker: &str, line: &str) -> Option<Self> {
        let (_, fields) = line.split_once(&format!("{checker} model="))?;
        let (name, fields) = fields.split_once(' ')?;
        let field = |key: &str| fields.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Self {
            name: name.to_owned(),
            iterations: field("iterations")?.parse().ok()?,
            mutants: field("mutants")?.parse().ok()?,
            caught: field("caught")?.parse().ok()?,
        })
    }
}

/// Everything in which the reports differ from what is expected, of the models that are `known`.
fn faults(reports: &[Report], expected: &[(&str, usize)], known: &[(&str, usize)]) -> Vec<String> {
    let mut faults = Vec::new();
    if reports.is_empty() {
        faults.push("no model reported".to_owned());
    }
    for &(name, mutants) in expected {
        match reports.iter().filter(|report| report.name == name).count() {
            0 => faults.push(format!("model {name} did not run ({mutants} mutants)")),
            1 => {}
            count => faults.push(format!("model {name} reported {count} times")),
        }
    }
    for report in reports {
        let Report { name, iterations, mutants, caught } = report;
        match known.iter().find(|(listed, _)| listed == name) {
            None => faults.push(format!("model {name} is not in the list (tests/src/bin/mill/models.rs)")),
            Some((_, listed)) if listed != mutants => {
                faults.push(format!("model {name} ran {mutants} mutants, the list says {listed}"));
            }
            Some(_) => {}
        }
        if caught != mutants {
            faults.push(format!("model {name} caught {caught} of {mutants} mutants"));
        }
        if *iterations == 0 {
            faults.push(format!("model {name} explored nothing"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, mutants: usize, caught: usize) -> Report {
        Report { name: name.to_owned(), iterations: 7, mutants, caught }
    }

    #[test]
    fn reports_are_read_behind_libtests_words() {
        let line = "test models::pool::drain ... loom model=drain iterations=123 mutants=2 caught=1";
        let found = Report::of_line("loom", line).unwrap();
        assert_eq!(found, Report { name: "drain".into(), iterations: 123, mutants: 2, caught: 1 });
        assert_eq!(Report::of_line("loom", "loom model=drain iterations=many mutants=2 caught=1"), None);
        assert_eq!(Report::of_line("loom", "test result: ok. 3 passed"), None);
    }

    #[test]
    fn a_call_may_name_models_and_a_number() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(parse("loom", &words(&["--bound", "3", "slab"]), "--bound", 2).unwrap(), ("slab", 3));
        assert_eq!(parse("loom", &[], "--bound", 2).unwrap(), ("", 2));
        for wrong in [&["--bound"][..], &["--times", "3"], &["slab", "heap"]] {
            assert!(parse("loom", &words(wrong), "--bound", 2).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_complete_run_has_no_fault() {
        let expected = [("drain", 2), ("fold", 0)];
        assert!(faults(&[report("fold", 0, 0), report("drain", 2, 2)], &expected, &expected).is_empty());
    }

    #[test]
    fn every_shortfall_is_a_fault() {
        let expected = [("drain", 2)];
        let first = |reports: &[Report]| faults(reports, &expected, &expected).remove(0);
        assert_eq!(first(&[]), "no model reported");
        assert!(first(&[report("fold", 0, 0)]).contains("drain did not run"));
        assert!(first(&[report("drain", 2, 1)]).contains("caught 1 of 2"));
        assert!(first(&[report("drain", 1, 1)]).contains("the list says 2"));
        assert!(first(&[report("drain", 2, 2), report("drain", 2, 2)]).contains("reported 2 times"));
        assert!(first(&[report("drain", 2, 2), report("fold", 0, 0)]).contains("not in the list"));
        let idle = Report { iterations: 0, ..report("drain", 2, 2) };
        assert!(first(&[idle]).contains("explored nothing"));
    }
}
