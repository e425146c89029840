//! The table for the README, made from a record.

use heap_workloads::list;
use heap_workloads::load::{Set, Workload};
use heap_workloads::meter::{CPU, PEAK};

use crate::allocators::{ALL, Allocator};
use crate::row::{self, Record, Row};
use crate::table::{best, figure, is};
use crate::workers::Build;

/// A table for each build. The figures of several numbers of threads share a line.
pub(crate) fn tables(record: &Record) -> String {
    let mut text = String::new();
    for build in Build::ALL {
        let rows: Vec<&Row> = record.rows.iter().filter(|r| r.build == build.name()).collect();
        if !rows.is_empty() {
            text += &table(&rows, build);
        }
    }
    let reps = row::rounds(record);
    let Record { machine, date, commit, command, .. } = record;
    text + &format!("Medians of {reps} interleaved rounds of `{command}`; {machine}, {date}, commit {commit}.\n")
}

fn table(rows: &[&Row], build: Build) -> String {
    let ours: Vec<&Allocator> = ALL.iter().filter(|a| a.is_pagemill()).collect();
    let levels: String = ours.iter().map(|a| format!(" pagemill, `{}` |", a.level)).collect();
    let mut text = format!("| {} |{levels} best peer | system |\n", build.name());
    text += &format!("|---|{}---|---|\n", "---|".repeat(ours.len()));
    for workload in list::ALL {
        for metric in metrics(workload.set) {
            let of_line = |r: &&&Row| r.workload == workload.name && r.metric == *metric && r.threads > 0;
            let rows: Vec<&Row> = rows.iter().filter(of_line).copied().collect();
            if !rows.is_empty() {
                text += &line(workload, metric, &rows, &ours);
            }
        }
    }
    text + "\n"
}

fn line(workload: &Workload, metric: &str, rows: &[&Row], ours: &[&Allocator]) -> String {
    let threads = || workload.threads.iter().filter(|&&n| rows.iter().any(|r| r.threads == n));
    let cell = |show: &dyn Fn(&[&Row]) -> Option<String>| {
        let figures = threads().map(|&n| {
            let rows: Vec<&Row> = rows.iter().filter(|r| r.threads == n).copied().collect();
            show(&rows).unwrap_or("–".into())
        });
        figures.collect::<Vec<_>>().join(" / ")
    };
    let of = |allocator: &Allocator| cell(&|rows| rows.iter().find(|r| is(r, allocator)).map(|r| figure(r)));
    let names: Vec<String> = threads().map(usize::to_string).collect();
    let title = format!("{}, {} thread{}", workload.name, names.join(" / "), if names == ["1"] { "" } else { "s" });
    let unit = rows.first().map_or("", |r| if r.unit == "KiB" { "MiB" } else { r.unit.as_str() });
    let mut text = format!("| {title}: {metric}, {unit} |");
    ours.iter().for_each(|allocator| text += &format!(" {} |", of(allocator)));
    let peer = cell(&|rows| best(rows).map(|row| format!("{} {}", figure(row), short(row))));
    text + &format!(" {peer} | {} |\n", of(ALL.iter().find(|a| a.key == "system").expect("it is always there")))
}

fn short(row: &Row) -> &'static str {
    ALL.iter().find(|allocator| is(row, allocator)).map_or("", |allocator| allocator.short)
}

fn metrics(set: Set) -> &'static [&'static str] {
    match set {
        Set::Micro => &[CPU],
        Set::Pages => &[CPU, PEAK],
        Set::Memory => {
            &[PEAK, "rss-idle", "rss-valley", "rss-anonymous", "faults-per-million", "kernel-share", "hangs"]
        }
    }
}
