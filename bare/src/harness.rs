//! Tests inside a kernel, and panics.
//!
//! The output is libtest's, as far as a kernel has it. A panic ends the kernel with a message, since nothing is unwound
//! here: what comes after a failed test does not run.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use lock_api::Mutex;

use crate::cpu::{self, Verdict};
use crate::machine;
use crate::percpu::{self, IrqLock};
use crate::serial;
use crate::time::Span;

/// A test: its name, and what it does. It fails by a panic.
pub type Test = (&'static str, fn());

/// What the panic handler must know.
struct Run {
    /// The test that runs.
    name: Option<&'static str>,
    /// What its panic must say, if it is to end in one.
    expected: Option<&'static str>,
    passed: usize,
    filtered: usize,
    began: u64,
}

static RUN: Mutex<IrqLock, Run> = Mutex::new(Run { name: None, expected: None, passed: 0, filtered: 0, began: 0 });

/// Runs the tests whose names the command line does not filter out, and ends the machine.
pub fn run(tests: &'static [Test]) -> ! {
    let chosen = || tests.iter().filter(|(name, _)| is_chosen(name));
    let (count, total) = (chosen().count(), tests.len());
    crate::println!("\nrunning {count} {}", if count == 1 { "test" } else { "tests" });
    {
        let mut run = RUN.lock();
        run.filtered = total - count;
        run.began = cpu::time_stamp();
    }
    for (name, test) in chosen() {
        RUN.lock().name = Some(name);
        crate::print!("test {name} ... ");
        test();
        let mut run = RUN.lock();
        // Taken, or the panic about the missing panic would be taken for it.
        if let Some(expected) = run.expected.take() {
            drop(run);
            panic!("the test was to panic with {expected:?}, and did not");
        }
        run.name = None;
        run.passed += 1;
        drop(run);
        crate::println!("ok");
    }
    finish()
}

/// Declares that the running test ends in a panic whose message contains `text`. It must be the last one of its kernel,
/// because a kernel does not survive a panic.
pub fn expect_panic(text: &'static str) {
    RUN.lock().expected = Some(text);
}

/// Whether the command line has the word `name`. Words without a meaning of their own filter tests by name.
pub fn has_word(name: &str) -> bool {
    machine::get().command_line.split_ascii_whitespace().any(|word| word == name)
}

/// The value of the first word `name=VALUE` on the command line. Such words are no filters.
pub fn option(name: &str) -> Option<&'static str> {
    let words = machine::get().command_line.split_ascii_whitespace();
    words.filter_map(|word| word.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// Whether long forms are asked for.
pub fn is_full() -> bool {
    has_word(FULL)
}

/// The word that asks for long forms.
const FULL: &str = "full";

fn is_chosen(test: &str) -> bool {
    let words = machine::get().command_line.split_ascii_whitespace();
    let mut filters = words.filter(|word| !word.starts_with('-') && !word.contains('=') && *word != FULL).peekable();
    filters.peek().is_none() || filters.any(|filter| test.contains(filter))
}

fn finish() -> ! {
    let (passed, filtered, began) = {
        let run = RUN.lock();
        (run.passed, run.filtered, run.began)
    };
    let took = Span(cpu::time_stamp() - began);
    crate::println!(
        "\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out; \
         finished in {took}\n"
    );
    cpu::exit(Verdict::Passed)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !serial::take_for_panic() {
        crate::println!("panicked again while panicking");
        cpu::exit(Verdict::Failed);
    }
    // A panic while the lock is held must still be told; what cannot be read then is only the test's name.
    let mut run = RUN.try_lock();
    let name = run.as_ref().and_then(|run| run.name);
    let expected = run.as_mut().and_then(|run| run.expected.take());
    if expected.is_some_and(|text| says(info, text)) {
        if let Some(run) = run.as_mut() {
            run.passed += 1;
        }
        drop(run);
        crate::println!("ok");
        finish();
    }
    if name.is_some() {
        crate::println!("FAILED");
    }
    crate::println!("\n{info}\n  on CPU {}{}{}", percpu::cpu(), name.map_or("", |_| ", in test "), name.unwrap_or(""));
    if let Some(text) = expected {
        crate::println!("  expected was a panic with {text:?}");
    }
    if name.is_some() {
        crate::println!("\ntest result: FAILED. {} passed; 1 failed", run.as_ref().map_or(0, |run| run.passed));
    }
    cpu::exit(Verdict::Failed)
}

/// Whether the message contains `text`.
fn says(info: &PanicInfo<'_>, text: &str) -> bool {
    let mut message = Text { bytes: [0; 512], len: 0 };
    // A message that does not fit is looked at as far as it does.
    let _ = write!(message, "{}", info.message());
    message.bytes[..message.len].windows(text.len().max(1)).any(|window| window == text.as_bytes())
}

/// Text in place.
struct Text {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.bytes.get_mut(self.len).ok_or(fmt::Error)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}
