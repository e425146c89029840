//! The command line.

use std::path::{Path, PathBuf};

use heap_workloads::list;
use heap_workloads::load::{Set, Workload};

use crate::allocators::{self, Allocator};
use crate::workers::Build;

/// Shown after a wrong option and by `--help`.
pub(crate) const USAGE: &str = "\
usage: cargo bench-heap [options]
  --only A,B          only these workloads: a set (micro, pages, memory), a family like pair, or one like pair-64
  --workloads A,B     the same
  --allocators A,B    only these allocators (default all; --list names them)
  --threads A,B       only these numbers of threads (default as each workload has them, up to 4)
  --builds A,B        only these builds of the programs: no-lto, fat-lto (default both)
  --reps N            rounds: each allocator once in each, in random order (default 9)
  --quick             one build, two short rounds: that all of it runs, not how fast
  --csv PATH          write the figures there (default for a full run: results/heap.csv beside the sources)
  --report PATH       write the plots there, as one HTML file (default: beside the CSV)
  --summary           no measuring: the tables and plots from the CSV
  --markdown          no measuring: the table for the README from the CSV
  --list              the workloads and the allocators
";

/// The smallest number of rounds whose figures replace the record.
const ENOUGH: usize = 9;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Args {
    /// The workloads.
    pub workloads: Vec<&'static Workload>,
    /// The allocators.
    pub allocators: Vec<&'static Allocator>,
    /// The numbers of threads, where not all.
    pub threads: Option<Vec<usize>>,
    /// The builds.
    pub builds: Vec<Build>,
    /// Rounds.
    pub reps: usize,
    /// Divides the work.
    pub hurry: usize,
    /// Where the record goes, if anywhere.
    pub csv: Option<PathBuf>,
    /// Where the plots go, if anywhere.
    pub report: Option<PathBuf>,
    /// What to do instead of measuring.
    pub instead: Option<Instead>,
}

/// What there is to do besides measuring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    /// Show the usage.
    Help,
    /// Name the workloads and the allocators.
    List,
    /// Render the record.
    Summary,
    /// Render it for the README.
    Markdown,
}

impl Args {
    /// Reads the command line; `Err` says in one line what is wrong with it.
    pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut given = Given::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--only" | "--workloads" => given.workloads = Some(workloads(&value()?)?),
                "--allocators" => given.allocators = Some(allocators::select(&value()?)?),
                "--threads" => given.threads = Some(numbers(&arg, &value()?, 256)?),
                "--builds" => given.builds = Some(value()?.split(',').map(str::parse).collect::<Result<_, _>>()?),
                "--reps" => given.reps = Some(number(&arg, &value()?, 1000)?),
                "--quick" => given.quick = true,
                "--csv" => given.csv = Some(PathBuf::from(value()?)),
                "--report" => given.report = Some(PathBuf::from(value()?)),
                "--summary" => given.instead = Some(Instead::Summary),
                "--markdown" => given.instead = Some(Instead::Markdown),
                "--list" => given.instead = Some(Instead::List),
                "--help" | "-h" => given.instead = Some(Instead::Help),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        given.complete()
    }
}

/// The options as far as they were given.
#[derive(Default)]
struct Given {
    workloads: Option<Vec<&'static Workload>>,
    allocators: Option<Vec<&'static Allocator>>,
    threads: Option<Vec<usize>>,
    builds: Option<Vec<Build>>,
    reps: Option<usize>,
    quick: bool,
    csv: Option<PathBuf>,
    report: Option<PathBuf>,
    instead: Option<Instead>,
}

impl Given {
    fn complete(self) -> Result<Args, String> {
        // A part never replaces the record of the whole, unless told so.
        let whole = !self.quick
            && self.workloads.is_none()
            && self.allocators.is_none()
            && self.threads.is_none()
            && self.builds.is_none()
            && self.reps.is_none_or(|reps| reps >= ENOUGH);
        let rendered = matches!(self.instead, Some(Instead::Summary | Instead::Markdown));
        let csv = self.csv.or_else(|| (whole || rendered).then(default_csv));
        let report = self.report.or_else(|| Some(csv.as_ref()?.with_extension("html")));
        let workloads = self.workloads.unwrap_or_else(|| list::ALL.iter().collect());
        let measured = |w: &&Workload| w.threads.iter().any(|n| self.threads.as_ref().is_none_or(|t| t.contains(n)));
        if !workloads.iter().any(measured) {
            return Err("none of these workloads runs on these numbers of threads".into());
        }
        let every_build = if self.quick { &Build::ALL[..1] } else { &Build::ALL[..] };
        Ok(Args {
            workloads,
            allocators: self.allocators.unwrap_or_else(|| {
                let wanted = |a: &&Allocator| !self.quick || !a.is_large;
                allocators::ALL.iter().filter(wanted).collect()
            }),
            threads: self.threads,
            builds: self.builds.unwrap_or_else(|| every_build.to_vec()),
            reps: self.reps.unwrap_or(if self.quick { 2 } else { ENOUGH }),
            hurry: if self.quick { 50 } else { 1 },
            csv,
            report,
            instead: self.instead,
        })
    }
}

fn default_csv() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../results/heap.csv")
}

fn workloads(list: &str) -> Result<Vec<&'static Workload>, String> {
    let mut chosen = vec![false; list::ALL.len()];
    for word in list.split(',') {
        let family = |name: &str| name.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let means = |w: &Workload| w.set.name() == word || family(w.name);
        if !list::ALL.iter().any(means) {
            return Err(format!("no workload or set is called {word}; --list names them"));
        }
        chosen.iter_mut().zip(list::ALL).for_each(|(chosen, w)| *chosen |= means(w));
    }
    Ok(list::ALL.iter().zip(chosen).filter_map(|(w, chosen)| chosen.then_some(w)).collect())
}

fn numbers(option: &str, list: &str, max: usize) -> Result<Vec<usize>, String> {
    list.split(',').map(|word| number(option, word, max)).collect()
}

fn number(option: &str, word: &str, max: usize) -> Result<usize, String> {
    let wrong = || format!("{option} takes numbers from 1 to {max}, not {word:?}");
    word.parse().ok().filter(|n| (1..=max).contains(n)).ok_or_else(wrong)
}

/// The names that the options know.
pub(crate) fn names() -> String {
    let mut text = String::new();
    for set in Set::ALL {
        text += &format!("{}\n", set.name());
        for workload in list::ALL.iter().filter(|w| w.set == set) {
            let threads: Vec<_> = workload.threads.iter().map(usize::to_string).collect();
            text += &format!("  {:18} a {} on {} threads\n", workload.name, workload.unit, threads.join(", "));
        }
    }
    text += "allocators\n";
    for allocator in allocators::ALL {
        text += &format!("  {}\n", allocator.key);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn sets_families_and_single_workloads() {
        let names = |line: &str| parse(line).unwrap().workloads.iter().map(|w| w.name).collect::<Vec<_>>();
        assert_eq!(names("--only larson,pair-64"), ["pair-64", "larson"]);
        assert_eq!(names("--workloads batch").len(), 4);
        assert!(names("--only micro").len() > 10);
    }

    #[test]
    fn a_full_run_is_recorded_and_a_part_is_not() {
        assert!(parse("").unwrap().csv.is_some());
        for part in ["--quick", "--only pair", "--allocators system", "--reps 3", "--builds no-lto", "--threads 1"] {
            assert!(parse(part).unwrap().csv.is_none(), "{part}");
        }
        let args = parse("--quick --csv a/b.csv").unwrap();
        assert_eq!(args.report.unwrap(), Path::new("a/b.html"));
    }

    #[test]
    fn wrong_options_are_named() {
        let wrong = "--fast|--reps|--reps 0|--reps x|--only pear|--only pair-|--allocators nobody|--builds thin|--threads 1,|\
                     --only pair-16 --threads 3";
        for line in wrong.split('|') {
            let said = parse(line).unwrap_err();
            assert!(!said.is_empty() && !said.contains('\n'), "{line}: {said}");
        }
    }
}
