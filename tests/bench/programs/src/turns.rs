//! Measuring: every heap once in each round, in a random order, so that a change in the machine's load meets all of
//! them.

use bench_record::stats::Spread;

use crate::allocators::{Allocator, GLIBC};
use crate::row::Row;

/// The unit of one figure divided by another of the same round.
pub(crate) const RATIO: &str = "ratio";
/// The workload of a mean over workloads.
pub(crate) const MEAN: &str = "geometric mean";
/// What is divided by the best of the others.
pub(crate) const BEST: &str = "best peer";

/// One figure of one run.
pub(crate) struct Sample {
    pub metric: &'static str,
    pub unit: &'static str,
    pub value: f64,
}

/// The samples of a metric, one a round.
struct Series<'a> {
    allocator: &'a Allocator,
    metric: &'static str,
    unit: &'static str,
    values: Vec<f64>,
}

/// Measures what `once` does on each heap, in `reps` rounds.
pub(crate) fn measure(
    allocators: &[Allocator],
    workload: &str,
    reps: usize,
    once: impl Fn(&Allocator) -> Result<Vec<Sample>, String>,
) -> Result<Vec<Row>, String> {
    let mut order: Vec<&Allocator> = allocators.iter().collect();
    let mut series: Vec<Series<'_>> = Vec::new();
    let mut state = u64::from(std::process::id());
    for _ in 0..reps {
        shuffle(&mut order, &mut state);
        for &allocator in &order {
            let samples = once(allocator).map_err(|why| format!("{workload} on {}: {why}", allocator.title()))?;
            for Sample { metric, unit, value } in samples {
                match series.iter_mut().find(|s| std::ptr::eq(s.allocator, allocator) && s.metric == metric) {
                    Some(known) => known.values.push(value),
                    None => series.push(Series { allocator, metric, unit, values: vec![value] }),
                }
            }
        }
    }
    // As they were named, not as they came.
    series.sort_by_key(|s| allocators.iter().position(|a| std::ptr::eq(a, s.allocator)));
    Ok(rows(&series, workload))
}

fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for last in (1..items.len()).rev() {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (*state >> 33) as usize % (last + 1));
    }
}

/// The figures, and each divided round by round by that of the best peer and by glibc's.
fn rows(all: &[Series<'_>], workload: &str) -> Vec<Row> {
    let mut rows: Vec<Row> =
        all.iter().filter_map(|s| row(s, workload, s.metric.into(), s.unit, Spread::of(&s.values))).collect();
    for ours in all {
        let peers = || all.iter().filter(|s| !s.allocator.is_pagemill() && s.metric == ours.metric);
        let median = |s: &Series<'_>| Spread::of(&s.values).map_or(f64::INFINITY, |spread| spread.median);
        let best = peers().min_by(|a, b| median(a).total_cmp(&median(b)));
        let glibc = peers().find(|s| s.allocator.name == GLIBC);
        for (theirs, name) in [(best, BEST), (glibc, GLIBC)] {
            let ratios = theirs.and_then(|theirs| Spread::of_ratios(&ours.values, &theirs.values));
            rows.extend(row(ours, workload, format!("{} / {name}", ours.metric), RATIO, ratios));
        }
    }
    rows
}

fn row(series: &Series<'_>, workload: &str, metric: String, unit: &str, spread: Option<Spread>) -> Option<Row> {
    let Allocator { name, level, .. } = series.allocator;
    let (allocator, level, workload) = ((*name).into(), (*level).into(), workload.into());
    Some(Row { allocator, level, workload, metric, unit: unit.into(), spread: spread? })
}

/// The geometric mean of each ratio over the workloads that have it; its quartiles are those of the workloads.
pub(crate) fn means(rows: &[Row]) -> Vec<Row> {
    let mut means: Vec<Row> = Vec::new();
    for row in rows.iter().filter(|row| row.unit == RATIO) {
        let same = |other: &&Row| is_same(row, other);
        if means.iter().any(|mean| is_same(row, mean)) {
            continue;
        }
        let medians: Vec<f64> = rows.iter().filter(same).map(|row| row.spread.median).collect();
        let log: f64 = medians.iter().map(|median| median.ln()).sum();
        let mean = (log / medians.len() as f64).exp();
        let spread = Spread::of(&medians).map(|spread| Spread { median: mean, ..spread });
        means.extend(spread.map(|spread| Row { workload: MEAN.into(), spread, ..row.clone() }));
    }
    means
}

fn is_same(one: &Row, other: &Row) -> bool {
    (&one.allocator, &one.level, &one.metric) == (&other.allocator, &other.level, &other.metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::path::Path;

    #[test]
    fn ratios_are_of_the_same_round_and_means_of_all_workloads() {
        let allocators = [Allocator::glibc(), Allocator::pagemill(Path::new("l"), "fast")];
        let turn = Cell::new(0);
        let once = |allocator: &Allocator| {
            // Each round takes twice as long as the one before; pagemill half of glibc's time.
            let round = turn.replace(turn.get() + 1) / 2;
            let value = f64::from(1 << round) * if allocator.is_pagemill() { 2.0 } else { 4.0 };
            Ok(vec![Sample { metric: "cpu", unit: "s", value }])
        };
        let mut all = measure(&allocators, "one", 3, once).unwrap();
        let ratio = |rows: &[Row], metric: &str| {
            let row = rows.iter().rfind(|row| row.allocator == "pagemill" && row.metric == metric).unwrap();
            (row.spread.median, row.spread.reps)
        };
        assert_eq!(
            (ratio(&all, "cpu"), ratio(&all, "cpu / glibc"), ratio(&all, "cpu / best peer")),
            ((4.0, 3), (0.5, 3), (0.5, 3))
        );
        all.extend(
            measure(&allocators, "other", 1, |allocator| {
                let value = if allocator.is_pagemill() { 8.0 } else { 4.0 };
                Ok(vec![Sample { metric: "cpu", unit: "s", value }])
            })
            .unwrap(),
        );
        let (mean, of) = ratio(&means(&all), "cpu / glibc");
        assert!((mean - 1.0).abs() < 1e-9 && of == 2);
        assert!(measure(&allocators, "bad", 1, |_| Err("no".into())).unwrap_err().contains("bad on "));
    }
}
