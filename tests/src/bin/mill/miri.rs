//! `cargo miri-core`: the core crate's tests under Miri.

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::tools;

/// Strict provenance is what makes index arithmetic in the core honest. Of the host's variables Miri shows the tests
/// only those forwarded here.
const FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-env-forward=PROPTEST_CASES \
                     -Zmiri-env-forward=PROPTEST_DISABLE_FAILURE_PERSISTENCE";
const TREE_BORROWS: &str = "-Zmiri-tree-borrows";

/// Tests with this word in their path start threads: they run under several seeds, hence schedules.
const CONCURRENT: &str = "concurrent";

/// Miri is some hundred times slower than the machine, so property tests keep to a few cases.
const CASES: usize = 4;

/// What the short form leaves to the long one: the heap's layers, of which a test takes minutes.
const LONG: &[&str] = &[
    "global::",
    "harden::tests",
    "heap::",
    "large::",
    "object::",
    "reclaim::",
    "shadow::",
    "size_class::",
    "slab::",
    "stacks::",
    "tiny",
];

pub(crate) fn run(words: &[String]) -> Outcome {
    if let Some(word) = words.iter().find(|word| word.starts_with('-')) {
        return Err(Failure::usage(format!("mill miri-core: unexpected argument {word:?}")));
    }
    tools::miri()?;
    // Who names tests means them.
    let long = if words.is_empty() { LONG } else { &[] };
    let filter: Vec<_> =
        long.iter().flat_map(|word| ["--skip", word]).map(str::to_owned).chain(words.to_vec()).collect();
    test("miri, tree borrows", TREE_BORROWS, CASES, &filter).map(drop)
}

/// The long form: both aliasing models, more cases, and many schedules of the concurrent tests.
pub(crate) fn full() -> Outcome {
    tools::miri()?;
    test("miri, tree borrows", TREE_BORROWS, 4 * CASES, &[])?;
    test("miri, stacked borrows", "", CASES, &[])?;
    let seeds = format!("{TREE_BORROWS} -Zmiri-many-seeds=0..16");
    // With many seeds every program prints as many summaries, so the count says only that something ran.
    test("miri, 16 seeds of the concurrent tests", &seeds, CASES, &[CONCURRENT.to_owned()]).map(drop)
}

fn test(what: &str, flags: &str, cases: usize, filter: &[String]) -> Outcome<usize> {
    let mut command = cargo::nightly_cargo();
    command.args(["miri", "test", "-p", "pagemill", "--lib", "--tests", "--"]).args(filter);
    command.env("MIRIFLAGS", format!("{FLAGS} {flags}"));
    command.env("PROPTEST_CASES", cases.to_string()).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    let passed = libtest::run(&mut command, what)?;
    println!("{what}: {passed} passed, 0 failed");
    Ok(passed)
}
