//! The command binary as its callers see it: each way a boot can go wrong gives one reason and a status of its own.
//!
//! A shell script stands in for QEMU, so that every ending can be had in milliseconds; the last test boots a real
//! kernel into each of its failures.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const MILL: &str = env!("CARGO_BIN_EXE_mill");

/// Writes a program made of shell.
fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory with a kernel image and a QEMU made of shell.
struct Machine {
    dir: PathBuf,
}

impl Machine {
    /// `name` must differ between tests, since they run at the same time.
    fn new(name: &str, options: &str, qemu: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // What a run before this one left would be taken for this one's.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("kernel"), format!("\x7fELF\0PAGEMILL-QEMU:{options}\0rest")).unwrap();
        let machine = Self { dir };
        script(&machine.qemu(), qemu);
        machine
    }

    fn qemu(&self) -> PathBuf {
        self.dir.join("qemu")
    }

    /// The runner on this kernel, with nothing of the caller's settings.
    fn runner(&self) -> Command {
        let mut command = mill(&["qemu"]);
        command.arg(self.dir.join("kernel")).env("PAGEMILL_QEMU", self.qemu());
        command
    }

    fn boot(&self) -> Ended {
        Ended::of(&mut self.runner())
    }
}

fn mill(words: &[&str]) -> Command {
    let mut command = Command::new(MILL);
    command.args(words);
    for name in ["QEMU", "QEMU_ARGS", "QEMU_TIMEOUT", "QEMU_VERBOSE", "NO_INSTALL", "FULL"] {
        command.env_remove(format!("PAGEMILL_{name}"));
    }
    command
}

/// How a command ended, as text.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    #[track_caller]
    fn failed(&self, code: i32, reason: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(reason), "{self:?}");
    }
}

#[test]
fn a_passed_kernel_is_quiet() {
    let ended = Machine::new("passed", "", "echo all well; exit 33").boot();
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.as_str()), (Some(0), "all well\n", ""));
}

#[test]
fn a_failed_test_keeps_the_serial_output() {
    let ended = Machine::new("failed", "", "echo panicked at x.rs:7; exit 35").boot();
    ended.failed(101, "mill qemu: kernel: the kernel reported a failed test");
    assert_eq!(ended.stdout, "panicked at x.rs:7\n");
}

#[test]
fn a_reset_is_a_failure() {
    let ended = Machine::new("reset", "", "printf 'half a li'; exit 0").boot();
    ended.failed(1, "\nmill qemu: kernel: guest reset or power off (triple fault?)");
    assert_eq!(ended.stdout, "half a li");
}

#[test]
fn an_error_of_qemu_is_shown() {
    let ended = Machine::new("error", "", "echo 'qemu: no such machine' >&2; exit 1").boot();
    ended.failed(1, "qemu: no such machine");
    ended.failed(1, "QEMU ended with status 1");
}

#[test]
fn a_killed_qemu_is_named() {
    Machine::new("killed", "", "kill -9 $$").boot().failed(1, "QEMU was killed (signal: 9");
}

#[test]
fn a_hanging_kernel_is_killed_at_its_own_limit() {
    let machine = Machine::new("hang", "timeout=1", "echo so far; echo $$ > $0.pid; exec sleep 60");
    let start = Instant::now();
    let ended = machine.boot();
    ended.failed(124, "killed at the time limit of 1 s");
    assert_eq!(ended.stdout, "so far\n");
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(!alive(&machine.dir.join("qemu.pid")), "QEMU outlived its time limit");
}

#[test]
fn the_environment_sets_the_limit() {
    let machine = Machine::new("limit", "timeout=50", "exec sleep 60");
    Ended::of(machine.runner().env("PAGEMILL_QEMU_TIMEOUT", "1")).failed(124, "time limit of 1 s");
    Ended::of(machine.runner().env("PAGEMILL_QEMU_TIMEOUT", "soon")).failed(2, "not a number of seconds");
}

#[test]
fn a_kernel_that_prints_for_ever_is_stopped() {
    let ended = Machine::new("flood", "", "exec yes").boot();
    ended.failed(1, "killed after 16 MiB of serial output");
    assert!(ended.stdout.len() < 20 << 20);
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_runner_leaves_no_qemu() {
    if Command::new("setpriv").arg("--version").output().is_err() {
        return;
    }
    let machine = Machine::new("orphan", "", "echo $$ > $0.pid.new; mv $0.pid.new $0.pid; exec sleep 60");
    let pid = machine.dir.join("qemu.pid");
    let mut runner = machine.runner().spawn().unwrap();
    assert!(eventually(|| pid.is_file()), "QEMU did not start");
    runner.kill().unwrap();
    runner.wait().unwrap();
    assert!(eventually(|| !alive(&pid)), "QEMU outlived its runner");
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Whether the process whose id stands in the file still runs. A zombie, whose parent has yet to notice, does not.
fn alive(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    // Small machines have no `ps`, and macOS has no /proc.
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()));
    let state = match status {
        Ok(status) => status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or_default().to_owned(),
        Err(_) if Path::new("/proc/self").exists() => String::new(),
        Err(_) => {
            let output = Command::new("ps").args(["-o", "stat=", "-p", pid.trim()]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        }
    };
    !(state.trim().is_empty() || state.trim().starts_with('Z'))
}

#[test]
fn the_image_decides_about_the_machine() {
    let options = "-smp 4 -machine hmat=on -accel tcg,thread=single full: -smp 16";
    let machine = Machine::new("options", options, "echo \"$@\"; exit 33");
    let words = Ended::of(machine.runner().args(["--nocapture", "zones", "-q"])).stdout;
    assert!(words.starts_with("-M q35 "), "{words}");
    assert!(words.contains(" -smp 4 -machine hmat=on -accel tcg,thread=single -kernel "), "{words}");
    assert!(words.ends_with("-append zones\n"), "{words}");
    assert_eq!(words.matches("-accel").count(), 1, "{words}");

    let full = Ended::of(machine.runner().env("PAGEMILL_FULL", "1").env("PAGEMILL_QEMU_ARGS", "-d int")).stdout;
    assert!(full.contains(" -smp 16 -d int -kernel "), "{full}");
    assert!(full.ends_with("-append full\n"), "{full}");
}

#[test]
fn an_image_that_cannot_be_used_is_named() {
    Ended::of(&mut mill(&["qemu", "/nonexistent/kernel"])).failed(1, "cannot read /nonexistent/kernel");
    Machine::new("badlimit", "timeout=never", "exit 33").boot().failed(1, "\"timeout=never\" is no number");
}

#[test]
fn a_missing_qemu_is_one_line() {
    let mut runner = Machine::new("missing", "", "exit 33").runner();
    let ended = Ended::of(runner.env("PAGEMILL_QEMU", "/nonexistent"));
    ended.failed(1, "there is no program \"/nonexistent\", which PAGEMILL_QEMU names");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

/// A machine with neither QEMU nor rustup: an empty PATH and a compiler that knows no other target.
#[test]
fn nothing_is_installed_against_the_users_will() {
    let machine = Machine::new("noinstall", "", "echo /nonexistent");
    let ensure = |tool: &str, forbidden: bool| {
        let mut command = mill(&["ensure", tool]);
        command.env("PATH", machine.dir.join("empty")).env("RUSTC", machine.qemu());
        if forbidden {
            command.env("PAGEMILL_NO_INSTALL", "1");
        }
        Ended::of(&mut command)
    };
    for (tool, advice) in [("bare", "rustup target add x86_64-unknown-none"), ("qemu", "qemu-system-x86")] {
        let ended = ensure(tool, true);
        ended.failed(1, "is missing and PAGEMILL_NO_INSTALL is set");
        ended.failed(1, advice);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        ensure(tool, false).failed(1, advice);
    }
    ensure("bare", false).failed(1, "there is no rustup");
    ensure("qemu", false).failed(1, "this machine has no apt-get");
}

/// A machine whose package managers are scripts, each of which takes a while and notes its call.
#[test]
fn what_is_missing_is_installed_once() {
    let machine = Machine::new("install", "", "echo $0.lib");
    let dir = &machine.dir;
    let bin = dir.join("bin");
    let lib = dir.join("qemu.lib");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&lib).unwrap();
    let calls = dir.join("calls");
    let note = format!("echo \"${{0##*/}} $*\" >> {}; /bin/sleep 0.1;", calls.display());
    script(&bin.join("rustup"), &format!("{note} : > {}/libcore-0.rlib", lib.display()));
    script(&bin.join("id"), "echo 0");
    script(&bin.join("env"), r#"case $1 in *=*) export "$1"; shift;; esac; exec "$@""#);
    let qemu = bin.join("qemu-system-x86_64");
    let install = format!("case $* in *install*) : > {};; esac", qemu.display());
    script(&bin.join("apt-get"), &format!("{note} {install}"));

    let ensure = || {
        let mut command = mill(&["ensure", "bare"]);
        command.env("PATH", &bin).env("RUSTC", machine.qemu()).env("CARGO_HOME", dir);
        command
    };
    let parallel: Vec<_> = (0..4).map(|_| ensure().stderr(Stdio::piped()).spawn().unwrap()).collect();
    for child in parallel {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let apt = "apt-get -y -o DPkg::Lock::Timeout=300";
    assert_eq!(
        fs::read_to_string(&calls).unwrap(),
        format!(
            "rustup target add x86_64-unknown-none\n{apt} update\n\
             {apt} install --no-install-recommends qemu-system-x86\n"
        )
    );
    fs::remove_file(&qemu).unwrap();
    let ended = Ended::of(&mut ensure());
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), "pagemill: installing qemu-system-x86_64\n"),
        "{ended:?}"
    );
}

/// Suites want nightly for the standard library's, and what cargo downloads for the others.
#[test]
fn suites_without_their_sources_say_what_is_missing() {
    let machine = Machine::new("suites", "", "exit 101");
    let cut_off = Machine::new("suites_cut_off", "", "echo 'error: failed to download `a`' >&2; exit 101");
    let suite = |machine: &Machine, name: &str| {
        let mut command = mill(&["alloc-suites", name]);
        command.env("PATH", machine.dir.join("empty")).env("CARGO", machine.qemu());
        command.env("CARGO_TARGET_DIR", &machine.dir).env("PAGEMILL_NO_INSTALL", "1");
        Ended::of(&mut command)
    };
    let std = suite(&machine, "alloctests");
    std.failed(1, "the nightly toolchain is missing and PAGEMILL_NO_INSTALL is set: rustup toolchain install nightly");
    assert_eq!(std.stderr.lines().count(), 1, "{std:?}");
    let others = suite(&machine, "smallvec");
    others.failed(1, "alloc-suites: downloading sources: failed (exit status: 101)");
    assert_eq!(others.stderr.lines().count(), 1, "{others:?}");
    let others = suite(&cut_off, "smallvec");
    others.failed(1, "alloc-suites: no network, and the sources are not here: run it once where there is one");
}

#[test]
fn wrong_words_are_answered_with_the_usage() {
    let calls: &[&[&str]] = &[
        &[],
        &["boot"],
        &["qemu"],
        &["ensure"],
        &["ensure", "coffee"],
        &["demo", "now"],
        &["bare", "--quick"],
        &["loom", "--bound", "some"],
        &["loom", "--fast"],
        &["miri-core", "--fast"],
        &["fuzz", "--seconds", "0"],
        &["full", "--fast"],
        &["alloc-suites", "coffee"],
    ];
    for words in calls {
        let ended = Ended::of(&mut mill(words));
        ended.failed(2, "usage: mill COMMAND");
        assert!(ended.stderr.starts_with("mill"), "{words:?} {ended:?}");
    }
    let help = Ended::of(&mut mill(&["--help"]));
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("bench-frames"));
}

/// The whole road of `cargo test`: the kernel's host side, cargo for the bare target, this runner, QEMU. Each fault
/// ends within the kernel's time limit, with its reason and the serial output.
#[test]
fn every_fault_of_a_real_kernel_fails_cargo_test() {
    let boot = |test: &str| {
        let mut command = Command::new(env!("CARGO"));
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        command.args(["test", "-p", "pagemill-bare", "--test", "failing", "--", test]);
        command.env_remove("PAGEMILL_QEMU_TIMEOUT").env_remove("PAGEMILL_FULL");
        // The others are done in a moment, but on a machine with much else to do.
        if test != "endless_loop" {
            command.env("PAGEMILL_QEMU_TIMEOUT", "120");
        }
        Ended::of(&mut command)
    };
    let passed = boot("passes");
    assert_eq!(passed.code, Some(0), "{passed:?}");
    assert!(passed.stdout.contains("test result: ok. 1 passed"), "{passed:?}");

    let in_kernel = "mill qemu: failing: the kernel reported a failed test";
    let faults = [
        ("assertion", in_kernel, "bare/tests/failing.rs:"),
        ("panic_on_another_cpu", in_kernel, "far away"),
        ("unhandled_exception", in_kernel, "unhandled_exception"),
        ("no_panic", in_kernel, "did not"),
        ("endless_loop", "mill qemu: failing: killed at the time limit of 15 s", "test endless_loop ... "),
        ("triple_fault", "mill qemu: failing: guest reset or power off (triple fault?)", "test triple_fault ... "),
    ];
    for (test, reason, serial) in faults {
        let ended = boot(test);
        assert!(ended.code.is_some_and(|code| code != 0), "{test}: {ended:?}");
        assert!(ended.stderr.contains(reason), "{test}: {ended:?}");
        assert!(ended.stdout.contains(serial), "{test}: {ended:?}");
    }
}
