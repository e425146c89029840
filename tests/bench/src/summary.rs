//! The table for the README, made from a record.

use crate::csv::{Record, Row};
use crate::peers::{LOOP, PAGEMILL};

/// A figure that a table shows: workload, metric, GiB.
type Figure = (&'static str, &'static str, usize);

/// A line of the table.
struct Line {
    title: &'static str,
    /// LLFree on one and on two threads; it is not a published crate, so this is another day's measurement.
    llfree: [&'static str; 2],
    /// What the design wants of the kernel style and of the hosted on one thread, at `Fast`.
    goal: &'static str,
    figures: &'static [Figure],
    more_is_better: bool,
}

const LINES: [Line; 6] = [
    Line {
        title: "bulk alloc / free FIFO / free random",
        llfree: ["21 / 21 / 21", "22 / 21 / 21"],
        goal: "2 / 2 / 6, hosted 3 / 3 / 7",
        figures: &[("bulk", "alloc", 1), ("bulk", "free-fifo", 1), ("bulk", "free-random", 1)],
        more_is_better: false,
    },
    Line {
        title: "pair order 0 / 3 / 9, free memory in one piece",
        llfree: ["40 / 40 / 28", "41 / 40 / 28"],
        goal: "3 / 5 / 8, hosted 4 / 6 / 9",
        figures: &[("pair-0", "pair", 1), ("pair-3", "pair", 1), ("pair-9", "pair", 1)],
        more_is_better: false,
    },
    Line {
        title: "pair order 0 / 3 / 9, free memory scattered",
        llfree: ["–", "–"],
        goal: "–",
        figures: &[("scattered-pair-0", "pair", 1), ("scattered-pair-3", "pair", 1), ("scattered-pair-9", "pair", 1)],
        more_is_better: false,
    },
    Line {
        title: "order-0 replace, 90 % full, 1 GiB / 4 GiB",
        llfree: ["72 / 276", "84 / –"],
        goal: "3 / 6, hosted 4 / 8",
        figures: &[("replace-90", "pair", 1), ("replace-90", "pair", 4)],
        more_is_better: false,
    },
    Line {
        title: "mixed orders, 50 % / 90 % full",
        llfree: ["30 / 208", "32 / 293"],
        goal: "12 / 13, hosted 13 / 14",
        figures: &[("mixed-50", "op", 1), ("mixed-90", "op", 1)],
        more_is_better: false,
    },
    Line {
        title: "2 MiB frames left after mixed 50 / 90 %, after churn from full",
        llfree: ["0 / 0 / 216", "0 / 0 / –"],
        goal: "244 / 34 / 231",
        figures: &[("mixed-50", "huge-left", 1), ("mixed-90", "huge-left", 1), ("churn", "huge-left", 1)],
        more_is_better: true,
    },
];

/// The tables for one and two threads, as Markdown.
pub fn markdown(record: &Record) -> String {
    let mut text = String::new();
    for threads in [1, 2] {
        let rows: Vec<&Row> = record.rows.iter().filter(|r| r.threads == threads).collect();
        if !rows.is_empty() {
            text += &table(&rows, threads);
        }
    }
    let reps = record.rows.iter().map(|r| r.spread.reps).max().unwrap_or(0);
    text += &format!(
        "Medians of {reps} interleaved runs; {}, {}, commit {}.\n",
        record.machine, record.date, record.commit
    );
    text
}

fn table(rows: &[&Row], threads: usize) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    let goal = |text| if threads == 1 { format!(" {text} |") } else { String::new() };
    let mut text = format!(
        "| {threads} thread{plural} | LLFree, quoted | best peer | kernel style | paired | hosted |{}\n\
         |---|---|---|---|---|---|{}\n",
        goal("goal"),
        if threads == 1 { "---|" } else { "" }
    );
    for line in &LINES {
        text += &format!(
            "| {} | {} | {} | {} | {} | {} |{}\n",
            line.title,
            line.llfree[threads - 1],
            cell(line, |figure| best_peer(rows, line, figure).map(|(row, name)| value(row) + name)),
            ours(rows, line, "kernel"),
            cell(line, |figure| paired(rows, line, figure)),
            ours(rows, line, "hosted"),
            goal(line.goal),
        );
    }
    text + "\n"
}

/// The figures of a line, joined; a dash for one that was not measured.
fn cell(line: &Line, figure: impl Fn(&Figure) -> Option<String>) -> String {
    let figures: Vec<_> = line.figures.iter().map(|f| figure(f).unwrap_or("–".into())).collect();
    figures.join(" / ")
}

fn value(row: &Row) -> String {
    let digits = usize::from(row.unit == "ns" && row.spread.median < 100.0);
    format!("{:.digits$}", row.spread.median)
}

fn is(row: &Row, figure: &Figure) -> bool {
    row.workload == figure.0 && row.metric == figure.1 && row.gib == figure.2
}

/// The best of the others and its short name.
fn best_peer<'a>(rows: &[&'a Row], line: &Line, figure: &Figure) -> Option<(&'a Row, &'static str)> {
    let sign = if line.more_is_better { -1.0 } else { 1.0 };
    let reps = rows.iter().filter(|r| is(r, figure)).map(|r| r.spread.reps).max()?;
    let other = |r: &&&Row| is(r, figure) && r.allocator != PAGEMILL && r.allocator != LOOP && r.spread.reps == reps;
    let others = rows.iter().filter(other);
    let best = others.min_by(|a, b| (sign * a.spread.median).total_cmp(&(sign * b.spread.median)))?;
    let name = match best.allocator.as_str() {
        "buddy_system_allocator" => " system",
        "bitmap-allocator" => " bitmap",
        "buddy-slab-allocator" => " slab",
        _ => "",
    };
    Some((best, name))
}

/// pagemill in one style: `Fast`, and `Checked` in parentheses.
fn ours(rows: &[&Row], line: &Line, style: &str) -> String {
    let level = |level: &str| {
        cell(line, |figure| {
            let own = |r: &&&Row| is(r, figure) && r.allocator == PAGEMILL && r.style == style && r.level == level;
            rows.iter().find(own).map(|row| value(row))
        })
    };
    format!("{} ({})", level("fast"), level("checked"))
}

/// The kernel style at `Fast` beside the best peer: the paired ratio, or the difference where more is better.
fn paired(rows: &[&Row], line: &Line, figure: &Figure) -> Option<String> {
    let (best, _) = best_peer(rows, line, figure)?;
    let sign = if line.more_is_better { '-' } else { '/' };
    let metric = format!("{} {sign} {}", figure.1, best.allocator);
    let row = rows.iter().find(|r| {
        let same = r.workload == figure.0 && r.metric == metric && r.gib == figure.2;
        same && r.style == "kernel" && r.level == "fast"
    })?;
    let median = row.spread.median;
    Some(if line.more_is_better { format!("{median:+.0}") } else { format!("{median:.2}") })
}
