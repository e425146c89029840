//! `cargo bare`: the test kernels, booted under QEMU.

use crate::cargo::{self, BARE_TARGET};
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::tools;

pub(crate) fn run(words: &[String]) -> Outcome {
    let mut release = false;
    let mut kernels = Vec::new();
    let mut filters = Vec::new();
    for word in words {
        match word.as_str() {
            "--release" => release = true,
            word if word.starts_with('-') => {
                return Err(Failure::usage(format!("mill bare: unexpected argument {word:?}")));
            }
            word if is_kernel(word) => kernels.push(word),
            word => filters.push(word),
        }
    }
    tools::bare()?;
    let mut command = cargo::cargo();
    command.args(["test", "--target", BARE_TARGET, "-p", "pagemill-bare"]);
    if release {
        command.arg("--release");
    }
    if kernels.is_empty() {
        command.arg("--tests");
    }
    for kernel in kernels {
        command.args(["--test", kernel]);
    }
    let passed = libtest::run(command.arg("--").args(filters), "bare")?;
    println!("bare: {passed} passed, 0 failed");
    Ok(())
}

/// A word that names a kernel selects it; any other word selects tests inside the kernels.
fn is_kernel(word: &str) -> bool {
    cargo::root().join("bare/tests").join(word).with_extension("rs").is_file()
}
