//! `cargo alloc-suites`: the test suites of other people's code that lives on its allocator, with ours installed.
//!
//! The standard library's collections bring their tests along in nightly's `rust-src`; crates bring theirs in what
//! cargo downloads. Both are copied below the target directory, `tests/suites/allocator` is linked into every test
//! program, and cargo runs them as it would at home. In each program one more test says that it really runs on that
//! allocator.

mod inject;
mod list;
mod sources;
mod tree;

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::steps::Steps;
use crate::tools;
use inject::Allocator;
use list::{ALLOCTESTS, CRATES, Suite};
use std::path::Path;
use std::process::Command;

/// What a call asks for.
struct Wanted {
    allocator: Allocator,
    full: bool,
    /// Whether it is no failure if the sources are not there and cannot be downloaded.
    or_skip: bool,
    /// Names of suites; all of them if there are none.
    names: Vec<String>,
    /// What goes to the test programs.
    filter: Vec<String>,
}

pub(crate) fn run(words: &[String]) -> Outcome {
    let wanted = Wanted::parse(words)?;
    let crates: Vec<_> = CRATES.iter().filter(|suite| wanted.wants(suite.name, suite.quick)).collect();
    let std = wanted.wants(ALLOCTESTS, true);
    // What is missing is found out before the first minute of compiling.
    if std {
        tools::nightly(&["rust-src"])?;
    }
    let dir = cargo::target_dir().join("alloc-suites").join(wanted.allocator.name());
    let mut steps = Steps::new("alloc-suites");
    if std {
        steps.step(format!("{ALLOCTESTS} on {}", wanted.allocator.name()), || alloctests(&wanted, &dir));
    }
    if !crates.is_empty() {
        let home = dir.join("crates");
        if wanted.goes_on(sources::of_crates(&crates, &home, wanted.allocator)?)? {
            for suite in crates {
                let name = format!("{} {} on {}", suite.name, suite.version, wanted.allocator.name());
                steps.step(name, || test_crate(&wanted, suite, &home));
            }
        }
    }
    steps.finish()
}

impl Wanted {
    fn parse(words: &[String]) -> Outcome<Self> {
        let mut wanted =
            Self { allocator: Allocator::Pagemill, full: false, or_skip: false, names: Vec::new(), filter: Vec::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--full" => wanted.full = true,
                "--or-skip" => wanted.or_skip = true,
                "--system" => wanted.allocator = Allocator::System,
                "--" => wanted.filter = words.by_ref().cloned().collect(),
                name if name == ALLOCTESTS || CRATES.iter().any(|suite| suite.name == name) => {
                    wanted.names.push(name.to_owned());
                }
                word => {
                    let names: Vec<_> = CRATES.iter().map(|suite| suite.name).collect();
                    let reason =
                        format!("mill alloc-suites: no suite {word:?}; there are {ALLOCTESTS}, {}", names.join(", "));
                    return Err(Failure::usage(reason));
                }
            }
        }
        Ok(wanted)
    }

    /// Whether to go on, as the sources are there or not.
    fn goes_on(&self, sources_are_there: bool) -> Outcome<bool> {
        const MISSING: &str = "alloc-suites: no network, and the sources are not here";
        if !sources_are_there && !self.or_skip {
            return Err(Failure::new(format!("{MISSING}: run it once where there is one")));
        }
        if !sources_are_there {
            println!("{MISSING}: SKIPPED");
        }
        Ok(sources_are_there)
    }

    /// Whether a suite is to run: one that was named, or without names all, or the quick ones.
    fn wants(&self, name: &str, quick: bool) -> bool {
        if self.names.is_empty() { self.full || quick } else { self.names.iter().any(|wanted| wanted == name) }
    }

    /// Whether all of a suite is to run.
    fn is_whole(&self) -> bool {
        self.full || !self.names.is_empty()
    }

    /// Runs the tests of a command line, less those with these words in their names.
    fn test(&self, command: &mut Command, what: &str, skipped: &[&str]) -> Outcome {
        command.args(["--quiet", "--"]).args(&self.filter);
        for word in skipped {
            command.args(["--skip", word]);
        }
        libtest::run(command, what).map(drop)
    }
}

/// The tests of the standard library's `alloc`.
fn alloctests(wanted: &Wanted, dir: &Path) -> Outcome {
    let home = dir.join("rust-src");
    if !wanted.goes_on(sources::of_alloctests(&home, wanted.allocator)?)? {
        return Ok(());
    }
    let mut command = cargo::nightly_cargo();
    cargo_in(&mut command, &home).args(["test", "--package", "alloctests", "--lib", "--test", "*"]);
    // Half a minute of strings that never change their size, and one of sorting.
    let skipped: &[&str] = if wanted.is_whole() { &[] } else { &["utf8_char_counts", "sort::"] };
    wanted.test(&mut command, ALLOCTESTS, skipped)
}

/// The tests of a crate.
fn test_crate(wanted: &Wanted, suite: &Suite, home: &Path) -> Outcome {
    let mut command = cargo::cargo();
    // By its directory: its name may be that of a dependency as well.
    cargo_in(&mut command, &home.join(suite.directory())).args(["test", "--lib", "--tests"]);
    if !suite.features.is_empty() {
        command.args(["--features", &suite.features.join(",")]);
    }
    wanted.test(&mut command, suite.name, &[])
}

/// Cargo in a workspace of the suites, all of which share what they build. Warnings about other people's code are not
/// for who reads this.
fn cargo_in<'c>(command: &'c mut Command, home: &Path) -> &'c mut Command {
    command.current_dir(home).env("CARGO_TARGET_DIR", cargo::target_dir().join("alloc-suites/target"));
    command.env("RUSTFLAGS", "--cap-lints allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Outcome<Wanted> {
        Wanted::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_named_suite_runs_whole_and_alone() {
        let wanted = parsed(&["bytes", "--system", "--", "--nocapture"]).unwrap();
        assert!(wanted.wants("bytes", false) && !wanted.wants(ALLOCTESTS, true) && wanted.is_whole());
        assert_eq!((wanted.allocator, wanted.filter), (Allocator::System, vec!["--nocapture".to_owned()]));
    }

    #[test]
    fn without_a_name_the_quick_ones_run() {
        let wanted = parsed(&[]).unwrap();
        assert!(wanted.wants(ALLOCTESTS, true) && !wanted.wants("tokio", false) && !wanted.is_whole());
        assert!(parsed(&["--full"]).unwrap().wants("tokio", false));
        assert!(CRATES.iter().any(|suite| suite.quick));
    }

    #[test]
    fn without_sources_it_fails_unless_it_may_skip() {
        assert!(parsed(&[]).unwrap().goes_on(false).is_err());
        assert!(!parsed(&["--or-skip"]).unwrap().goes_on(false).unwrap());
        assert!(parsed(&["--or-skip"]).unwrap().goes_on(true).unwrap());
    }

    #[test]
    fn what_is_no_suite_is_answered_with_the_list() {
        let reason = parsed(&["coffee"]).err().unwrap().reason;
        assert!(reason.contains("alloctests") && reason.contains("hashbrown"), "{reason}");
    }
}
