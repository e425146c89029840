//! The command line.

use std::path::PathBuf;

use crate::peers::{self, Peer};
use crate::workload::Workload;

/// Shown after a wrong option and by `--help`.
pub const USAGE: &str = "\
usage: frames [scale] [options]
  scale               simulate 1 GiB to 1 TiB and 1 to 256 CPUs instead of measuring the workloads
  --only A,B          only these workloads: bulk, pair, scattered-pair, replace, mixed, churn, or one like pair-9
                      (default all; above 1 GiB bulk, replace and mixed)
  --peers A,B         only these allocators: pagemill, buddy-system, bitmap, buddy-slab, loop, or one like
                      pagemill-kernel-fast (default all; scale: pagemill)
  --gib A,B           GiB managed (default 1,4; scale 1 to 1024)
  --threads A,B       threads (default 1,2); scale: simulated CPUs (default 1 to 256)
  --reps N            interleaved repetitions (default 15; scale 3)
  --quick             three short repetitions on 1 GiB and one thread, unless the options above say otherwise
  --check             hold every answer against a bitmap of the frames lent; no figures
  --csv PATH          write the figures there (default for a full run: results/frames.csv beside the sources)
  --summary           no measuring: print the table for the README from the CSV
";

/// What was asked for.
pub struct Args {
    /// Simulated scale instead of the workloads.
    pub scale: bool,
    /// The workloads.
    pub workloads: Vec<Workload>,
    /// Leave out the workloads in which a larger memory changes little.
    pub brief: bool,
    /// The allocators.
    pub peers: Vec<Peer>,
    /// Sizes in GiB.
    pub gib: Vec<usize>,
    /// Numbers of threads.
    pub threads: Vec<usize>,
    /// Repetitions.
    pub reps: usize,
    /// Divides the steps.
    pub hurry: usize,
    /// Check instead of measure.
    pub check: bool,
    /// Where the record goes, if anywhere.
    pub csv: Option<PathBuf>,
    /// Render the record instead of measuring.
    pub summary: bool,
    /// Show the usage.
    pub help: bool,
}

impl Args {
    /// Reads the command line; `Err` says in one line what is wrong with it.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut given = Given::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "scale" => given.scale = true,
                "--quick" => given.quick = true,
                "--check" => given.check = true,
                "--summary" => given.summary = true,
                "--help" | "-h" => given.help = true,
                "--only" => given.workloads = Some(workloads(&value()?)?),
                "--peers" => given.peers = Some(select_peers(&value()?)?),
                "--gib" => given.gib = Some(numbers(&arg, &value()?, 1024)?),
                "--threads" => given.threads = Some(numbers(&arg, &value()?, 256)?),
                "--reps" => given.reps = Some(numbers(&arg, &value()?, 1000)?[0]),
                "--csv" => given.csv = Some(PathBuf::from(value()?)),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        Ok(given.complete())
    }
}

/// The options as far as they were given.
#[derive(Default)]
struct Given {
    scale: bool,
    quick: bool,
    check: bool,
    summary: bool,
    help: bool,
    workloads: Option<Vec<Workload>>,
    peers: Option<Vec<Peer>>,
    gib: Option<Vec<usize>>,
    threads: Option<Vec<usize>>,
    reps: Option<usize>,
    csv: Option<PathBuf>,
}

impl Given {
    fn complete(self) -> Args {
        // A part never replaces the record of the whole, unless told so.
        let whole = !self.quick
            && self.workloads.is_none()
            && self.peers.is_none()
            && self.gib.is_none()
            && self.threads.is_none()
            && self.reps.is_none_or(|reps| reps >= 9);
        let name = if self.scale { "results/scale.csv" } else { "results/frames.csv" };
        let default_csv = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name);
        let csv = self.csv.or_else(|| (whole || self.summary).then(default_csv));
        let (gib, threads): (&[_], &[_]) = match (self.scale, self.quick) {
            (false, false) => (&[1, 4], &[1, 2]),
            (false, true) => (&[1], &[1]),
            (true, false) => (&[1, 16, 256, 1024], &[1, 16, 256]),
            (true, true) => (&[1, 64], &[1, 64]),
        };
        Args {
            scale: self.scale,
            brief: self.workloads.is_none(),
            workloads: self.workloads.unwrap_or_else(|| Workload::ALL.to_vec()),
            // A terabyte of some peers' metadata does not fit here; who wants them names them.
            peers: self
                .peers
                .unwrap_or_else(|| peers::all().into_iter().filter(|p| !self.scale || p.is_pagemill()).collect()),
            gib: self.gib.unwrap_or_else(|| gib.to_vec()),
            threads: self.threads.unwrap_or_else(|| threads.to_vec()),
            reps: self.reps.unwrap_or(if self.quick || self.scale { 3 } else { 15 }),
            hurry: if self.quick { 10 } else { 1 },
            check: self.check,
            csv,
            summary: self.summary,
            help: self.help,
        }
    }
}

fn workloads(list: &str) -> Result<Vec<Workload>, String> {
    let mut chosen = Vec::new();
    for word in list.split(',') {
        let before = chosen.len();
        chosen.extend(Workload::ALL.into_iter().filter(|w| w.family() == word || w.to_string() == word));
        if chosen.len() == before {
            return Err(format!("no workload is called {word}"));
        }
    }
    Ok(chosen)
}

fn select_peers(list: &str) -> Result<Vec<Peer>, String> {
    let mut chosen = Vec::new();
    for word in list.split(',') {
        let before = chosen.len();
        chosen.extend(peers::all().into_iter().filter(|p| p.key == word || p.allocator == word));
        if chosen.len() == before {
            return Err(format!("no allocator is called {word}"));
        }
    }
    Ok(chosen)
}

fn numbers(option: &str, list: &str, max: usize) -> Result<Vec<usize>, String> {
    let number = |word: &str| match word.parse() {
        Ok(n) if (1..=max).contains(&n) => Ok(n),
        _ => Err(format!("{option} takes numbers from 1 to {max}, not {word}")),
    };
    list.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn families_and_single_workloads() {
        let args = parse("--only pair,mixed-50 --gib 4 --reps 3").unwrap();
        assert_eq!(args.workloads.len(), 4);
        assert_eq!((args.gib, args.reps, args.csv), (vec![4], 3, None));
    }

    #[test]
    fn a_full_run_is_recorded_and_a_part_is_not() {
        assert!(parse("").unwrap().csv.is_some());
        assert!(parse("--quick").unwrap().csv.is_none());
        assert!(parse("--quick --csv x").unwrap().csv.is_some());
    }

    #[test]
    fn wrong_options_are_named() {
        for line in ["--fast", "--reps", "--reps 0", "--reps x", "--only pear", "--peers nobody", "--gib 1,"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
