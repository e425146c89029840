//! `cargo bare`: the test kernels, booted under QEMU.

use crate::cargo::{self, BARE_TARGET};
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::tools;
use std::process::Command;

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
            word if is_kernel(word) => kernels.push(word.to_owned()),
            word => filters.push(word),
        }
    }
    tools::bare()?;
    if kernels.is_empty() {
        kernels = all()?;
    }
    let mut command = command(&kernels, release);
    let passed = libtest::run(command.arg("--").args(filters), "bare")?;
    println!("bare: {passed} passed, 0 failed");
    Ok(())
}

/// Cargo, told to boot these kernels.
pub(crate) fn command(kernels: &[String], release: bool) -> Command {
    let mut command = cargo::cargo();
    command.args(["test", "--no-fail-fast", "--target", BARE_TARGET, "-p", "pagemill-bare"]);
    if release {
        command.arg("--release");
    }
    // By name, since `--tests` would take the crate's unit tests too, which only a host can run.
    for kernel in kernels {
        command.args(["--test", kernel]);
    }
    command
}

/// A word that names a kernel selects it; any other word selects tests inside the kernels.
fn is_kernel(word: &str) -> bool {
    cargo::root().join("bare/tests").join(word).with_extension("rs").is_file()
}

/// Every kernel of a run of all tests.
pub(crate) fn all() -> Outcome<Vec<String>> {
    let path = cargo::root().join("bare/Cargo.toml");
    let manifest = std::fs::read_to_string(&path);
    let kernels = named_in(&manifest.map_err(|error| Failure::new(format!("bare: {}: {error}", path.display())))?);
    if kernels.is_empty() {
        return Err(Failure::new(format!("bare: {} declares no kernel", path.display())));
    }
    Ok(kernels)
}

/// The names of the `[[test]]` sections that are not switched off.
fn named_in(manifest: &str) -> Vec<String> {
    let sections = manifest.split("\n[").filter_map(|section| section.strip_prefix("[test]]\n"));
    let value = |section: &str, key: &str| {
        let mut pairs = section.lines().filter_map(|line| line.split_once('='));
        // A comment may stand behind the value.
        let found = pairs.find(|(name, _)| name.trim() == key)?.1.split('#').next()?;
        Some(found.trim().trim_matches('"').to_owned())
    };
    let on = sections.filter(|section| value(section, "test").as_deref() != Some("false"));
    on.filter_map(|section| value(section, "name")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_names_the_kernels() {
        let manifest = "[package]\nname = \"x\"\n\n[[test]]\nname = \"boot\"\nharness = false\n\n# Not this one.\n\
                        [[test]]\nname = \"failing\"\ntest = false # by name only\n\n[[test]]\nname = \"smp\"\n[lints]\n";
        assert_eq!(named_in(manifest), ["boot", "smp"]);
        assert!(all().unwrap().contains(&"boot".to_owned()));
        assert!(!all().unwrap().contains(&"failing".to_owned()));
    }
}
