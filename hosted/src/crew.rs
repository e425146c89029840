//! Threads that are the CPUs 0 to n of an instance: for demonstrations and tests, where a thread must be a certain CPU.

use pagemill::CpuId;

use crate::tls::{self, Seat};

/// The numbers 0 to n, kept from all other threads.
#[derive(Debug)]
pub struct Crew {
    seats: Vec<Seat>,
}

impl Crew {
    /// Keeps the CPUs `0..cpus` and runs `work` with the calling thread as CPU 0.
    ///
    /// `None`, and no call, if another thread has one of the numbers: only one crew works at a time, and other threads
    /// that have used an instance before it came keep what they have. `None` too if the caller sits on another CPU.
    ///
    /// # Panics
    /// Inside the allocator, and in a signal handler.
    pub fn work<R>(cpus: u32, work: impl FnOnce(&Self) -> R) -> Option<R> {
        tls::give_up_number();
        let crew = Self { seats: (0..cpus).map(|cpu| Seat::keep(CpuId::new(cpu))).collect::<Option<_>>()? };
        let _sitting = crew.seats.first()?.sit()?;
        Some(work(&crew))
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> u32 {
        self.seats.len() as u32
    }

    /// Runs `work` on every CPU at once, CPU 0 being the caller, and returns when all are done. What lies in a CPU's
    /// pools stays there until it works again.
    ///
    /// # Panics
    /// If `work` does anywhere, if no thread can be started, or when called from inside such work.
    pub fn on_all(&self, work: &(dyn Fn(u32) + Sync)) {
        std::thread::scope(|scope| {
            for (cpu, seat) in (0..).zip(&self.seats).skip(1) {
                scope.spawn(move || {
                    let sitting = seat.sit();
                    assert!(sitting.is_some(), "CPU {cpu} is at work already");
                    work(cpu);
                });
            }
            work(0);
        });
    }
}
