//! Every cargo this program starts is made here, with nothing in its environment that could change what it builds.

use crate::failure::{Failure, Outcome};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The Rust target of the test kernels.
pub(crate) const BARE_TARGET: &str = "x86_64-unknown-none";

/// Variables that would reach the build: flags of another tool (`--cfg loom`, sanitizers, coverage) must not get into
/// a kernel, and an exported `RUSTFLAGS` would replace the flags a command sets.
const DROPPED: &[&str] = &[
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTC_WORKSPACE_WRAPPER",
    "MIRIFLAGS",
    "MAKEFLAGS",
    "CARGO_MAKEFLAGS",
];

/// Prefixes of variables that steer a build or a model run in ways the commands decide themselves, and of those that
/// the outer cargo set to describe this very program.
const DROPPED_PREFIXES: &[&str] = &[
    "CARGO_PROFILE_",
    "CARGO_TARGET_X86_64_UNKNOWN_NONE_",
    "CARGO_PKG_",
    "CARGO_MANIFEST_",
    "CARGO_BIN_",
    "LOOM_",
    "SHUTTLE_",
];

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in a workspace")
}

/// Where builds go.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => env::current_dir().unwrap_or_default().join(dir),
        None => root().join("target"),
    }
}

/// The cargo that runs this program, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    clean(Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())))
}

/// Nightly's cargo. `CARGO` names a program of one toolchain, so this one goes through rustup.
pub(crate) fn nightly_cargo() -> Command {
    let mut command = clean(Command::new("rustup"));
    command.args(["run", "nightly", "cargo"]);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").env_remove("RUSTDOC");
    command
}

/// The compiler that belongs to [`cargo`].
pub(crate) fn rustc() -> Command {
    let beside = env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc")).filter(|p| p.is_file());
    let program = env::var_os("RUSTC").or(beside.map(OsString::from)).unwrap_or_else(|| "rustc".into());
    clean(Command::new(program))
}

fn clean(mut command: Command) -> Command {
    command.current_dir(root());
    if env::var_os("CARGO_TARGET_DIR").is_some() {
        // A relative one is meant from where the user stands, not from the root.
        command.env("CARGO_TARGET_DIR", target_dir());
    }
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let flags_of_a_target = name.starts_with("CARGO_TARGET_") && name.ends_with("_RUSTFLAGS");
        let prefixed = DROPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if DROPPED.contains(&name) || flags_of_a_target || prefixed {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end; `what` names it in the reason.
pub(crate) fn finish(command: &mut Command, what: &str) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{what}: failed ({status})"))) }
}

/// The reason when a program could not even be started.
pub(crate) fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}
