//! The record of these benchmarks.

use bench_record::csv::{self, Columns};
use bench_record::stats::Spread;

/// All figures of a run.
pub(crate) type Record = csv::Record<Row>;

/// One figure.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The heap.
    pub allocator: String,
    /// pagemill's level of checking.
    pub level: String,
    /// What was done.
    pub workload: String,
    /// What was measured.
    pub metric: String,
    /// In which unit; `ratio` beside another.
    pub unit: String,
    /// The figure.
    pub spread: Spread,
}

impl Columns for Row {
    const NAMES: &'static str = "allocator,level,workload,metric,unit";

    fn words(&self) -> Vec<String> {
        let Self { allocator, level, workload, metric, unit, .. } = self;
        [allocator, level, workload, metric, unit].map(String::clone).to_vec()
    }

    fn spread(&self) -> Spread {
        self.spread
    }

    fn of_words(words: &[String], spread: Spread) -> Option<Self> {
        let [allocator, level, workload, metric, unit] = words else { return None };
        let word = |word: &String| word.clone();
        let (allocator, level, workload) = (word(allocator), word(level), word(workload));
        Some(Self { allocator, level, workload, metric: word(metric), unit: word(unit), spread })
    }
}
