//! Building the workers, and running one.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use heap_workloads::load::Workload;
use heap_workloads::meter::Sample;
use heap_workloads::worker::PATIENCE_SECONDS;

use crate::allocators::Allocator;

/// How a worker is compiled: a profile of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// As `cargo build --release` does.
    NoLto,
    /// All crates as one unit, which lets an allocator in Rust be inlined.
    FatLto,
}

impl Build {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::NoLto, Self::FatLto];

    /// The profile, which is also what the record and the options call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoLto => "no-lto",
            Self::FatLto => "fat-lto",
        }
    }
}

impl FromStr for Build {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|build| build.name() == word);
        found.ok_or_else(|| format!("no build is called {word}; there are no-lto and fat-lto"))
    }
}

/// Builds the worker of `allocator`.
pub(crate) fn build(allocator: &Allocator, build: Build) -> Result<(), String> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--manifest-path"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml"));
    command.args(["--package", "heap-workers", "--profile", build.name(), "--bin", &allocator.program()]);
    if let Some(feature) = allocator.feature {
        command.args(["--features", feature]);
    }
    if !allocator.cxx_flags.is_empty() {
        command.env("CXXFLAGS", allocator.cxx_flags);
    }
    let status = command.status().map_err(|error| format!("cannot start cargo: {error}"))?;
    let without = "leave it out with --allocators";
    status.success().then_some(()).ok_or_else(|| format!("{} does not build; {without}", allocator.key))
}

/// What a worker is made to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// The workload.
    pub workload: &'static Workload,
    /// On so many threads.
    pub threads: usize,
    /// Divides the repetitions.
    pub hurry: usize,
}

/// Runs a worker; `Err` says in a few words why there are no figures.
pub(crate) fn run(allocator: &Allocator, build: Build, case: &Case) -> Result<Vec<Sample>, String> {
    let mut command = Command::new(program(allocator, build));
    // What an allocator reads from its environment is not what it is compared for.
    command.env_clear();
    command.args([case.workload.name, &case.threads.to_string(), &case.hurry.to_string()]);
    let output = command.output().map_err(|error| format!("cannot start: {error}"))?;
    if !output.status.success() {
        return Err(reason(&output));
    }
    String::from_utf8_lossy(&output.stdout).lines().map(str::parse).collect()
}

fn reason(output: &std::process::Output) -> String {
    use std::os::unix::process::ExitStatusExt;
    if output.status.signal() == Some(libc::SIGALRM) {
        return format!("no end within {PATIENCE_SECONDS} s");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    format!("{}: {}", output.status, said.lines().next().unwrap_or("without a word"))
}

/// The workers lie beside this program, each build in the folder of its profile.
fn program(allocator: &Allocator, build: Build) -> PathBuf {
    let here = env::current_exe().expect("a running program has a place");
    let target = here.ancestors().nth(2).expect("cargo's folder of targets");
    target.join(build.name()).join(allocator.program())
}
