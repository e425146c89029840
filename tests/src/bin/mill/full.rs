//! `cargo full`: the long form of every check.

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::steps::Steps;
use crate::{fuzz, kernels, loom, miri, programs, shuttle, suites, tools};

pub(crate) fn run(words: &[String]) -> Outcome {
    let fuzz_words: &[String] = match words {
        [] => &[],
        [option, _] if option == "--seconds" => words,
        [word, ..] => return Err(Failure::usage(format!("mill full: unexpected argument {word:?}"))),
    };
    // What is missing is found out before the first of many minutes.
    tools::bare()?;
    tools::miri()?;
    tools::fuzz()?;
    let mut steps = Steps::new("full");
    steps.step("cargo test, kernels with 16 CPUs", || {
        libtest::run(
            cargo::cargo().args(["test", "--workspace"]).envs([("PAGEMILL_FULL", "1"), ("PAGEMILL_FORKS", "1500")]),
            "cargo test",
        )
        .map(drop)
    });
    steps.step("kernels in release mode, 16 CPUs", release_kernels);
    steps.step(format!("loom, preemption bound {}", loom::FULL_BOUND), || loom::check("", loom::FULL_BOUND));
    steps.step("shuttle, more schedules", || shuttle::check("", shuttle::FULL_TIMES));
    steps.step("miri, both aliasing models and many seeds", miri::full);
    steps.step("fuzzing", || fuzz::run(fuzz_words));
    steps.step("test suites of others on pagemill", || suites::run(&["--full".to_owned()]));
    steps.step("C tests of libpagemill.so, as it is shipped", || {
        let mut command = cargo::cargo();
        command.args(["test", "--release", "--package", "pagemill-preload"]).env("PAGEMILL_FULL", "1");
        libtest::run(&mut command, "pagemill-preload").map(drop)
    });
    steps.step("programs of others on libpagemill.so", programs::full);
    steps.finish()
}

fn release_kernels() -> Outcome {
    let mut command = kernels::command(&kernels::all()?, true);
    libtest::run(command.env("PAGEMILL_FULL", "1"), "kernels").map(drop)
}
