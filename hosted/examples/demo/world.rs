//! A machine of threads and a mapping as the world of the scenarios.

use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use pagemill::{Frames, Metadata};
use pagemill_hosted::{Crew, Hosted, Machine, Mapping};
use pagemill_tests::World;

/// A machine and the threads that are its CPUs.
pub(crate) struct HostedWorld<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) crew: &'a Crew,
    pub(crate) effort: usize,
}

impl World for HostedWorld<'_> {
    type P = Hosted;

    fn frames(&self) -> &'static Frames<'static, Hosted> {
        self.machine.frames()
    }

    fn cpus(&self) -> u32 {
        self.crew.cpus()
    }

    fn on_all(&self, work: &(dyn Fn(u32) + Sync)) {
        self.crew.on_all(work);
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }

    fn with_metadata(&self, bytes: usize, work: &mut dyn FnMut(Metadata<'_>)) -> bool {
        match Mapping::new(bytes) {
            Ok(mut mapping) => {
                work(mapping.metadata());
                true
            }
            Err(error) => {
                println!("{error}");
                false
            }
        }
    }

    fn with_words(&self, count: usize, work: &mut dyn FnMut(&[AtomicU64])) -> bool {
        work(&(0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>());
        true
    }

    fn effort(&self) -> usize {
        self.effort
    }

    fn is_lazy(&self) -> bool {
        true
    }

    fn ticks(&self) -> u64 {
        Hosted::thread_ns()
    }

    fn tick_unit(&self) -> &'static str {
        "ns"
    }

    fn now_ns(&self) -> Option<u64> {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(BEGAN.elapsed().as_nanos()).ok()
    }
}
