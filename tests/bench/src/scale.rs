//! Simulated scale: memories and numbers of CPUs that the machine at hand does not have.
//!
//! Frames are never touched and metadata is mapped lazily, so a terabyte costs what its metadata costs where it is
//! used. One thread acts as each CPU in turn, so a figure says what an operation costs and how often it takes a lock,
//! which is when it writes lines that CPUs share, not how CPUs that really run at once would wait for each other. The
//! blocks in use are as many for every number of CPUs and every size, so that the measuring loop has the same share of
//! the caches.

use crate::args::Args;
use crate::csv::{self, Record, Row};
use crate::frames::{Cpu, Frames, HUGE, HUGE_ORDER, Live};
use crate::os::cpu_ns;
use crate::peers::Peer;
use crate::rng::Rng;
use crate::run::FRAMES_PER_GIB;
use crate::stats::Spread;

/// Single frames in use, over all CPUs.
const IN_USE: usize = 1 << 16;
/// Takes and frees that are timed.
const OPERATIONS: usize = 2_000_000;
/// The most frames that a CPU gives back in a turn, before it takes as many.
const BURST: usize = 256;

/// How the CPUs take turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// A CPU replaces one of its frames.
    Replace,
    /// A CPU gives back 1 to 256 of its frames, then takes as many.
    Burst,
    /// A CPU gives back 1 to 256 frames of any CPU, then takes as many.
    Remote,
}

impl Turn {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Replace, Self::Burst, Self::Remote];

    /// Its name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replace => "scale-replace",
            Self::Burst => "scale-burst",
            Self::Remote => "scale-remote",
        }
    }
}

/// One point.
#[derive(Clone, Copy, Debug)]
pub struct ScaleCase {
    /// How the CPUs take turns.
    pub turn: Turn,
    /// Frames managed.
    pub frames: usize,
    /// CPUs simulated.
    pub cpus: usize,
    /// Divides the number of operations.
    pub hurry: usize,
    /// The repetition: each draws other requests, the same for every allocator.
    pub rep: usize,
}

/// Its figures.
#[derive(Clone, Copy, Debug)]
pub struct ScaleSample {
    /// Nanoseconds for a take or a free.
    pub ns: f64,
    /// Locks taken for a take or a free, where that is counted.
    pub locks: Option<f64>,
}

/// Runs one repetition of `case` on a fresh `P`.
pub fn run<P: Frames>(case: &ScaleCase) -> ScaleSample {
    let allocator = P::new(case.frames, case.cpus);
    let mut cpus: Vec<P::Cpu<'_>> = (0..case.cpus).map(|i| allocator.cpu(i)).collect();
    let mut rng = Rng::new(case.rep as u64);
    scatter(&mut cpus[0], &mut rng, case.frames / HUGE);
    let mut sets = vec![Vec::with_capacity(IN_USE); if case.turn == Turn::Remote { 1 } else { case.cpus }];
    for i in 0..IN_USE {
        let cpu = &mut cpus[i % case.cpus];
        cpu.enter();
        let frame = cpu.alloc(0).expect("half of the memory is free");
        let owner = i % case.cpus % sets.len();
        sets[owner].push(Live::new(frame, 0));
    }
    let operations = OPERATIONS / case.hurry;
    turns(case.turn, &mut cpus, &mut sets, &mut rng, operations / 4);
    let locks_before = allocator.locks_taken();
    let start = cpu_ns();
    let done = turns(case.turn, &mut cpus, &mut sets, &mut rng, operations);
    let ns = (cpu_ns() - start) as f64 / done as f64;
    let locks = allocator.locks_taken().zip(locks_before);
    drop(cpus);
    allocator.verify();
    ScaleSample { ns, locks: locks.map(|(after, before)| (after - before) as f64 / done as f64) }
}

/// Lends a random half of all 2 MiB frames, so that what is free lies all over the memory.
fn scatter(cpu: &mut impl Cpu, rng: &mut Rng, huge: usize) {
    cpu.enter();
    let mut live: Vec<_> = (0..huge).map_while(|_| cpu.alloc(HUGE_ORDER)).collect();
    rng.shuffle(&mut live);
    for frame in live.drain(huge / 2..) {
        cpu.free(frame, HUGE_ORDER);
    }
}

/// Lets the CPUs take turns until `operations` are done; how many were.
#[inline(never)]
fn turns<C: Cpu>(turn: Turn, cpus: &mut [C], sets: &mut [Vec<Live>], rng: &mut Rng, operations: usize) -> usize {
    let (mut done, mut at) = (0, 0);
    while done < operations {
        let set_at = at % sets.len();
        let (cpu, set) = (&mut cpus[at], &mut sets[set_at]);
        let count = if turn == Turn::Replace { 1 } else { 1 + rng.below(BURST.min(set.len())) };
        cpu.enter();
        for _ in 0..count {
            let block = set.swap_remove(rng.below(set.len()));
            cpu.free(block.frame(), 0);
        }
        for _ in 0..count {
            let frame = cpu.alloc(0).expect("as many were given back");
            set.push(Live::new(frame, 0));
        }
        done += 2 * count;
        at = (at + 1) % cpus.len();
    }
    done
}

/// Runs all points, prints each when it is done, and returns the record.
pub fn measure(args: &Args) -> Record {
    let mut record = Record::new(csv::PROGRAM);
    println!("{:14} {:>5} {:>5}  {:32} {:>22} {:>12}", "", "GiB", "CPUs", "", "ns/op", "locks/op");
    for turn in Turn::ALL {
        for &gib in &args.gib {
            for &cpus in &args.threads {
                let case = ScaleCase { turn, frames: gib * FRAMES_PER_GIB, cpus, hurry: args.hurry, rep: 0 };
                let fits = |p: &&Peer| p.max_frames >= case.frames && p.simulates_cpus && !p.is_loop();
                let peers: Vec<&Peer> = args.peers.iter().filter(fits).collect();
                record.rows.extend(point(&peers, &case, args.reps));
            }
        }
    }
    record
}

/// All repetitions of one point.
fn point(peers: &[&Peer], case: &ScaleCase, reps: usize) -> Vec<Row> {
    let mut samples: Vec<Vec<ScaleSample>> = vec![Vec::new(); peers.len()];
    for rep in 0..reps {
        for turn in 0..peers.len() {
            let i = (rep + turn) % peers.len();
            samples[i].push((peers[i].scale)(&ScaleCase { rep, ..*case }));
        }
    }
    let mut rows = Vec::new();
    for (peer, samples) in peers.iter().zip(&samples) {
        let ns: Vec<f64> = samples.iter().map(|s| s.ns).collect();
        let locks: Vec<f64> = samples.iter().filter_map(|s| s.locks).collect();
        let (ns, locks) = (Spread::of(&ns), Spread::of(&locks));
        let gib = case.frames / FRAMES_PER_GIB;
        let who = format!("{} {} {}", peer.allocator, peer.style, peer.level);
        let shown = |s: Option<Spread>, digits| s.map_or("–".into(), |s| format!("{:.*}", digits, s.median));
        print!("{:14} {gib:5} {:5}  {who:32}", case.turn.name(), case.cpus);
        println!(" {:>22} {:>12}", shown(ns, 1), shown(locks, 4));
        for (metric, unit, spread) in [("op", "ns", ns), ("locks", "per op", locks)] {
            rows.extend(spread.map(|spread| Row {
                allocator: peer.allocator.into(),
                level: peer.level.into(),
                style: peer.style.into(),
                threads: case.cpus,
                gib,
                workload: case.turn.name().into(),
                metric: metric.into(),
                unit: unit.into(),
                spread,
            }));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers;

    #[test]
    fn every_peer_passes_every_turn() {
        for peer in peers::all().iter().filter(|p| p.simulates_cpus && !p.is_loop()) {
            for turn in Turn::ALL {
                for cpus in [1, 16] {
                    let case = ScaleCase { turn, frames: FRAMES_PER_GIB, cpus, hurry: 50, rep: 0 };
                    assert!((peer.scale)(&case).ns > 0.0);
                }
            }
        }
    }
}
