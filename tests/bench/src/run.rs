//! Measuring: every allocator once in each repetition, so that a change in the machine's load meets all of them.

use std::collections::HashSet;

use crate::args::Args;
use crate::csv::{self, Record, Row};
use crate::os::process_ns;
use crate::peers::Peer;
use crate::stats::Spread;
use crate::workload::{Case, Sample, Workload};

/// Frames in a GiB.
pub const FRAMES_PER_GIB: usize = 1 << 18;

/// Who needs this many seconds of CPU time for the first repetition of a case is not asked for another.
const PATIENCE: f64 = 5.0;

/// Units of the paired figures.
const RATIO: &str = "ratio";
const DIFFERENCE: &str = "difference";

/// The samples of one metric, one per repetition.
struct Series {
    metric: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

/// Runs all cases, prints each when it is done, and returns the record.
pub fn measure(args: &Args) -> Record {
    let mut record = Record::new(csv::PROGRAM);
    for case in cases(args) {
        let peers: Vec<&Peer> = args.peers.iter().filter(|p| p.max_frames >= case.frames).collect();
        let (series, slow) = repeat(&peers, &case, args.reps);
        let mut rows = Vec::new();
        for (peer, series) in peers.iter().zip(&series) {
            rows.extend(series.iter().filter_map(|s| row(peer, &case, s)));
        }
        rows.extend(pairings(&peers, &series, &case));
        print!("{}", table(&case, &rows));
        for (peer, seconds) in peers.iter().zip(&slow) {
            if let Some(seconds) = seconds {
                println!("  {}: one repetition, not {}: it took {seconds:.0} s", peer.key, args.reps);
            }
        }
        record.rows.extend(rows);
    }
    record
}

/// Runs all cases once with the shadow bitmap; a frame lent twice panics.
pub fn check(args: &Args) {
    for case in cases(args) {
        for peer in args.peers.iter().filter(|p| !p.is_loop() && p.max_frames >= case.frames) {
            (peer.check)(&case);
            println!("{}: {}: no frame was lent twice", title(&case), peer.key);
        }
    }
}

fn cases(args: &Args) -> Vec<Case> {
    let mut cases = Vec::new();
    for &gib in &args.gib {
        for &threads in &args.threads {
            for workload in args.workloads.iter().copied().filter(|&w| gib == 1 || !args.brief || grows(w)) {
                cases.push(Case { workload, frames: gib * FRAMES_PER_GIB, threads, hurry: args.hurry, rep: 0 });
            }
        }
    }
    cases
}

/// Does the workload do other things in a larger memory? A pair of calls does not, unless the memory is in pieces.
fn grows(workload: Workload) -> bool {
    matches!(workload, Workload::Bulk | Workload::Replace(_) | Workload::Mixed(_))
}

/// For each peer, its series over `reps` repetitions, and the seconds that one took if it was too slow for more.
fn repeat(peers: &[&Peer], case: &Case, reps: usize) -> (Vec<Vec<Series>>, Vec<Option<f64>>) {
    let mut all: Vec<Vec<Series>> = peers.iter().map(|_| Vec::new()).collect();
    let mut slow = vec![None; peers.len()];
    for rep in 0..reps {
        // Another one begins each time: nobody always runs on caches that the same neighbour left.
        for turn in 0..peers.len() {
            let i = (rep + turn) % peers.len();
            if slow[i].is_some() {
                continue;
            }
            let start = process_ns();
            for sample in (peers[i].run)(&Case { rep, ..*case }) {
                add(&mut all[i], sample, rep);
            }
            let seconds = (process_ns() - start) as f64 / 1e9;
            if rep == 0 && seconds > PATIENCE {
                slow[i] = Some(seconds);
            }
        }
    }
    for (series, slow) in all.iter_mut().zip(&slow) {
        let reps = if slow.is_some() { 1 } else { reps };
        series.iter_mut().for_each(|s| s.values.resize(reps, 0.0));
    }
    (all, slow)
}

fn add(series: &mut Vec<Series>, sample: Sample, rep: usize) {
    let Sample { metric, unit, value } = sample;
    if let Some(known) = series.iter_mut().find(|s| s.metric == metric) {
        known.values.resize(rep, 0.0);
        known.values.push(value);
    } else {
        // Refused requests are told only where there were some: in the other repetitions there were none.
        let mut values = vec![0.0; rep];
        values.push(value);
        series.push(Series { metric, unit, values });
    }
}

fn row(peer: &Peer, case: &Case, series: &Series) -> Option<Row> {
    // The loop lends the same frame for ever: only its time means something.
    if peer.is_loop() && series.unit != "ns" {
        return None;
    }
    Some(Row {
        allocator: peer.allocator.into(),
        level: peer.level.into(),
        style: peer.style.into(),
        threads: case.threads,
        gib: case.frames / FRAMES_PER_GIB,
        workload: case.workload.to_string(),
        metric: series.metric.into(),
        unit: series.unit.into(),
        spread: Spread::of(&series.values)?,
    })
}

/// For each metric, every configuration of pagemill beside every peer, repetition by repetition: times divided,
/// 2 MiB frames subtracted.
fn pairings(peers: &[&Peer], series: &[Vec<Series>], case: &Case) -> Vec<Row> {
    let mut rows = Vec::new();
    let sides = || peers.iter().zip(series);
    for (our, our_series) in sides().filter(|(p, _)| p.is_pagemill()) {
        for (their, their_series) in sides().filter(|(p, _)| !p.is_pagemill() && !p.is_loop()) {
            for ours in our_series {
                let theirs = their_series.iter().find(|s| s.metric == ours.metric);
                rows.extend(theirs.and_then(|theirs| pairing(our, ours, their, theirs, case)));
            }
        }
    }
    rows
}

fn pairing(our: &Peer, ours: &Series, their: &Peer, theirs: &Series, case: &Case) -> Option<Row> {
    // Somebody who was too slow for all repetitions.
    if ours.values.len() != theirs.values.len() {
        return None;
    }
    let (sign, unit, spread) = match ours.unit {
        "ns" => ('/', RATIO, Spread::of_ratios(&ours.values, &theirs.values)?),
        "2 MiB frames" => ('-', DIFFERENCE, Spread::of_differences(&ours.values, &theirs.values)?),
        _ => return None,
    };
    let metric = format!("{} {sign} {}", ours.metric, their.allocator);
    Some(Row { metric, unit: unit.into(), spread, ..row(our, case, ours)? })
}

fn title(case: &Case) -> String {
    let threads = if case.threads == 1 { "1 thread".into() } else { format!("{} threads", case.threads) };
    format!("{}, {} GiB, {threads}", case.workload, case.frames / FRAMES_PER_GIB)
}

/// The figures of a case for people.
fn table(case: &Case, rows: &[Row]) -> String {
    let mut text = format!("\n{}\n", title(case));
    let mut seen = HashSet::new();
    for row in rows {
        let who = [row.allocator.as_str(), &row.style, &row.level].join(" ");
        let paired = row.unit == RATIO || row.unit == DIFFERENCE;
        let who = if seen.insert(who.clone()) || paired { who } else { String::new() };
        let Spread { median, min, max, q1, q3, .. } = row.spread;
        let spread = if paired {
            format!("{median:9.2}  quartiles {q1:.2} .. {q3:.2}")
        } else if min == max {
            format!("{median:9.1}")
        } else {
            format!("{median:9.1}  ({min:.1} .. {max:.1})")
        };
        text += &format!("  {:30} {:36} {:12} {spread}\n", who.trim_end(), row.metric, row.unit);
    }
    text
}
