//! Boots one test kernel under QEMU: the cargo runner of the bare target.
//!
//! A kernel states the machine it wants inside its own image, as `\0PAGEMILL-QEMU:WORDS\0` (`qemu_args!` in
//! `pagemill-bare`), so that a kernel and its machine cannot drift apart. The words are QEMU's, except:
//!
//! * `timeout=SECONDS`: the time limit of this kernel;
//! * `full:`: the words behind it count only under `PAGEMILL_FULL=1`. QEMU merges repeated `-smp`, `-m` and
//!   `-machine`, so they may change what stands before.
//!
//! The environment: `PAGEMILL_QEMU` (the program), `PAGEMILL_QEMU_ARGS` (words behind all others),
//! `PAGEMILL_QEMU_TIMEOUT` (seconds, above the kernel's own), `PAGEMILL_QEMU_VERBOSE` (print the call).

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::tools;
use std::env;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const MARKER: &[u8] = b"\0PAGEMILL-QEMU:";
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// What the kernel writes to the debug-exit port, as QEMU's exit status: `(value << 1) | 1`.
const EXIT_PASSED: i32 = 33;
const EXIT_FAILED: i32 = 35;

/// Exit statuses of this runner, beside 0 and 1: libtest's for failed tests, timeout(1)'s for the time limit.
const CODE_TESTS_FAILED: u8 = 101;
const CODE_TIME_LIMIT: u8 = 124;

/// A kernel that prints in a loop must not fill a disk with its log.
const SERIAL_LIMIT_BYTES: usize = 16 << 20;

pub(crate) fn run(words: &[String]) -> Outcome {
    let Some((kernel, words)) = words.split_first() else {
        return Err(Failure::usage("mill qemu: which kernel?"));
    };
    let name = kernel_name(kernel);
    let because = |reason: String| Failure::new(format!("mill qemu: {name}: {reason}"));
    let image = std::fs::read(kernel).map_err(|error| because(format!("cannot read {kernel}: {error}")))?;
    let full = env::var("PAGEMILL_FULL").is_ok_and(|value| !value.is_empty() && value != "0");
    let wishes = Wishes::of_image(&image, full).map_err(because)?;
    let limit = limit_of_environment()?.or(wishes.limit).unwrap_or(DEFAULT_LIMIT);

    let mut command = dying_with_us(tools::qemu()?.as_os_str());
    command.args(arguments(&wishes.options, kernel, &command_line(words, full)));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    if env::var_os("PAGEMILL_QEMU_VERBOSE").is_some() {
        eprintln!("mill qemu: {command:?}");
    }
    let mut child = command.spawn().map_err(|error| cargo::cannot_start(&command, &error))?;
    let serial = Serial::pump(child.stdout.take().expect("stdout was asked to be a pipe"));
    let end = wait(&mut child, limit, &serial.seen).map_err(|error| because(format!("cannot wait: {error}")))?;
    let mid_line = serial.drain();
    verdict(end).map_err(|(reason, code)| {
        let newline = if mid_line { "\n" } else { "" };
        Failure::with_code(format!("{newline}mill qemu: {name}: {reason}"), code)
    })
}

/// The test's name, without the hash that cargo appends to the file.
fn kernel_name(kernel: &str) -> String {
    let stem = Path::new(kernel).file_name().unwrap_or(OsStr::new(kernel)).to_string_lossy().into_owned();
    match stem.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name.to_owned(),
        _ => stem,
    }
}

/// What a kernel asks of its machine.
#[derive(Debug, Default, PartialEq)]
struct Wishes {
    options: Vec<String>,
    limit: Option<Duration>,
}

impl Wishes {
    fn of_image(image: &[u8], full: bool) -> Result<Self, String> {
        let mut wishes = Self::default();
        let mut rest = image;
        while let Some(at) = rest.windows(MARKER.len()).position(|window| window == MARKER) {
            rest = &rest[at + MARKER.len()..];
            let end = rest.iter().position(|&byte| byte == 0).ok_or("its QEMU options have no end")?;
            let text = std::str::from_utf8(&rest[..end]).map_err(|_| "its QEMU options are not UTF-8")?;
            wishes.add(text, full)?;
            // The closing zero may be the opening zero of the next marker.
            rest = &rest[end..];
        }
        Ok(wishes)
    }

    fn add(&mut self, text: &str, full: bool) -> Result<(), String> {
        for word in text.split_whitespace() {
            if word == "full:" {
                if !full {
                    break;
                }
            } else if let Some(seconds) = word.strip_prefix("timeout=") {
                self.limit = Some(seconds_of(seconds).ok_or(format!("its time limit {word:?} is no number"))?);
            } else {
                self.options.push(word.to_owned());
            }
        }
        Ok(())
    }
}

fn seconds_of(text: &str) -> Option<Duration> {
    text.parse().ok().filter(|&seconds| seconds > 0).map(Duration::from_secs)
}

fn limit_of_environment() -> Outcome<Option<Duration>> {
    let Some(text) = env::var_os("PAGEMILL_QEMU_TIMEOUT") else {
        return Ok(None);
    };
    match text.to_str().and_then(seconds_of) {
        Some(limit) => Ok(Some(limit)),
        None => Err(Failure::usage(format!("mill qemu: PAGEMILL_QEMU_TIMEOUT is {text:?}, not a number of seconds"))),
    }
}

/// Flags of libtest that take the next word as their value.
const VALUED_FLAGS: &[&str] = &["--test-threads", "--skip", "--format", "--color", "--logfile"];

/// The kernel's command line: filter words and `full`. libtest's own flags mean nothing to a kernel.
fn command_line(words: &[String], full: bool) -> String {
    let mut line = Vec::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if VALUED_FLAGS.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            line.push(word);
        }
    }
    line.extend(full.then_some("full"));
    line.join(" ")
}

fn arguments(options: &[String], kernel: &str, command_line: &str) -> Vec<String> {
    let extra = env::var("PAGEMILL_QEMU_ARGS").unwrap_or_default();
    let extra = extra.split_whitespace().map(str::to_owned);
    let options: Vec<String> = options.iter().cloned().chain(extra).collect();
    let mut all: Vec<String> = Vec::new();
    let mut add = |text: &str| all.extend(text.split(' ').map(str::to_owned));
    // QEMU merges repeated -M, -cpu and -m, the later one winning; of repeated -accel the first one that works wins.
    add("-M q35 -cpu max -m 128M");
    let has_accelerator = options.iter().any(|word| word == "-accel" || word.contains("accel="));
    if !has_accelerator {
        add("-accel tcg");
    }
    add("-nodefaults -no-user-config -display none -no-reboot -serial stdio");
    add("-device isa-debug-exit,iobase=0xf4,iosize=4");
    all.extend(options);
    all.extend(["-kernel", kernel, "-append", command_line].map(str::to_owned));
    all
}

/// A command that is killed when this process dies, however it dies. Where `setpriv` cannot arrange that, QEMU may
/// outlive a killed runner.
fn dying_with_us(program: &OsStr) -> Command {
    let wrapped = |program: &OsStr| {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command
    };
    let mut probe = wrapped(OsStr::new("true"));
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let works = cfg!(target_os = "linux") && probe.status().is_ok_and(|status| status.success());
    if works { wrapped(program) } else { Command::new(program) }
}

/// The serial output on its way to our stdout.
struct Serial {
    seen: Arc<Seen>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    bytes: AtomicUsize,
    mid_line: AtomicBool,
}

impl Serial {
    fn pump(mut from: ChildStdout) -> Self {
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let before = shared.bytes.fetch_add(count, Ordering::Relaxed);
                if before < SERIAL_LIMIT_BYTES {
                    let mut out = io::stdout().lock();
                    // A closed stdout (`| head`) must not stall the guest.
                    let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
                    shared.mid_line.store(buffer[count - 1] != b'\n', Ordering::Relaxed);
                }
            }
        });
        Self { seen, thread }
    }

    /// Waits for what is still in the pipe; says whether the output stopped in the middle of a line. The wait has an
    /// end, since a process left behind by QEMU could hold the pipe open.
    fn drain(self) -> bool {
        let patience = Instant::now() + Duration::from_secs(2);
        while !self.thread.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        self.seen.mid_line.load(Ordering::Relaxed)
    }
}

/// How a run of QEMU came to its end.
enum End {
    Exited(ExitStatus),
    OverTime(Duration),
    Flood,
}

fn wait(child: &mut Child, limit: Duration, seen: &Seen) -> io::Result<End> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(End::Exited(status));
        }
        let flood = seen.bytes.load(Ordering::Relaxed) >= SERIAL_LIMIT_BYTES;
        if flood || start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(if flood { End::Flood } else { End::OverTime(limit) });
        }
        thread::sleep(Duration::from_millis(4));
    }
}

fn verdict(end: End) -> Result<(), (String, u8)> {
    let status = match end {
        End::OverTime(limit) => {
            let reason = format!("killed at the time limit of {} s (PAGEMILL_QEMU_TIMEOUT)", limit.as_secs());
            return Err((reason, CODE_TIME_LIMIT));
        }
        End::Flood => {
            return Err((format!("killed after {} MiB of serial output", SERIAL_LIMIT_BYTES >> 20), 1));
        }
        End::Exited(status) => status,
    };
    match status.code() {
        Some(EXIT_PASSED) => Ok(()),
        Some(EXIT_FAILED) => Err(("the kernel reported a failed test".into(), CODE_TESTS_FAILED)),
        Some(0) => Err(("guest reset or power off (triple fault?)".into(), 1)),
        Some(code) => Err((format!("QEMU ended with status {code}, which no kernel sends: see its message above"), 1)),
        None => Err((format!("QEMU was killed ({status})"), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn wishes(text: &str, full: bool) -> Result<Wishes, String> {
        let image = [b"ELF..", MARKER, text.as_bytes(), b"\0rest"].concat();
        Wishes::of_image(&image, full)
    }

    #[test]
    fn options_and_limit_come_from_the_image() {
        let found = wishes("-smp 4 timeout=9 -m 1G full: -smp 16 timeout=90", false).unwrap();
        assert_eq!(found, Wishes { options: words("-smp 4 -m 1G"), limit: Some(Duration::from_secs(9)) });
        let found = wishes("-smp 4 full: -smp 16 timeout=90", true).unwrap();
        assert_eq!(found, Wishes { options: words("-smp 4 -smp 16"), limit: Some(Duration::from_secs(90)) });
        assert_eq!(Wishes::of_image(b"no marker", false).unwrap(), Wishes::default());
    }

    #[test]
    fn broken_markers_are_named() {
        assert!(wishes("timeout=soon", false).unwrap_err().contains("timeout=soon"));
        assert!(wishes("timeout=0", false).is_err());
        assert!(Wishes::of_image(MARKER, false).unwrap_err().contains("no end"));
    }

    #[test]
    fn adjacent_markers_share_a_zero() {
        let image = [MARKER, b"-smp 2", MARKER, b"-m 1G\0"].concat();
        assert_eq!(Wishes::of_image(&image, false).unwrap().options, words("-smp 2 -m 1G"));
    }

    #[test]
    fn a_kernels_accelerator_replaces_ours() {
        let count = |options: &str| arguments(&words(options), "k", "").iter().filter(|w| *w == "-accel").count();
        assert_eq!(count("-smp 2"), 1);
        assert_eq!(count("-accel tcg,thread=single"), 1);
        assert_eq!(count("-machine accel=tcg"), 0);
    }

    #[test]
    fn flags_of_libtest_do_not_reach_the_kernel() {
        assert_eq!(command_line(&words("--nocapture zones -q"), false), "zones");
        assert_eq!(command_line(&words("--test-threads 1 zones seed=7"), false), "zones seed=7");
        assert_eq!(command_line(&words("zones"), true), "zones full");
    }

    #[test]
    fn names_lose_their_hash() {
        assert_eq!(kernel_name("target/x/deps/boot-0123456789abcdef"), "boot");
        assert_eq!(kernel_name("boot-strap"), "boot-strap");
    }
}
