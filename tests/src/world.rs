//! The machine, as a scenario sees it.

use core::fmt;
use core::sync::atomic::AtomicU64;

use pagemill::{Frames, Metadata, Platform};

/// What a scenario needs of the machine it runs on.
///
/// A kernel has it from its boot, a process makes one up of threads and a mapping. Scenarios are called on one of the
/// world's CPUs, in task context, while all others are idle.
pub trait World: Sync {
    /// The machine.
    type P: Platform + Send + Sync;

    /// The machine's own instance, with all its memory.
    fn frames(&self) -> &'static Frames<'static, Self::P>;

    /// How many CPUs there are, numbered from 0 as the platform numbers them.
    fn cpus(&self) -> u32;

    /// Runs `work` on every CPU at once, the caller's included, each with its number, and returns when all are done.
    ///
    /// A panic on any of them must end the scenario as a panic.
    fn on_all(&self, work: &(dyn Fn(u32) + Sync));

    /// Prints a line.
    fn say(&self, line: fmt::Arguments<'_>);

    /// Calls `work` with that many bytes for the metadata of an instance that ends with the call; `false`, and no call,
    /// if they are not to be had.
    ///
    /// They may be frames of the machine's own instance: they are back when this returns.
    fn with_metadata(&self, bytes: usize, work: &mut dyn FnMut(Metadata<'_>)) -> bool;

    /// Calls `work` with that many words, all zero, as [`with_metadata`](Self::with_metadata) does.
    fn with_words(&self, count: usize, work: &mut dyn FnMut(&[AtomicU64])) -> bool;

    /// How many operations a scenario may spend on one loop: fewer where each is slow.
    fn effort(&self) -> usize {
        1 << 16
    }

    /// Whether metadata of gigabytes costs nothing until it is touched.
    fn is_lazy(&self) -> bool {
        false
    }

    /// A clock for the cost of short stretches of work on the calling CPU.
    fn ticks(&self) -> u64;

    /// What that clock counts: `"ns"`, `"cycles"`.
    fn tick_unit(&self) -> &'static str;

    /// Nanoseconds since some moment, for how long work on all CPUs takes; `None` where nobody knows.
    fn now_ns(&self) -> Option<u64> {
        None
    }
}
