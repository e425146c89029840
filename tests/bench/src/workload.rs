//! What each allocator does in one repetition of a case.
//!
//! Every workload is split evenly over the threads, which share one allocator. A fresh allocator is used for every
//! repetition, and its metadata is touched before anything is timed.

use std::fmt;
use std::sync::Barrier;
use std::thread;

use crate::frames::{Frames, free_huge};
use crate::worker::{Outcome, Worker};

/// The workloads, in the order in which they are reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// Take every frame one by one; give them back in the same order; take again, give back in random order.
    Bulk,
    /// Take and give back one block at a time, with the first quarter of the frames lent and the rest in one piece:
    /// an eager buddy splits and merges the whole height of its tree.
    Pair(usize),
    /// The same with the lent quarter scattered over half of the memory.
    ScatteredPair(usize),
    /// With this percentage lent frame by frame: give back a random frame, take one.
    Replace(usize),
    /// Orders 0 to 9, each half as likely as the one before, with about this percentage lent.
    Mixed(usize),
    /// From full: give back a random half, then replace random frames, eight times as many as are lent.
    Churn,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Bulk,
        Self::Pair(0),
        Self::Pair(3),
        Self::Pair(9),
        Self::ScatteredPair(0),
        Self::ScatteredPair(3),
        Self::ScatteredPair(9),
        Self::Replace(50),
        Self::Replace(90),
        Self::Mixed(50),
        Self::Mixed(90),
        Self::Churn,
    ];

    /// The name without its number: one word selects the whole family.
    pub fn family(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Pair(_) => "pair",
            Self::ScatteredPair(_) => "scattered-pair",
            Self::Replace(_) => "replace",
            Self::Mixed(_) => "mixed",
            Self::Churn => "churn",
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family())?;
        match self {
            Self::Pair(n) | Self::ScatteredPair(n) | Self::Replace(n) | Self::Mixed(n) => write!(f, "-{n}"),
            Self::Bulk | Self::Churn => Ok(()),
        }
    }
}

/// One point of the measurement.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is done.
    pub workload: Workload,
    /// Frames managed.
    pub frames: usize,
    /// Threads that share them.
    pub threads: usize,
    /// Divides the number of steps, for a quick look.
    pub hurry: usize,
    /// The repetition: each draws other requests, the same for every allocator.
    pub rep: usize,
}

/// One figure of one repetition.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// What was measured.
    pub metric: &'static str,
    /// In which unit.
    pub unit: &'static str,
    /// The figure.
    pub value: f64,
}

/// Runs one repetition of `case` on a fresh `P`.
pub fn run<P: Frames>(case: &Case) -> Vec<Sample> {
    let allocator = P::new(case.frames, case.threads);
    let barrier = Barrier::new(case.threads);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let start = |index| {
            let (allocator, barrier) = (&allocator, &barrier);
            scope.spawn(move || Worker::new(allocator.cpu(index), case, index, barrier).run())
        };
        let workers: Vec<_> = (0..case.threads).map(start).collect();
        workers.into_iter().map(|w| w.join().expect("a measuring thread panicked")).collect()
    });
    allocator.verify();
    let mut samples = merge(&outcomes);
    if let Workload::Replace(_) | Workload::Mixed(_) | Workload::Churn = case.workload {
        let left = free_huge(case.frames, outcomes.iter().flat_map(|o| o.live.iter().copied()));
        samples.push(Sample { metric: "huge-left", unit: "2 MiB frames", value: left as f64 });
    }
    if let Some(bytes) = allocator.metadata_bytes().filter(|_| case.workload == Workload::Bulk) {
        let bits = bytes as f64 * 8.0 / case.frames as f64;
        samples.push(Sample { metric: "metadata", unit: "bits/frame", value: bits });
    }
    samples
}

/// Adds up what the threads measured: time over all threads by operations over all threads.
fn merge(outcomes: &[Outcome]) -> Vec<Sample> {
    let mut samples = Vec::new();
    for (i, timing) in outcomes[0].timings.iter().enumerate() {
        let ns: u64 = outcomes.iter().map(|o| o.timings[i].ns).sum();
        let operations: usize = outcomes.iter().map(|o| o.timings[i].operations).sum();
        samples.push(Sample { metric: timing.metric, unit: timing.unit, value: ns as f64 / operations.max(1) as f64 });
    }
    let asked: usize = outcomes.iter().map(|o| o.asked).sum();
    let refused: usize = outcomes.iter().map(|o| o.refused).sum();
    if refused > 0 {
        let value = refused as f64 * 100.0 / asked as f64;
        samples.push(Sample { metric: "refused", unit: "% of requests", value });
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;

    /// Every workload runs on every peer, on one and two threads, and no frame is lent twice.
    #[test]
    fn every_peer_passes_the_check() {
        for peer in peers::all().iter().filter(|p| !p.is_loop()) {
            for workload in Workload::ALL {
                for threads in [1, 2] {
                    let case = Case { workload, frames: 1 << 14, threads, hurry: 500, rep: 0 };
                    let samples = (peer.check)(&case);
                    assert!(samples.iter().all(|s| s.value >= 0.0), "{} {workload}", peer.key);
                }
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Workload::ALL.iter().map(|w| w.to_string()).collect();
        assert_eq!(names.len(), Workload::ALL.len());
    }
}
