//! The examples run, and say what they are there to show.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;

/// What an example prints. `cargo test` builds it beside the tests.
fn run(name: &str, args: &[&str]) -> String {
    let tests: PathBuf = std::env::current_exe().expect("it runs");
    let program = tests.ancestors().nth(2).expect("a directory of the build").join("examples").join(name);
    let output = Command::new(&program).args(args).output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn one_line() {
    assert_eq!(run("one_line", &[]), "1000 words, 4999950000 in all\n");
}

#[test]
fn server() {
    let text = run("server", &["1"]);
    assert_eq!(text.matches("busy:").count(), 4, "{text}");
    assert_eq!(text.matches("quiet:").count(), 4, "{text}");
    assert!(text.contains("given back") && text.contains("heap-1024"), "{text}");
}

#[test]
fn oom_cap() {
    let text = run("oom_cap", &["50"]);
    assert!(text.contains("pictures fit into 50 MiB; the next one: memory allocation failed"), "{text}");
    assert!(text.contains("half of them went") && text.contains("more than a limit of 1048576"), "{text}");
    let text = run("oom_cap", &["400"]);
    assert!(text.contains("pictures fit into 400 MiB"), "{text}");
}
