//! `cargo bench-frames` and `cargo bench-heap`: pagemill beside its peers, in the workspace of the benchmarks.

use crate::cargo;
use crate::failure::Outcome;

const MANIFEST: &str = "tests/bench/Cargo.toml";

pub(crate) fn frames(words: &[String]) -> Outcome {
    let mut command = cargo::cargo();
    command.args(["run", "--release", "--manifest-path", MANIFEST, "--bin", "frames", "--"]);
    cargo::finish(command.args(words), "bench-frames")
}

pub(crate) fn heap(words: &[String]) -> Outcome {
    let mut command = cargo::cargo();
    command.args(["run", "--quiet", "--manifest-path", MANIFEST]);
    // A profile of its workers, whose dependencies it shares.
    command.args(["--package", "heap-driver", "--profile", "no-lto", "--bin", "heap", "--"]);
    cargo::finish(command.args(words), "bench-heap")
}
