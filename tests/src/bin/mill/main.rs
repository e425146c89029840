//! The project's commands. `cargo demo`, `cargo bare`, `cargo loom` and the others are aliases of this program
//! (`.cargo/config.toml`), and so is the runner that boots a test kernel under QEMU.
//!
//! It sets flags, toolchain and environment itself, so that what a shell happens to export can neither break a run
//! nor make it an empty one.

#![forbid(unsafe_code)]

mod bench;
mod cargo;
mod demo;
mod explore;
mod failure;
mod full;
mod fuzz;
mod kernels;
mod libtest;
mod loom;
mod miri;
mod models;
mod programs;
mod qemu;
mod shuttle;
mod steps;
mod suites;
mod tools;

use failure::{Failure, Outcome};
use std::env;
use std::process::ExitCode;

/// A subcommand: its name, its arguments and purpose for the usage text, and what it does.
struct Command {
    name: &'static str,
    arguments: &'static str,
    purpose: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        arguments: "",
        purpose: "boot a machine of 4 CPUs and 3 nodes on pagemill, then the same hosted",
        run: demo::run,
    },
    Command {
        name: "bare",
        arguments: "[--release] [KERNEL|FILTER]...",
        purpose: "the test kernels under QEMU",
        run: kernels::run,
    },
    Command {
        name: "loom",
        arguments: "[--bound N] [NAME]",
        purpose: "the loom models with their mutants",
        run: loom::run,
    },
    Command {
        name: "shuttle",
        arguments: "[--times N] [NAME]",
        purpose: "the whole heap on random schedules; N times as many",
        run: shuttle::run,
    },
    Command {
        name: "miri-core",
        arguments: "[FILTER]...",
        purpose: "the core crate's tests under Miri",
        run: miri::run,
    },
    Command {
        name: "bench-frames",
        arguments: "[ARGUMENT]...",
        purpose: "the frame benchmarks beside their peers",
        run: bench::frames,
    },
    Command {
        name: "bench-heap",
        arguments: "[ARGUMENT]...",
        purpose: "the heap benchmarks beside their peers",
        run: bench::heap,
    },
    Command {
        name: "real-programs",
        arguments: "[--quick] [--times] [ARGUMENT]...",
        purpose: "Debian's programs on libpagemill.so: the same output, or how fast",
        run: programs::run,
    },
    Command {
        name: "bench-c",
        arguments: "[--quick] [ARGUMENT]...",
        purpose: "malloc and free in a C loop beside other heaps",
        run: programs::pairs,
    },
    Command {
        name: "fuzz",
        arguments: "[--seconds N] [TARGET]",
        purpose: "the core's fuzz targets, 60 s each",
        run: fuzz::run,
    },
    Command {
        name: "alloc-suites",
        arguments: "[--full] [--system] [--or-skip] [SUITE]... [-- ARGUMENT...]",
        purpose: "other people's test suites, run on pagemill",
        run: suites::run,
    },
    Command {
        name: "full",
        arguments: "[--seconds N]",
        purpose: "the long form of every check; N for each fuzz target",
        run: full::run,
    },
    Command {
        name: "ensure",
        arguments: "[bare|qemu|TARGET|nightly|miri|fuzz]...",
        purpose: "install what is missing, or say in a line what to install",
        run: tools::run,
    },
    Command {
        name: "qemu",
        arguments: "KERNEL [FILTER]...",
        purpose: "boot one test kernel (the cargo runner)",
        run: qemu::run,
    },
];

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.reason);
            if failure.code == failure::USAGE {
                eprint!("{}", usage());
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch() -> Outcome {
    let words = env::args_os()
        .skip(1)
        .map(|word| word.into_string())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|word| Failure::usage(format!("mill: argument {word:?} is not UTF-8")))?;
    let Some((name, rest)) = words.split_first() else {
        return Err(Failure::usage("mill: which command?"));
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", usage());
        return Ok(());
    }
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(rest),
        None => Err(Failure::usage(format!("mill: no command {name:?}"))),
    }
}

fn usage() -> String {
    let mut text = String::from("usage: mill COMMAND\n");
    for command in COMMANDS {
        let call = format!("{} {}", command.name, command.arguments);
        text += &format!("  {call:<48}{}\n", command.purpose);
    }
    text
}
