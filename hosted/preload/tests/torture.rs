//! What is hard for a heap: threads and what they do at their end, copies of the process, no memory, libraries that
//! come and go, signal handlers, the time before and after `main`. Most of it with the C library's own heap as the
//! control.
//!
//! With `PAGEMILL_FULL=1` each takes longer, and has ten times the turns.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::path::Path;
use std::process::Command;

use common::{LEVELS, cases, compile, is_full, remove, run_cases, with_library, without_library};

/// Sets how long a run is.
fn long_or_short(mut command: Command) -> Command {
    if is_full() {
        command.env("PAGEMILL_TIMES", "10").env("PAGEMILL_COPIES", "1500").env("PAGEMILL_STORM_MS", "10000");
    }
    command
}

fn at_every_level(program: &Path) {
    for level in LEVELS {
        run_cases(program, |_| long_or_short(with_library(program, &format!("level:{level}"))));
    }
}

fn torture(source: &str) {
    let program = compile(source, &[]);
    run_cases(&program, |_| without_library(&program));
    at_every_level(&program);
    remove(&program);
}

#[test]
fn threads() {
    torture("torture_threads.c");
}

#[test]
fn forks() {
    torture("torture_forks.c");
}

#[test]
fn memory() {
    torture("torture_memory.c");
}

#[test]
fn loading() {
    let program = compile("torture_loading.c", &[]);
    let plugin = compile("plugin.c", &["-shared", "-fPIC"]);
    std::fs::copy(&plugin, program.with_file_name("plugin.so")).expect("the plug-in can lie beside the program");
    run_cases(&program, |_| without_library(&program));
    at_every_level(&program);
    remove(&plugin);
    remove(&program);
}

/// There is no control: the C library's own heap is not made for that, and hangs.
#[test]
fn signals() {
    let program = compile("torture_signals.c", &[]);
    assert!(cases(&program).len() >= 5);
    at_every_level(&program);
    remove(&program);
}
