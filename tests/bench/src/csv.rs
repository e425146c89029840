//! The record of the frame benchmarks.

use bench_record::csv::{self, Columns};

use crate::stats::Spread;

/// How they are called.
pub const PROGRAM: &str = "cargo run --release --bin frames --";

/// All figures of a run.
pub type Record = csv::Record<Row>;

/// One figure.
#[derive(Clone, Debug)]
pub struct Row {
    /// The crate.
    pub allocator: String,
    /// Its level of checks, or nothing.
    pub level: String,
    /// Its way of being embedded, or nothing.
    pub style: String,
    /// Threads, or simulated CPUs.
    pub threads: usize,
    /// GiB managed.
    pub gib: usize,
    /// What was done.
    pub workload: String,
    /// What was measured.
    pub metric: String,
    /// In which unit; `ratio` or `difference` for pagemill beside a peer.
    pub unit: String,
    /// The figure.
    pub spread: Spread,
}

impl Columns for Row {
    const NAMES: &'static str = "allocator,level,style,threads,gib,workload,metric,unit";

    fn words(&self) -> Vec<String> {
        let Self { allocator, level, style, workload, metric, unit, .. } = self;
        let word = |word: &String| word.clone();
        let (threads, gib) = (self.threads.to_string(), self.gib.to_string());
        vec![word(allocator), word(level), word(style), threads, gib, word(workload), word(metric), word(unit)]
    }

    fn spread(&self) -> Spread {
        self.spread
    }

    fn of_words(words: &[String], spread: Spread) -> Option<Self> {
        let [allocator, level, style, threads, gib, workload, metric, unit] = words else { return None };
        Some(Self {
            allocator: allocator.clone(),
            level: level.clone(),
            style: style.clone(),
            threads: threads.parse().ok()?,
            gib: gib.parse().ok()?,
            workload: workload.clone(),
            metric: metric.clone(),
            unit: unit.clone(),
            spread,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_survives_its_words() {
        let spread = Spread { median: 1.5, min: 1.0, max: 2.0, q1: 1.25, q3: 1.75, reps: 9 };
        let row = Row {
            allocator: "a".into(),
            level: "fast".into(),
            style: String::new(),
            threads: 2,
            gib: 4,
            workload: "bulk".into(),
            metric: "alloc / b".into(),
            unit: "ratio".into(),
            spread,
        };
        let words = row.words();
        assert_eq!(words.len(), Row::NAMES.split(',').count());
        let back = Row::of_words(&words, spread).unwrap();
        assert_eq!(back.words(), words);
        assert_eq!((&*back.metric, back.gib, back.spread), ("alloc / b", 4, spread));
    }
}
