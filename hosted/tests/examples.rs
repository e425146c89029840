//! The examples run, and say what they are there to show.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;

/// The program of an example. `cargo test` builds it beside the tests.
fn program(name: &str) -> PathBuf {
    let tests: PathBuf = std::env::current_exe().expect("it runs");
    tests.ancestors().nth(2).expect("a directory of the build").join("examples").join(name)
}

/// What a program prints that ends well.
fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{:?}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

fn run(name: &str, args: &[&str]) -> String {
    output_of(Command::new(program(name)).args(args))
}

#[test]
fn one_line() {
    assert_eq!(run("one_line", &[]), "1000 words, 4999950000 in all\n");
}

#[test]
fn one_line_under_valgrind() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("there is no valgrind here");
        return;
    }
    let mut valgrind = Command::new("valgrind");
    let text = output_of(valgrind.args(["-q", "--error-exitcode=9"]).arg(program("one_line")));
    assert_eq!(text, "1000 words, 4999950000 in all\n");
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

#[test]
fn interleave() {
    let text = run("interleave", &[]);
    assert!(text.contains("interleaved: chunks on each node: [") && text.contains("numa_hit"), "{text}");
    if text.contains("as if it had two") {
        assert!(text.contains("interleaved: chunks on each node: [32, 32]"), "{text}");
        assert!(text.contains("bound to the last: chunks on each node: [0, 64]"), "{text}");
    }
}
