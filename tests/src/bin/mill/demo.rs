//! `cargo demo`: a machine boots on pagemill under QEMU, then the same scenarios run hosted, and a program runs on its
//! heap.

use crate::cargo::{self, BARE_TARGET};
use crate::failure::{Failure, Outcome};
use crate::tools;
use std::process::Command;

/// One part of the demonstration: its title and the cargo target that is built and run.
struct Part {
    title: &'static str,
    program: Program,
}

enum Program {
    /// A test kernel.
    Kernel(&'static str),
    /// An example of the hosted crate.
    Hosted(&'static str),
}

const PARTS: &[Part] = &[
    Part { title: "a machine boots: 4 CPUs, 3 nodes, under QEMU", program: Program::Kernel("demo") },
    Part { title: "instructions of the fast paths, counted under icount", program: Program::Kernel("costs") },
    Part { title: "the same scenarios hosted, on mmap", program: Program::Hosted("demo") },
    Part { title: "a program with pagemill as its global allocator", program: Program::Hosted("objects") },
];

pub(crate) fn run(words: &[String]) -> Outcome {
    if let Some(word) = words.first() {
        return Err(Failure::usage(format!("mill demo: unexpected argument {word:?}")));
    }
    tools::bare()?;
    // All builds first, so that the parts follow each other without compiler output between them.
    for Part { title, program } in PARTS {
        cargo::finish(&mut program.build(), &format!("demo: building for {title:?}"))?;
    }
    for (index, Part { title, program }) in PARTS.iter().enumerate() {
        println!("\n== {}/{}: {title}\n", index + 1, PARTS.len());
        cargo::finish(&mut program.run(), &format!("demo: {title}"))?;
    }
    Ok(())
}

impl Program {
    fn build(&self) -> Command {
        let mut command = cargo::cargo();
        match self {
            Self::Kernel(name) => command.args(kernel_words(name)).arg("--no-run"),
            Self::Hosted(name) => command.args(["build", "--release", "-p", "pagemill-hosted", "--example", name]),
        };
        command
    }

    fn run(&self) -> Command {
        let mut command = cargo::cargo();
        match self {
            Self::Kernel(name) => command.args(kernel_words(name)),
            Self::Hosted(name) => command.args(["run", "--release", "-p", "pagemill-hosted", "--example", name]),
        };
        command.arg("--quiet");
        command
    }
}

fn kernel_words(name: &str) -> [&str; 8] {
    ["test", "--release", "--target", BARE_TARGET, "-p", "pagemill-bare", "--test", name]
}
