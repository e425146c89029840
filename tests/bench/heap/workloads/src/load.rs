//! What a workload is, and how large it is made.

use std::thread;

use crate::meter::Meter;

/// Workloads that are compared together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// The allocator's own paths, on one thread or more.
    Micro,
    /// Rust programs whose cost is in pages: faults, huge pages, growth.
    Pages,
    /// How much memory is held, rather than how long anything takes.
    Memory,
}

impl Set {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 3] = [Self::Micro, Self::Pages, Self::Memory];

    /// As the record and the options call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Pages => "pages",
            Self::Memory => "memory",
        }
    }
}

/// Something to do.
#[derive(Debug)]
pub struct Workload {
    /// As the record and the options call it.
    pub name: &'static str,
    /// What it is compared with.
    pub set: Set,
    /// What is done once: figures are per such a unit.
    pub unit: &'static str,
    /// On how many threads it is measured.
    pub threads: &'static [usize],
    /// Does it, and says how many units that were.
    pub run: fn(&Load, &mut Meter) -> u64,
}

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Threads that do it.
    pub threads: usize,
    /// Divides the repetitions, so that a look is short.
    pub hurry: usize,
}

impl Load {
    /// `count` repetitions, or fewer in a hurry.
    pub fn times(&self, count: usize) -> usize {
        (count / self.hurry).max(1)
    }

    /// Does `work` on each thread; it is told the thread's number. One thread is the main thread.
    pub fn on_each_thread(&self, work: impl Fn(usize) + Sync) {
        if self.threads == 1 {
            return work(0);
        }
        self.on_new_threads(work);
    }

    /// The same, on threads that are new and end with it.
    pub fn on_new_threads(&self, work: impl Fn(usize) + Sync) {
        thread::scope(|scope| {
            for index in 0..self.threads {
                let work = &work;
                scope.spawn(move || work(index));
            }
        });
    }
}
