//! A thread that gives memory back when nobody else comes by: for programs that sleep after a burst.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::errno::keeping_errno;
use crate::tls::without_signals;

/// Whether there is such a thread.
pub(crate) struct Background {
    /// Milliseconds from one look to the next, 0 if nobody wants it.
    period_ms: AtomicU64,
    /// Whether it runs.
    runs: AtomicBool,
}

impl Background {
    pub(crate) const fn new() -> Self {
        Self { period_ms: AtomicU64::new(0), runs: AtomicBool::new(false) }
    }

    /// Starts it, or changes its period; a period of zero ends it.
    pub(crate) fn start(&'static self, period: Duration, tick: impl Fn() + Send + 'static) -> io::Result<()> {
        let ms = if period.is_zero() { 0 } else { u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1) };
        self.period_ms.store(ms, Ordering::Relaxed);
        if ms == 0 { Ok(()) } else { self.start_again(tick) }
    }

    /// Whether somebody wants it and it is not there, as after a `fork`.
    pub(crate) fn is_missing(&self) -> bool {
        self.period_ms.load(Ordering::Relaxed) != 0 && !self.runs.load(Ordering::Relaxed)
    }

    /// The process is a copy, with one thread.
    pub(crate) fn in_copy(&self) {
        self.runs.store(false, Ordering::Relaxed);
    }

    /// Starts it in a copy, which does not find its error number changed. If that cannot be, nobody wants it any more.
    pub(crate) fn start_in_copy(&'static self, tick: impl Fn() + Send + 'static) {
        if keeping_errno(|| self.start_again(tick)).is_err() {
            self.period_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Starts it unless it runs.
    fn start_again(&'static self, tick: impl Fn() + Send + 'static) -> io::Result<()> {
        // Relaxed: nothing but the thread hangs on it.
        if self.runs.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let work = move || {
            loop {
                match self.period_ms.load(Ordering::Relaxed) {
                    0 => break self.runs.store(false, Ordering::Relaxed),
                    ms => thread::sleep(Duration::from_millis(ms)),
                }
                tick();
            }
        };
        // The program's signal handlers are not for this thread, nor for its stack.
        let start = move || without_signals(work);
        let started = thread::Builder::new().name("pagemill".into()).stack_size(64 << 10).spawn(start);
        if started.is_err() {
            self.runs.store(false, Ordering::Relaxed);
        }
        started.map(drop)
    }
}
