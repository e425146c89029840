//! The record of the heap benchmarks.

use bench_record::csv::{self, Columns};
use bench_record::stats::Spread;

/// How they are called.
pub(crate) const PROGRAM: &str = "cargo bench-heap";

/// All figures of a run.
pub(crate) type Record = csv::Record<Row>;

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The crate.
    pub allocator: String,
    /// Its level of checks, or how it differs from others of its name.
    pub level: String,
    /// How the program was compiled.
    pub build: String,
    /// The set of the workload.
    pub set: String,
    /// What was done.
    pub workload: String,
    /// On so many threads; 0 for a mean over workloads.
    pub threads: usize,
    /// What was measured.
    pub metric: String,
    /// In which unit; `ratio` beside another.
    pub unit: String,
    /// The figure.
    pub spread: Spread,
}

/// In how many rounds a record was measured.
pub(crate) fn rounds(record: &Record) -> usize {
    // The samples of a mean are workloads.
    record.rows.iter().filter(|row| row.threads > 0).map(|row| row.spread.reps).max().unwrap_or(0)
}

impl Columns for Row {
    const NAMES: &'static str = "allocator,level,build,set,workload,threads,metric,unit";

    fn words(&self) -> Vec<String> {
        let Self { allocator, level, build, set, workload, metric, unit, .. } = self;
        let mut words = [allocator, level, build, set, workload, metric, unit].map(String::clone).to_vec();
        words.insert(5, self.threads.to_string());
        words
    }

    fn spread(&self) -> Spread {
        self.spread
    }

    fn of_words(words: &[String], spread: Spread) -> Option<Self> {
        let [allocator, level, build, set, workload, threads, metric, unit] = words else { return None };
        Some(Self {
            allocator: allocator.clone(),
            level: level.clone(),
            build: build.clone(),
            set: set.clone(),
            workload: workload.clone(),
            threads: threads.parse().ok()?,
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
        let word = String::from;
        let row = Row {
            allocator: word("a"),
            level: word("fast"),
            build: word("no-lto"),
            set: word("micro"),
            workload: word("pair-16"),
            threads: 4,
            metric: word("cpu / best peer"),
            unit: word("ratio"),
            spread,
        };
        let words = row.words();
        assert_eq!(words.len(), Row::NAMES.split(',').count());
        let back = Row::of_words(&words, spread).unwrap();
        assert_eq!((back.words(), back.spread), (words, spread));
    }
}
