//! The figures for people, as text.

use std::fmt::Write as _;

use bench_record::stats::Spread;
use heap_workloads::list;
use heap_workloads::load::Set;
use heap_workloads::meter::{CPU, FAULTS, KERNEL, PEAK, WALL};

use crate::allocators::{ALL, Allocator, PAGEMILL};
use crate::row::{Record, Row};
use crate::workers::Build;

/// What has a mean over the workloads of a set. Those of memory are not made for their time.
fn has_mean(set: Set, metric: &str) -> bool {
    metric == PEAK || (metric == CPU && set != Set::Memory)
}

/// Titles of the columns.
pub(crate) fn head(allocators: &[&Allocator]) -> String {
    let mut text = format!("{:34}", "");
    for allocator in allocators {
        let _ = write!(text, "{:>9}", allocator.short);
    }
    text + "\n"
}

/// One line for each build: a metric of a workload, the best peer with a star.
pub(crate) fn lines(rows: &[Row], allocators: &[&Allocator], metric: &str) -> String {
    let mut text = String::new();
    for build in Build::ALL {
        let rows: Vec<&Row> = rows.iter().filter(|r| r.build == build.name() && r.metric == metric).collect();
        let Some(first) = rows.first() else { continue };
        let title = format!("{} {}", first.workload, if metric == CPU { "" } else { metric });
        let _ = write!(text, "{title:23}{:2}  {:7}", first.threads, build.name());
        let best = best(&rows);
        for allocator in allocators {
            let row = rows.iter().find(|r| is(r, allocator));
            let cell = row.map_or("–".into(), |row| {
                let star = if best.is_some_and(|best| std::ptr::eq(best, *row)) { "*" } else { "" };
                star.to_string() + &figure(row)
            });
            let _ = write!(text, "{cell:>9}");
        }
        text.push('\n');
    }
    text
}

/// Is the row this allocator's?
pub(crate) fn is(row: &Row, allocator: &Allocator) -> bool {
    row.allocator == allocator.name && row.level == allocator.level
}

/// The best of the others.
pub(crate) fn best<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    let peers = rows.iter().copied().filter(|r| r.allocator != PAGEMILL);
    peers.min_by(|a, b| a.spread.median.total_cmp(&b.spread.median))
}

/// The figure with as many digits as mean something; memory in MiB.
pub(crate) fn figure(row: &Row) -> String {
    let (value, digits) = match row.unit.as_str() {
        "KiB" => (row.spread.median / 1024.0, 1),
        "ns" if row.spread.median < 10.0 => (row.spread.median, 2),
        "ns" if row.spread.median < 100.0 => (row.spread.median, 1),
        "ratio" => (row.spread.median, 2),
        _ => (row.spread.median, 0),
    };
    format!("{value:.digits$}")
}

/// All tables of a record: times, memory, what else was told, and means.
pub(crate) fn all(record: &Record) -> String {
    tables(record, |_| true)
}

/// Memory, and what only some workloads tell: times were shown when they were measured.
pub(crate) fn memory(record: &Record) -> String {
    tables(record, |metric| ![CPU, WALL, KERNEL, FAULTS].contains(&metric))
}

fn tables(record: &Record, wanted: impl Fn(&str) -> bool) -> String {
    let taking_part = |a: &&Allocator| record.rows.iter().any(|r| is(r, a));
    let allocators: Vec<&Allocator> = ALL.iter().filter(taking_part).collect();
    let mut metrics: Vec<&str> = Vec::new();
    for row in record.rows.iter().filter(|r| r.threads > 0 && r.unit != "ratio") {
        if wanted(&row.metric) && !metrics.contains(&row.metric.as_str()) {
            metrics.push(&row.metric);
        }
    }
    let mut text = String::new();
    for metric in metrics {
        let unit = record.rows.iter().find(|r| r.metric == metric).map_or("", |r| &r.unit);
        let unit = if unit == "KiB" { "MiB" } else { unit };
        let _ = write!(text, "\n{metric}, {unit}\n{}", head(&allocators));
        text += &each_case(record, |rows| lines(rows, &allocators, metric));
    }
    text + &means_table(record, &allocators)
}

fn each_case(record: &Record, show: impl Fn(&[Row]) -> String) -> String {
    let mut text = String::new();
    for workload in list::ALL {
        for &threads in workload.threads {
            let of_case = |r: &&Row| r.workload == workload.name && r.threads == threads;
            text += &show(&record.rows.iter().filter(of_case).cloned().collect::<Vec<_>>());
        }
    }
    text
}

/// The means of [`means`], as a table.
pub(crate) fn means_table(record: &Record, allocators: &[&Allocator]) -> String {
    let mut text = format!("\ngeometric means\n{}", head(allocators));
    for row in record.rows.iter().filter(|r| r.threads == 0) {
        let first = record.rows.iter().find(|r| same_mean(r, row)).expect("at least this one");
        if !std::ptr::eq(first, row) {
            continue;
        }
        let _ = write!(text, "{:27}{:7}", format!("{} {}", row.set, row.metric), row.build);
        for allocator in allocators {
            let found = record.rows.iter().find(|r| same_mean(r, row) && is(r, allocator));
            let _ = write!(text, "{:>9}", found.map_or("–".into(), figure));
        }
        text.push('\n');
    }
    text
}

fn same_mean(a: &Row, b: &Row) -> bool {
    a.threads == 0 && a.set == b.set && a.metric == b.metric && a.build == b.build
}

/// For each set, build and allocator the geometric mean over the set's cases of its median divided by the best peer's,
/// and by the system's. Who has no figure for a case of the others has no mean.
pub(crate) fn means(rows: &[Row]) -> Vec<Row> {
    let mut means = Vec::new();
    for set in Set::ALL {
        for build in Build::ALL {
            for metric in [CPU, PEAK].into_iter().filter(|metric| has_mean(set, metric)) {
                let figures = |r: &&Row| r.set == set.name() && r.build == build.name() && r.metric == metric;
                let figures: Vec<&Row> = rows.iter().filter(figures).collect();
                means.extend(means_of(&figures));
            }
        }
    }
    means
}

fn means_of(figures: &[&Row]) -> Vec<Row> {
    let mut cases: Vec<(&str, usize)> = figures.iter().map(|r| (r.workload.as_str(), r.threads)).collect();
    cases.sort_unstable();
    cases.dedup();
    let of_case = |case: &(&str, usize)| -> Vec<&Row> {
        figures.iter().copied().filter(|r| (r.workload.as_str(), r.threads) == *case).collect()
    };
    let mut rows = Vec::new();
    for allocator in ALL {
        let Some(own) = figures.iter().find(|r| is(r, allocator)) else { continue };
        for (name, other) in [("best peer", None), ("system", Some("system"))] {
            let ratio = |case: &(&str, usize)| {
                let rows = of_case(case);
                let ours = rows.iter().find(|r| is(r, allocator))?;
                let theirs = match other {
                    None => best(&rows)?,
                    Some(key) => rows.iter().find(|r| r.allocator == key)?,
                };
                Some(ours.spread.median / theirs.spread.median)
            };
            let ratios: Option<Vec<f64>> = cases.iter().map(ratio).collect();
            let Some(spread) = ratios.as_deref().and_then(Spread::of) else { continue };
            let logs: f64 = ratios.iter().flatten().map(|ratio| ratio.ln()).sum();
            let mean = (logs / spread.reps as f64).exp();
            rows.push(Row {
                workload: "geometric mean".into(),
                threads: 0,
                metric: format!("{} / {name}", own.metric),
                unit: "ratio".into(),
                spread: Spread { median: mean, ..spread },
                ..(*own).clone()
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(allocator: &str, workload: &str, median: f64) -> Row {
        let spread = Spread::of(&[median]).unwrap();
        let word = String::from;
        Row {
            allocator: word(allocator),
            level: String::new(),
            build: word("no-lto"),
            set: word("micro"),
            workload: word(workload),
            threads: 1,
            metric: word(CPU),
            unit: word("ns"),
            spread,
        }
    }

    #[test]
    fn means_are_geometric() {
        let rows = [
            row("system", "larson", 8.0),
            row("mimalloc", "larson", 4.0),
            row("system", "xmalloc", 2.0),
            row("mimalloc", "xmalloc", 2.0),
        ];
        let means = means(&rows);
        let mean = |name: &str, metric: &str| {
            means.iter().find(|r| r.allocator == name && r.metric == metric).unwrap().spread.median
        };
        assert!((mean("system", "cpu / best peer") - 2f64.sqrt()).abs() < 1e-9);
        assert!((mean("mimalloc", "cpu / system") - 0.5f64.sqrt()).abs() < 1e-9);
        assert_eq!(mean("mimalloc", "cpu / best peer"), 1.0);
    }

    #[test]
    fn the_best_has_a_star() {
        let rows = [row("system", "larson", 8.0), row("mimalloc", "larson", 4.0)];
        let text = lines(&rows, &ALL.iter().collect::<Vec<_>>(), CPU);
        assert!(text.contains(" *4.00") && text.contains(" 8.00"), "{text}");
    }
}
