//! The figures as one HTML page of plots.

use std::fmt::Write as _;

use heap_workloads::list;
use heap_workloads::load::{Set, Workload};
use heap_workloads::meter::{CPU, PEAK};

use crate::allocators::ALL;
use crate::plot::{Bar, bars};
use crate::row::{self, Record, Row};
use crate::table::{figure, is};
use crate::workers::Build;

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Heap benchmarks</title>\n<style>\n\
                    body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 88em; padding: 0 1em; color: #222 }\n\
                    section { display: flex; flex-wrap: wrap; gap: 1em }\n\
                    svg { border: 1px solid #ddd; background: #fff }\n\
                    </style>\n<h1>Heap benchmarks</h1>\n";

/// The page.
pub(crate) fn html(record: &Record) -> String {
    let mut page = String::from(HEAD);
    let escaped = |word: &str| word.replace('&', "&amp;").replace('<', "&lt;");
    let [commit, command, machine] = [&record.commit, &record.command, &record.machine].map(|word| escaped(word));
    let reps = row::rounds(record);
    let _ = writeln!(
        page,
        "<p><code>{command}</code>, commit {commit}, {machine}, {}. Bars are medians of up to {reps} rounds, lines the \
         middle half of the samples; shorter is better. A bar six times as long as the shortest is cut.</p>",
        record.date
    );
    page += &means(record);
    for set in Set::ALL {
        for build in Build::ALL {
            page += &plots(record, set, build);
        }
    }
    page + "</html>\n"
}

fn means(record: &Record) -> String {
    let mut page = String::from("<h2>Geometric means, divided by the best peer of each workload</h2>\n<section>\n");
    for build in Build::ALL {
        for set in Set::ALL {
            for metric in [CPU, PEAK] {
                let name = format!("{metric} / best peer");
                let mean = |r: &&Row| r.threads == 0 && r.metric == name && r.set == set.name();
                let rows = record.rows.iter().filter(|r| r.build == build.name()).filter(mean);
                page += &plot(&format!("{} {metric}, {}", set.name(), build.name()), rows);
            }
        }
    }
    page + "</section>\n"
}

fn plots(record: &Record, set: Set, build: Build) -> String {
    let rows = || record.rows.iter().filter(|r| r.build == build.name() && r.set == set.name() && r.threads > 0);
    let metrics = metrics(set);
    let mut page = String::new();
    for workload in list::ALL.iter().filter(|w| w.set == set) {
        for &threads in workload.threads {
            for metric in &metrics {
                let of_case = |r: &&Row| r.workload == workload.name && r.threads == threads && r.metric == *metric;
                page += &plot(&title(workload, threads, metric), rows().filter(of_case));
            }
        }
    }
    if page.is_empty() {
        return page;
    }
    format!("<h2>{}, {}</h2>\n<section>\n{page}</section>\n", set.name(), build.name())
}

/// What of a set is drawn: time where it is what the set is for, and memory.
fn metrics(set: Set) -> Vec<&'static str> {
    match set {
        Set::Micro => vec![CPU],
        Set::Pages => vec![CPU, PEAK],
        Set::Memory => vec![
            PEAK,
            "rss-live",
            "rss-idle",
            "rss-joined",
            "rss-valley",
            "rss-anonymous",
            "faults-per-million",
            "hangs",
        ],
    }
}

fn title(workload: &Workload, threads: usize, metric: &str) -> String {
    let unit = match metric {
        CPU => format!("CPU ns a {}", workload.unit),
        PEAK => "peak MiB".into(),
        "faults-per-million" | "hangs" => metric.into(),
        _ => format!("{metric} MiB"),
    };
    let plural = if threads == 1 { "" } else { "s" };
    format!("{}, {threads} thread{plural}: {unit}", workload.name)
}

/// Nothing where there is no figure.
fn plot<'a>(title: &str, rows: impl Iterator<Item = &'a Row>) -> String {
    let rows: Vec<&Row> = rows.collect();
    let bar = |allocator| {
        let row = rows.iter().find(|r| is(r, allocator))?;
        let (spread, is_ours) = (row.spread, allocator.is_pagemill());
        // The spread of a mean is that of the workloads, which is not its error.
        let (low, high) = if row.threads == 0 { (spread.median, spread.median) } else { (spread.q1, spread.q3) };
        Some(Bar { title: allocator.short, value: spread.median, low, high, text: figure(row), is_ours })
    };
    let all: Vec<Bar<'_>> = ALL.iter().filter_map(bar).collect();
    if all.is_empty() { String::new() } else { bars(title, &all) + "\n" }
}
