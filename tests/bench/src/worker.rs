//! One thread's part of a repetition.

use std::hint::black_box;
use std::sync::Barrier;

use crate::frames::{Cpu, Live};
use crate::os::cpu_ns;
use crate::rng::Rng;
use crate::workload::{Case, Workload};

/// Pairs in a pair workload, over all threads; of blocks fewer, because a peer that scans for them takes its time.
const PAIRS: usize = 500_000;
const BLOCK_PAIRS: usize = 50_000;
/// Replacements in a replace workload.
const REPLACEMENTS: usize = 2_000_000;
/// Steps of a mixed workload before its figures count, and those that count.
const MIXED_WARM_UP: usize = 400_000;
const MIXED_STEPS: usize = 1_000_000;
/// How often churn replaces every lent frame, on average.
const TURNOVERS: usize = 8;

/// What a thread measured.
pub(crate) struct Outcome {
    /// In the same order on every thread.
    pub(crate) timings: Vec<Timing>,
    /// The blocks lent at the end.
    pub(crate) live: Vec<Live>,
    /// Requests in all.
    pub(crate) asked: usize,
    /// Requests that were not granted.
    pub(crate) refused: usize,
}

/// A timed loop.
pub(crate) struct Timing {
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) ns: u64,
    pub(crate) operations: usize,
}

/// A thread with its CPU's way into the allocator and the blocks it has been lent.
pub(crate) struct Worker<'a, C> {
    cpu: C,
    case: Case,
    barrier: &'a Barrier,
    rng: Rng,
    out: Outcome,
}

impl<'a, C: Cpu> Worker<'a, C> {
    pub(crate) fn new(cpu: C, case: &Case, index: usize, barrier: &'a Barrier) -> Self {
        let out = Outcome { timings: Vec::new(), live: Vec::new(), asked: 0, refused: 0 };
        let rng = Rng::new((case.rep * case.threads + index) as u64);
        Self { cpu, case: *case, barrier, rng, out }
    }

    pub(crate) fn run(mut self) -> Outcome {
        match self.case.workload {
            Workload::Bulk => self.bulk(),
            Workload::Pair(order) => {
                self.fill(25);
                self.pair(order);
            }
            Workload::ScatteredPair(order) => {
                self.fill(50);
                self.free_random_half();
                self.pair(order);
            }
            Workload::Replace(percent) => {
                self.fill(percent);
                self.replace(REPLACEMENTS / self.case.threads / self.case.hurry);
            }
            Workload::Mixed(percent) => self.mixed(percent),
            Workload::Churn => {
                self.fill(100);
                self.free_random_half();
                self.replace(self.out.live.len() * TURNOVERS / self.case.hurry);
            }
        }
        // Nobody may drain or drop its pools while another still measures.
        self.barrier.wait();
        self.out
    }

    /// Lets all threads start together, and times `body`, which says how many operations it did.
    fn time(&mut self, metric: &'static str, unit: &'static str, body: impl FnOnce(&mut Self) -> usize) {
        self.barrier.wait();
        let start = cpu_ns();
        let operations = body(self);
        let ns = cpu_ns() - start;
        self.out.timings.push(Timing { metric, unit, ns, operations });
    }

    /// Takes single frames until this thread's share of `percent` of all frames is lent, in the order of the answers.
    fn fill(&mut self, percent: usize) {
        let share = self.case.frames * percent / 100 / self.case.threads;
        // Written, so that the page faults of the list are not counted as the allocator's.
        self.out.live = vec![Live::new(0, 0); share];
        black_box(&mut self.out.live);
        self.barrier.wait();
        let granted = take_all(&mut self.cpu, &mut self.out.live);
        self.out.asked += share;
        self.out.refused += share - granted;
        self.out.live.truncate(granted);
    }

    fn free_random_half(&mut self) {
        self.rng.shuffle(&mut self.out.live);
        let half = self.out.live.len() / 2;
        give_back(&mut self.cpu, &self.out.live[half..]);
        self.out.live.truncate(half);
    }

    fn bulk(&mut self) {
        self.fill(100);
        give_back(&mut self.cpu, &self.out.live);
        let mut granted = 0;
        self.time("alloc", "ns", |w| {
            granted = take_all(&mut w.cpu, &mut w.out.live);
            granted
        });
        self.out.live.truncate(granted);
        self.time("free-fifo", "ns", |w| give_back(&mut w.cpu, &w.out.live));
        self.fill(100);
        self.rng.shuffle(&mut self.out.live);
        self.time("free-random", "ns", |w| give_back(&mut w.cpu, &w.out.live));
        self.out.live.clear();
    }

    fn pair(&mut self, order: usize) {
        let pairs = if order == 0 { PAIRS } else { BLOCK_PAIRS };
        let pairs = pairs / self.case.threads / self.case.hurry;
        let refused = match order {
            // A constant order, as callers have it.
            0 => self.time_pairs::<0>(pairs),
            3 => self.time_pairs::<3>(pairs),
            9 => self.time_pairs::<9>(pairs),
            _ => unreachable!("no such workload"),
        };
        self.out.asked += pairs;
        self.out.refused += refused;
    }

    fn time_pairs<const ORDER: usize>(&mut self, pairs: usize) -> usize {
        let mut refused = take_and_give::<ORDER>(&mut self.cpu, pairs / 10 + 1);
        self.time("pair", "ns", |w| {
            refused = take_and_give::<ORDER>(&mut w.cpu, pairs);
            pairs
        });
        refused
    }

    fn replace(&mut self, steps: usize) {
        self.time("pair", "ns", |w| {
            w.out.refused += replace(&mut w.cpu, &mut w.rng, &mut w.out.live, steps);
            steps
        });
        self.out.asked += steps;
    }

    fn mixed(&mut self, percent: usize) {
        let target = self.case.frames * percent / 100 / self.case.threads;
        let parts = self.case.threads * self.case.hurry;
        // Its pages are touched by the warm-up, in which nothing is timed. A small memory needs fewer steps to fill.
        self.out.live = Vec::with_capacity(target);
        let warm_up = MIXED_WARM_UP.min(self.case.frames * 2) / self.case.threads;
        let mut used = 0;
        mixed(&mut self.cpu, &mut self.rng, &mut self.out.live, &mut used, target, warm_up);
        self.time("op", "ns", |w| {
            let steps = MIXED_STEPS / parts;
            let (asked, refused) = mixed(&mut w.cpu, &mut w.rng, &mut w.out.live, &mut used, target, steps);
            w.out.asked += asked;
            w.out.refused += refused;
            steps
        });
    }
}

// The loops. Each is a function of its own, so that one does not change how another is compiled.

/// Takes a frame for every element, until one is refused; how many were granted.
#[inline(never)]
fn take_all<C: Cpu>(cpu: &mut C, live: &mut [Live]) -> usize {
    for (i, block) in live.iter_mut().enumerate() {
        let Some(frame) = cpu.alloc(0) else { return i };
        *block = Live::new(frame, 0);
    }
    live.len()
}

/// Gives single frames back; how many.
#[inline(never)]
fn give_back<C: Cpu>(cpu: &mut C, live: &[Live]) -> usize {
    for block in live {
        cpu.free(block.frame(), 0);
    }
    live.len()
}

/// Takes a block and gives it back at once; how many were refused.
#[inline(never)]
fn take_and_give<const ORDER: usize>(cpu: &mut impl Cpu, pairs: usize) -> usize {
    let mut refused = 0;
    for _ in 0..pairs {
        match cpu.alloc(ORDER) {
            Some(frame) => cpu.free(black_box(frame), ORDER),
            None => refused += 1,
        }
    }
    refused
}

/// Gives back a random frame and takes one in its place; how many were refused.
#[inline(never)]
fn replace<C: Cpu>(cpu: &mut C, rng: &mut Rng, live: &mut Vec<Live>, steps: usize) -> usize {
    let mut refused = 0;
    for _ in 0..steps {
        let i = rng.below(live.len());
        cpu.free(live[i].frame(), 0);
        match cpu.alloc(0) {
            Some(frame) => live[i] = Live::new(frame, 0),
            None => {
                live.swap_remove(i);
                refused += 1;
            }
        }
    }
    refused
}

/// Takes blocks of random orders while fewer than `target` frames are lent, else gives back a random block; how many
/// were asked for and how many refused.
#[inline(never)]
fn mixed<C: Cpu>(
    cpu: &mut C,
    rng: &mut Rng,
    live: &mut Vec<Live>,
    used: &mut usize,
    target: usize,
    steps: usize,
) -> (usize, usize) {
    let (mut asked, mut refused) = (0, 0);
    for _ in 0..steps {
        if *used < target {
            let order = rng.order();
            asked += 1;
            match cpu.alloc(order) {
                Some(frame) => {
                    live.push(Live::new(frame, order));
                    *used += 1 << order;
                }
                None => refused += 1,
            }
        } else {
            let block = live.swap_remove(rng.below(live.len()));
            cpu.free(block.frame(), block.order());
            *used -= 1 << block.order();
        }
    }
    (asked, refused)
}
