//! Tables for the README.

use crate::allocators::Allocator;
use crate::row::{Record, Row};

/// A column for each heap, a line for each workload; `cell` renders what a heap has of a workload.
pub(crate) fn markdown(
    record: &Record,
    allocators: &[Allocator],
    head: &str,
    cell: impl Fn(&[&Row]) -> String,
) -> String {
    let titles: String = allocators.iter().map(|allocator| format!(" {} |", allocator.title())).collect();
    let mut text = format!("| {head} |{titles}\n|---|{}\n", "---|".repeat(allocators.len()));
    let mut workloads: Vec<&str> = Vec::new();
    for row in &record.rows {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    for workload in workloads {
        text += &format!("| {workload} |");
        for Allocator { name, level, .. } in allocators {
            let of = |row: &&Row| row.workload == workload && row.allocator == *name && row.level == *level;
            text += &format!(" {} |", cell(&record.rows.iter().filter(of).collect::<Vec<_>>()));
        }
        text += "\n";
    }
    let reps = record.rows.iter().filter(|row| row.workload != crate::turns::MEAN).map(|row| row.spread.reps).max();
    let Record { machine, date, commit, .. } = record;
    text + &format!("Medians of {} interleaved rounds; {machine}, {date}, commit {commit}.\n", reps.unwrap_or(0))
}

/// The figure of a metric, with so many digits; a dash if there is none.
pub(crate) fn figure(rows: &[&Row], metric: &str, scale: f64, digits: usize) -> String {
    let row = rows.iter().find(|row| row.metric == metric);
    row.map_or("–".into(), |row| format!("{:.digits$}", row.spread.median / scale))
}
