//! What a test kernel is on the host: a program that builds the same file for the bare target and boots it, so that
//! plain `cargo test` runs it like any other test.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{self, Command};
use std::string::String;
use std::vec::Vec;

/// The target of the kernels.
const TARGET: &str = "x86_64-unknown-none";

/// Boots the kernel `name`, which has these tests (none for a kernel that is no test), and exits as it did.
pub fn boot(name: &str, tests: &[&str]) {
    let words: Vec<String> = env::args().skip(1).collect();
    // Miri cannot start programs. Who lists tests finds this one as a whole, not what is in it.
    if cfg!(miri) || words.iter().any(|word| word == "--list") || !is_wanted(&words, tests) {
        return;
    }
    let mill = ["run", "--quiet", "--package", "pagemill-tests", "--bin", "mill", "--", "ensure", "bare"];
    run(cargo().args(mill));
    let mut command = cargo();
    command.args(["test", "--quiet", "--target", TARGET, "--package", env!("CARGO_PKG_NAME"), "--test", name]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    run(command.arg("--").args(&words));
}

/// Whether a filter lets any of the tests through: booting a machine to run none of them takes its time.
fn is_wanted(words: &[String], tests: &[&str]) -> bool {
    let mut filters = words.iter().filter(|word| !word.starts_with('-') && !word.contains('=')).peekable();
    filters.peek().is_none() || tests.is_empty() || filters.any(|word| tests.iter().any(|test| test.contains(&**word)))
}

/// Cargo in the workspace, whose configuration names the runner; without the flags of the outer run, which are meant
/// for the host (model checking, coverage, sanitizers).
fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    command.current_dir(root.expect("the crate lies in a workspace"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// Runs it; exits as it did if that is not well.
fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => process::exit(status.code().unwrap_or(1)),
        Err(error) => panic!("cannot start cargo: {error}"),
    }
}
