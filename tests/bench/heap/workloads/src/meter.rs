//! What a workload cost, and how a worker tells it.

use std::fmt;
use std::str::FromStr;
use std::time::Instant;

use crate::os::{Resident, Usage};

/// The cost of one allocation and release, or of what else the workload repeats.
pub const CPU: &str = "cpu";
/// The time that passed, for the same.
pub const WALL: &str = "wall";
/// The part of [`CPU`] that the kernel took.
pub const KERNEL: &str = "kernel";
/// Page faults of the measured part.
pub const FAULTS: &str = "faults";
/// The most memory that the program ever had, from its start.
pub const PEAK: &str = "peak";

/// One figure of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What was measured.
    pub metric: String,
    /// In which unit.
    pub unit: String,
    /// The figure.
    pub value: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.metric, self.unit, self.value)
    }
}

impl FromStr for Sample {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("not a figure: {line}");
        let mut words = line.split(' ');
        let (Some(metric), Some(unit), Some(value), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        let value = value.parse().map_err(|_| wrong())?;
        Ok(Self { metric: metric.into(), unit: unit.into(), value })
    }
}

/// Measures the part of a run between [`start`](Self::start) and [`stop`](Self::stop).
pub struct Meter {
    start: (Usage, Instant),
    stop: Option<(Usage, Instant)>,
    rates: bool,
    notes: Vec<(&'static str, &'static str, f64)>,
}

impl Meter {
    /// A meter that already runs.
    #[expect(clippy::new_without_default, reason = "it reads the clock")]
    pub fn new() -> Self {
        Self { start: now(), stop: None, rates: false, notes: Vec::with_capacity(8) }
    }

    /// What was done up to here was preparation. Without a call, all of it counts.
    pub fn start(&mut self) {
        self.start = now();
    }

    /// What follows does not count. Without a call, all of it does.
    pub fn stop(&mut self) {
        self.stop = Some(now());
    }

    /// Tells also how many page faults there were for a million units, and which part of the time was the kernel's.
    pub fn tell_rates(&mut self) {
        self.rates = true;
    }

    /// Tells another figure.
    pub fn note(&mut self, metric: &'static str, unit: &'static str, value: f64) {
        self.notes.push((metric, unit, value));
    }

    /// Tells how much memory is resident now.
    pub fn note_resident(&mut self, metric: &'static str) {
        self.note(metric, "KiB", Resident::now().now as f64);
    }

    /// All figures, of `ops` repetitions of what the workload does.
    pub fn finish(self, ops: u64) -> Vec<Sample> {
        let (used, time) = self.stop.unwrap_or_else(now);
        let peak = Resident::now().peak;
        let per_op = |ns: u64| ns as f64 / ops.max(1) as f64;
        let sample = |metric: &str, unit: &str, value| Sample { metric: metric.into(), unit: unit.into(), value };
        let (before, since) = self.start;
        let mut samples = vec![
            sample(CPU, "ns", per_op(used.cpu_ns - before.cpu_ns)),
            sample(WALL, "ns", per_op((time - since).as_nanos() as u64)),
            sample(KERNEL, "ns", per_op(used.kernel_ns - before.kernel_ns)),
            sample(FAULTS, "faults", (used.faults - before.faults) as f64),
            sample(PEAK, "KiB", peak as f64),
        ];
        if self.rates {
            let faults = (used.faults - before.faults) as f64 / ops.max(1) as f64 * 1e6;
            let kernel = (used.kernel_ns - before.kernel_ns) as f64 / (used.cpu_ns - before.cpu_ns).max(1) as f64;
            samples.push(sample("faults-per-million", "faults", faults));
            samples.push(sample("kernel-share", "%", kernel * 100.0));
        }
        samples.extend(self.notes.iter().map(|&(metric, unit, value)| sample(metric, unit, value)));
        samples
    }
}

fn now() -> (Usage, Instant) {
    (Usage::now(), Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_survives_its_line() {
        let sample = Sample { metric: "rss-idle".into(), unit: "KiB".into(), value: 1.25 };
        assert_eq!(sample.to_string().parse(), Ok(sample));
        for line in ["", "cpu", "cpu ns", "cpu ns x", "cpu ns 1 2"] {
            assert!(line.parse::<Sample>().is_err(), "{line}");
        }
    }
}
