//! `cargo bench-frames`: the frame benchmarks beside their peers, in the workspace of their own.

use crate::cargo;
use crate::failure::Outcome;

pub(crate) fn frames(words: &[String]) -> Outcome {
    let mut command = cargo::cargo();
    command.args(["run", "--release", "--manifest-path", "tests/bench/Cargo.toml", "--bin", "frames", "--"]);
    cargo::finish(command.args(words), "bench-frames")
}
