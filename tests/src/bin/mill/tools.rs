//! The tools a command needs beside stable Rust: what is missing is installed where that is safe to do, otherwise one
//! line says what to install.

use crate::cargo::{self, BARE_TARGET};
use crate::failure::{Failure, Outcome};
use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const QEMU: &str = "qemu-system-x86_64";

pub(crate) fn run(words: &[String]) -> Outcome {
    if words.is_empty() {
        return Err(Failure::usage("mill ensure: which tools?"));
    }
    for word in words {
        match word.as_str() {
            "bare" => bare()?,
            "qemu" => qemu().map(drop)?,
            "nightly" => nightly(&[])?,
            "miri" => miri()?,
            "fuzz" => fuzz()?,
            triple if triple.matches('-').count() >= 2 && !triple.starts_with('-') => target(triple)?,
            _ => return Err(Failure::usage(format!("mill ensure: no tool {word:?}"))),
        }
    }
    Ok(())
}

/// All that a kernel needs: its Rust target and QEMU.
pub(crate) fn bare() -> Outcome {
    target(BARE_TARGET)?;
    qemu().map(drop)
}

/// The precompiled core library of a target, for the compiler in use.
pub(crate) fn target(triple: &str) -> Outcome {
    let install = || rustup(&["target", "add", triple]);
    obtain(&format!("the Rust target {triple}"), &format!("rustup target add {triple}"), || has_target(triple), install)
}

/// The QEMU program; `PAGEMILL_QEMU` names another one, which is then not installed.
pub(crate) fn qemu() -> Outcome<PathBuf> {
    if let Some(program) = env::var_os("PAGEMILL_QEMU") {
        let missing = || Failure::new(format!("pagemill: there is no program {program:?}, which PAGEMILL_QEMU names"));
        return find(Path::new(&program)).ok_or_else(missing);
    }
    let by_hand = "install QEMU for x86 (Debian, Ubuntu: apt-get install qemu-system-x86; Fedora: dnf install \
                   qemu-system-x86; Arch: pacman -S qemu-system-x86; macOS: brew install qemu)";
    obtain(QEMU, by_hand, || find(Path::new(QEMU)).is_some(), install_qemu)?;
    find(Path::new(QEMU)).ok_or_else(|| Failure::new(format!("pagemill: {QEMU} is not on the PATH")))
}

/// The nightly toolchain with some of its components.
pub(crate) fn nightly(components: &[&str]) -> Outcome {
    let add = "rustup toolchain install nightly --profile minimal --no-self-update";
    obtain("the nightly toolchain", add, has_nightly, || rustup(&add.split(' ').skip(1).collect::<Vec<_>>()))?;
    for component in components {
        let add = ["component", "add", "--toolchain", "nightly", component];
        let has = || has_component(component);
        obtain(&format!("nightly's {component}"), &format!("rustup {}", add.join(" ")), has, || rustup(&add))?;
    }
    Ok(())
}

/// Miri.
pub(crate) fn miri() -> Outcome {
    nightly(&["miri", "rust-src"])
}

/// cargo-fuzz, and the nightly it needs.
pub(crate) fn fuzz() -> Outcome {
    nightly(&[])?;
    let install = || quietly(cargo::cargo().args(["install", "--locked", "cargo-fuzz"]));
    let works = || succeeds(cargo::nightly_cargo().args(["fuzz", "--version"]));
    obtain("cargo-fuzz", "cargo install --locked cargo-fuzz", works, install)
}

/// Installs `what` unless it is there. Callers in other processes wait, and then find it there.
fn obtain(what: &str, by_hand: &str, has: impl Fn() -> bool, install: impl Fn() -> Outcome) -> Outcome {
    if has() {
        return Ok(());
    }
    if env::var_os("PAGEMILL_NO_INSTALL").is_some_and(|value| !value.is_empty() && value != "0") {
        return Err(Failure::new(format!("pagemill: {what} is missing and PAGEMILL_NO_INSTALL is set: {by_hand}")));
    }
    let _lock = lock();
    if has() {
        return Ok(());
    }
    eprintln!("pagemill: installing {what}");
    let failed = |why: String| Failure::new(format!("pagemill: {what} is missing ({why}): {by_hand}"));
    install().map_err(|failure| failed(failure.reason))?;
    if has() { Ok(()) } else { Err(failed("still not found after it was installed".into())) }
}

/// One installation at a time for this user. Without the lock two of them may meet, and the package managers' own
/// locks decide.
fn lock() -> Option<File> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let dir = cargo_home.or_else(|| Some(env::home_dir()?.join(".cargo"))).filter(|dir| dir.is_dir());
    let path = dir.unwrap_or_else(env::temp_dir).join("pagemill-install.lock");
    let file = File::options().create(true).append(true).open(path).ok()?;
    file.lock().ok()?;
    Some(file)
}

/// A package of Debian, unless a file of it is there, or a program on the PATH.
pub(crate) fn debian(file: &Path, package: &str) -> Outcome {
    let by_hand = format!("apt-get install {package}");
    obtain(&file.to_string_lossy(), &by_hand, || find(file).is_some(), || apt_get_install(package))
}

fn install_qemu() -> Outcome {
    apt_get_install("qemu-system-x86")
}

fn apt_get_install(package: &str) -> Outcome {
    let apt = find(Path::new("apt-get")).ok_or_else(|| Failure::new("this machine has no apt-get"))?;
    let is_root = output_of(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if !is_root && !succeeds(Command::new("sudo").args(["-n", "true"])) {
        return Err(Failure::new("neither root nor passwordless sudo"));
    }
    let apt_get = |words: &[&str]| {
        let mut command = Command::new(if is_root { "env" } else { "sudo" });
        if !is_root {
            command.args(["-n", "env"]);
        }
        command.arg("DEBIAN_FRONTEND=noninteractive").arg(&apt).args(["-y", "-o", "DPkg::Lock::Timeout=300"]);
        quietly(command.args(words))
    };
    apt_get(&["update"])?;
    apt_get(&["install", "--no-install-recommends", package])
}

fn rustup(words: &[&str]) -> Outcome {
    if find(Path::new("rustup")).is_none() {
        return Err(Failure::new("there is no rustup to install it with"));
    }
    // In the workspace, so that rustup picks the toolchain that builds it.
    quietly(Command::new("rustup").args(words).current_dir(cargo::root()))
}

fn has_target(triple: &str) -> bool {
    let Some(dir) = output_of(cargo::rustc().args(["--print", "target-libdir", "--target", triple])) else {
        return false;
    };
    let Ok(entries) = std::fs::read_dir(dir.trim()) else {
        return false;
    };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

fn has_nightly() -> bool {
    succeeds(Command::new("rustup").args(["run", "nightly", "rustc", "--version"]))
}

fn has_component(component: &str) -> bool {
    let list = output_of(Command::new("rustup").args(["component", "list", "--toolchain", "nightly", "--installed"]));
    // Components of one host carry its name behind theirs; rust-src does not.
    list.is_some_and(|list| list.lines().any(|line| line == component || line.starts_with(&format!("{component}-"))))
}

/// The program itself if it is a path, else the first of that name on the PATH.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs an installer, whose chatter is shown only when it fails.
fn quietly(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output().map_err(|error| cargo::cannot_start(command, &error))?;
    if output.status.success() {
        return Ok(());
    }
    eprint!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Failure::new(format!("{} failed", command.get_program().to_string_lossy())))
}
