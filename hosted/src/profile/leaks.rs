//! What is still lent, as text: where it was asked for, the most first.

use std::fmt::Write;

use super::maps;
use super::names::{Line, Names};
use super::stacks::{Record, Stacks};

/// Stacks that are told of.
const MOST: usize = 20;

/// The report over copied records; `None` if nothing is lent that was sampled.
pub(super) fn report(copy: &[u64], mean: usize) -> Option<String> {
    let mut records: Vec<_> = Stacks::records(copy).filter(|record| record.samples != 0).collect();
    records.sort_by(|one, other| other.live[1].total_cmp(&one.live[1]));
    if records.is_empty() {
        return None;
    }
    let sum = |what: fn(&Record<'_>) -> f64| records.iter().map(what).sum::<f64>();
    let samples: u64 = records.iter().map(|record| record.samples).sum();
    let mut text = String::new();
    // A string takes all that is written.
    let _ = writeln!(
        text,
        "pagemill: never freed: about {} in {} objects, by {samples} samples, one each {} on average",
        Bytes(sum(|record| record.live[1])),
        sum(|record| record.live[0]).round(),
        Bytes(mean as f64),
    );
    let mut names = Names::new(maps::all());
    for record in records.iter().take(MOST) {
        let (bytes, objects, samples) = (Bytes(record.live[1]), record.live[0].round(), record.samples);
        let _ = writeln!(text, "  {bytes} in {objects} objects ({samples} of the samples)");
        write_stack(&mut text, &mut names, record.frames);
    }
    if let Some(more) = records.len().checked_sub(MOST).filter(|&more| more != 0) {
        let rest = records[MOST..].iter().map(|record| record.live[1]).sum();
        let _ = writeln!(text, "  {} from {more} more places", Bytes(rest));
    }
    Some(text)
}

fn write_stack(text: &mut String, names: &mut Names, frames: &[u64]) {
    let (way, mut left_out) = names.way(frames);
    for &frame in &frames[way..] {
        if names.at(frame).is_empty() {
            let _ = writeln!(text, "      at {}", names.place(frame));
        }
        let lines = names.at(frame);
        for Line { function, file, line } in lines.iter().skip(std::mem::take(&mut left_out)) {
            let _ = match file.as_str() {
                "" => writeln!(text, "      at {function}"),
                file => writeln!(text, "      at {function} ({file}:{line})"),
            };
            // What calls it is the same in every program.
            if function == "main" || function.contains("__rust_begin_short_backtrace") {
                return;
            }
        }
    }
}

/// A number of bytes for people.
struct Bytes(f64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            bytes if bytes < 1024.0 => write!(f, "{bytes:.0} bytes"),
            bytes if bytes < 1024.0 * 1024.0 => write!(f, "{:.1} KiB", bytes / 1024.0),
            bytes => write!(f, "{:.1} MiB", bytes / (1024.0 * 1024.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_comes_first_and_what_is_freed_is_not_told() {
        let mut stacks = Stacks::new();
        let places = [[1usize, 2], [1, 3], [2, 3]].map(|frames| stacks.find(&frames));
        stacks.lent(places[0], 10.0, 1000.0);
        stacks.lent(places[1], 10.0, 5000.0);
        stacks.lent(places[2], 10.0, 9000.0);
        stacks.freed(places[2], 10.0, 9000.0);
        let mut copy = vec![0; stacks.words()];
        stacks.copy(&mut copy, false);
        let report = report(&copy, 1 << 19).unwrap();
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(
            lines[0],
            "pagemill: never freed: about 5.9 KiB in 20 objects, by 2 samples, one each 512.0 KiB on average"
        );
        assert_eq!(lines[1..4], ["  4.9 KiB in 10 objects (1 of the samples)", "      at 0x1", "      at 0x3"]);
        assert_eq!(lines.len(), 7);
        assert_eq!(super::report(&[0], 1), None);
    }
}
