//! What is wrong, by kind, size and level: who sees it, when, and what is said. Each has a control, the same program
//! without the wrong act, in which nobody says anything; and with `abort:false` the program goes on and its heap works.
//!
//! With `PAGEMILL_FULL=1` there are more sizes.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use common::{LEVELS, cases, compile, each, is_full, remove, told, with_library, without_library};

/// Small ones, of which many or few share a slab, the largest small one, and large ones, of whole pages and not.
const SIZES: [usize; 7] = [24, 1000, 20_000, 32 << 10, 64 << 10, 100_000, 3 << 20];
const MORE_SIZES: [usize; 14] = [8, 16, 24, 40, 64, 100, 256, 1000, 4096, 20_000, 32 << 10, 64 << 10, 100_000, 3 << 20];
const MOST_SMALL: usize = 32 << 10;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// A line that has one of these words, and an abort.
    Said(&'static [&'static str]),
    /// A touch of what cannot be touched.
    Touched,
    /// The one or the other.
    Either(&'static [&'static str]),
    /// That is not promised.
    Anyhow,
}

const TWICE: &[&str] = &["is not lent: freed twice"];
/// Of memory that has become something else meanwhile.
const GONE: &[&str] = &["is not lent: freed twice", "is in no object's memory", "is inside an object"];
const FOREIGN: &[&str] = &["is in no object's memory"];
const INSIDE: &[&str] = &["is inside an object"];
const ANYTHING: &[&str] = &["bad free"];
const OTHER_SIZE: &[&str] = &["with another size", "with another layout"];
const BEYOND: &[&str] = &["was written beyond its end"];
const AFTERWARDS: &[&str] = &["was written after it had been freed"];

/// What is promised of a kind and a size at a level.
fn end(kind: &str, bytes: usize, level: &str) -> End {
    let hardened = level == "hardened";
    // There is a canary behind each object.
    let is_large = bytes > MOST_SMALL || (hardened && bytes == MOST_SMALL);
    match kind {
        "of_the_stack" | "of_a_static" | "of_the_system" | "of_nobody" | "of_the_kernel" => End::Said(FOREIGN),
        // Its checks come late.
        _ if level == "fast" => End::Anyhow,
        "double_at_once" | "double_after_ten" | "realloc_of_what_is_free" if !is_large => End::Said(TWICE),
        "double_at_once" | "double_after_ten" | "realloc_of_what_is_free" => End::Said(GONE),
        "double_in_another_thread" | "double_after_another_thread" | "double_after_many" => End::Said(GONE),
        "double_while_cancelled" => End::Said(GONE),
        "double_after_others" | "double_of_the_last" | "double_after_realloc" => End::Said(GONE),
        "never_lent" => End::Said(ANYTHING),
        // Of the smallest this is the next one, which nobody has asked for.
        "inside_16" | "inside_half" if bytes <= 16 => End::Said(ANYTHING),
        "inside_1" | "inside_8" | "inside_16" | "inside_half" | "inside_at_its_end" => End::Said(INSIDE),
        "another_size" | "another_alignment" => End::Said(OTHER_SIZE),
        "one_byte_too_many" | "one_byte_too_many_then_realloc" if hardened && !is_large => End::Said(BEYOND),
        // Beyond whole pages nobody can write.
        "one_byte_too_many" | "one_byte_too_many_then_realloc" if hardened => End::Either(BEYOND),
        // Large blocks go back to frames, and what is in those is nobody's.
        "write_after_free" if hardened && !is_large => End::Said(AFTERWARDS),
        "write_far_behind" if hardened && is_large => End::Touched,
        _ => End::Anyhow,
    }
}

/// The lines that the library wrote.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().filter(|line| line.starts_with("pagemill: ")).map(str::to_owned).collect()
}

/// Whether the library said one of the words of the address that the program has printed.
fn is_said(output: &Output, words: &[&str]) -> bool {
    let told = String::from_utf8_lossy(&output.stdout);
    let Some(address) = told.lines().next() else { return false };
    let start = format!("pagemill: bad free: {address} ");
    lines(output).first().is_some_and(|line| line.starts_with(&start) && words.iter().any(|word| line.contains(word)))
}

/// Whether a run ended as it should.
fn ended(output: &Output, end: End) -> bool {
    let aborted =
        |words| output.status.signal() == Some(libc::SIGABRT) && lines(output).len() == 1 && is_said(output, words);
    let touched = output.status.signal() == Some(libc::SIGSEGV) && lines(output).is_empty();
    match end {
        End::Said(words) => aborted(words),
        End::Touched => touched,
        End::Either(words) => aborted(words) || touched,
        End::Anyhow => true,
    }
}

/// One run of the program: a kind and a size, with the wrong act or without.
#[derive(Debug)]
struct Run<'a> {
    kind: &'a str,
    bytes: usize,
    level: &'a str,
}

impl Run<'_> {
    fn command(&self, program: &Path, options: &str, act: &str) -> Command {
        let mut command = with_library(program, &format!("level:{}{options}", self.level));
        command.args([self.kind, &self.bytes.to_string(), act]);
        command
    }

    fn end(&self) -> End {
        end(self.kind, self.bytes, self.level)
    }
}

/// Runs all that `judge` gives an answer to: what it should have been, if it was otherwise.
fn all(judge: impl Fn(&Path, &Run<'_>) -> Option<(String, Output)> + Sync) {
    let program = compile("wrong_frees.c", &[]);
    let kinds = cases(&program);
    assert!(kinds.len() >= 27);
    let sizes: &[usize] = if is_full() { &MORE_SIZES } else { &SIZES };
    let by_size = |kind: &'_ String, level| sizes.iter().map(|&bytes| (kind.clone(), bytes, level)).collect::<Vec<_>>();
    let runs: Vec<_> =
        LEVELS.iter().flat_map(|&level| kinds.iter().flat_map(move |kind| by_size(kind, level))).collect();
    let otherwise = Mutex::new(Vec::new());
    each(&runs, |(kind, bytes, level)| {
        let run = Run { kind, bytes: *bytes, level };
        if let Some((wanted, output)) = judge(&program, &run) {
            let text = format!("{run:?}: not {wanted}: {}", told(&output));
            otherwise.lock().expect("nobody panics with it").push(text);
        }
    });
    let otherwise = otherwise.into_inner().expect("nobody panics with it");
    assert!(otherwise.is_empty(), "{} of {}:\n{}", otherwise.len(), runs.len(), otherwise.join("\n"));
    remove(&program);
}

fn output(mut command: Command) -> Output {
    command.output().expect("the program runs")
}

#[test]
fn what_is_wrong_is_said_and_ends_the_process() {
    all(|program, run| {
        if run.end() == End::Anyhow {
            return None;
        }
        let output = output(run.command(program, "", "wrong"));
        (!ended(&output, run.end())).then(|| (format!("{:?}", run.end()), output))
    });
}

#[test]
fn what_is_right_is_quiet() {
    all(|program, run| {
        let output = output(run.command(program, "", "right"));
        let is_quiet = output.status.success() && output.stderr.is_empty() && output.stdout.is_empty();
        (!is_quiet).then(|| ("quiet".to_owned(), output))
    });
}

#[test]
fn a_process_may_go_on() {
    all(|program, run| {
        let End::Said(words) = run.end() else { return None };
        let output = output(run.command(program, ",abort:false", "wrong"));
        let goes_on = output.status.success() && is_said(&output, words);
        (!goes_on).then(|| (format!("going on after {words:?}"), output))
    });
}

/// The program itself is right where it should be, whatever the heap.
#[test]
fn the_control_is_right_elsewhere() {
    let program = compile("wrong_frees.c", &[]);
    for kind in cases(&program) {
        // The C library has none of the two functions that it is about.
        if !kind.starts_with("another_") {
            let output = without_library(&program).args([&kind, "1000", "right"]).output().expect("the program runs");
            assert!(output.status.success(), "{kind}: {}", told(&output));
        }
    }
    remove(&program);
}
