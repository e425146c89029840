//! Measuring one case: every allocator once in each round, in a random order, so that a change in the machine's load
//! meets all of them.

use std::time::{Duration, Instant};

use bench_record::stats::Spread;
use heap_workloads::meter::{CPU, PEAK, Sample};
use heap_workloads::rng::Rng;

use crate::allocators::Allocator;
use crate::ballast::Ballast;
use crate::row::Row;
use crate::workers::{self, Build, Case};

/// The unit of one figure divided by another of the same round.
pub(crate) const RATIO: &str = "ratio";

/// What is divided by the best peer's.
pub(crate) const BESIDE_BEST: &str = "best peer";

/// Somebody who needs this many times the shortest run, and this long, is measured in these rounds only.
const SLOW: (u32, Duration, usize) = (5, Duration::from_millis(200), 3);

/// The samples of one metric, one per round.
struct Series {
    metric: String,
    unit: String,
    values: Vec<f64>,
}

/// One who is measured.
struct Entrant {
    allocator: &'static Allocator,
    build: Build,
    series: Vec<Series>,
    /// How long the first run took.
    first: Duration,
    /// Why there are no more figures.
    failed: Option<String>,
}

/// What came out of a case.
pub(crate) struct Outcome {
    /// The figures.
    pub rows: Vec<Row>,
    /// Who failed, and why.
    pub failures: Vec<String>,
}

/// Measures `case` in `reps` rounds.
pub(crate) fn measure(allocators: &[&'static Allocator], builds: &[Build], case: &Case, reps: usize) -> Outcome {
    let new = |build| {
        let entrant = move |&allocator| Entrant::new(allocator, build);
        allocators.iter().map(entrant)
    };
    let mut entrants: Vec<Entrant> = builds.iter().copied().flat_map(new).collect();
    let mut order: Vec<usize> = (0..entrants.len()).collect();
    let mut rng = Rng::new(std::process::id() as usize);
    let mut ballast = Ballast::take(case.workload.set);
    for round in 0..reps {
        rng.shuffle(&mut order);
        let shortest = entrants.iter().filter(|e| e.failed.is_none()).map(|e| e.first).min().unwrap_or_default();
        for &i in &order {
            if !entrants[i].is_slow(round, shortest) {
                drop(ballast);
                entrants[i].run(case, round);
                ballast = Ballast::take(case.workload.set);
            }
        }
    }
    let mut rows: Vec<Row> = entrants.iter().flat_map(|e| e.rows(case)).collect();
    for build in builds {
        rows.extend(beside(&entrants, *build, case));
    }
    Outcome { rows, failures: entrants.iter().filter_map(Entrant::failure).collect() }
}

impl Entrant {
    fn new(allocator: &'static Allocator, build: Build) -> Self {
        Self { allocator, build, series: Vec::new(), first: Duration::ZERO, failed: None }
    }

    fn is_slow(&self, round: usize, shortest: Duration) -> bool {
        let (times, least, rounds) = SLOW;
        round >= rounds && self.first > least && self.first > shortest * times
    }

    fn run(&mut self, case: &Case, round: usize) {
        if self.failed.is_some() {
            return;
        }
        let start = Instant::now();
        match workers::run(self.allocator, self.build, case) {
            Ok(samples) => samples.into_iter().for_each(|sample| self.add(sample)),
            Err(reason) => self.failed = Some(reason),
        }
        if round == 0 {
            self.first = start.elapsed();
        }
    }

    fn add(&mut self, sample: Sample) {
        let Sample { metric, unit, value } = sample;
        match self.series.iter_mut().find(|s| s.metric == metric) {
            Some(known) => known.values.push(value),
            None => self.series.push(Series { metric, unit, values: vec![value] }),
        }
    }

    /// Somebody who hangs once has no figures: those of the other rounds would flatter it.
    fn series(&self) -> &[Series] {
        if self.failed.is_some() { &[] } else { &self.series }
    }

    fn find(&self, metric: &str) -> Option<&Series> {
        self.series().iter().find(|s| s.metric == metric)
    }

    fn rows(&self, case: &Case) -> Vec<Row> {
        let row = |s: &Series| Some(self.row(case, s.metric.clone(), s.unit.clone(), Spread::of(&s.values)?));
        self.series().iter().filter_map(row).collect()
    }

    fn row(&self, case: &Case, metric: String, unit: String, spread: Spread) -> Row {
        Row {
            allocator: self.allocator.name.into(),
            level: self.allocator.level.into(),
            build: self.build.name().into(),
            set: case.workload.set.name().into(),
            workload: case.workload.name.into(),
            threads: case.threads,
            metric,
            unit,
            spread,
        }
    }

    fn failure(&self) -> Option<String> {
        let reason = self.failed.as_ref()?;
        Some(format!("{} ({}): {reason}", self.allocator.key, self.build.name()))
    }
}

/// Is less of it better, and more of it possible? What others take is told, but not divided.
fn is_compared(metric: &str) -> bool {
    metric == CPU || metric == PEAK || metric.starts_with("rss-")
}

/// Round by round, everybody divided by the best peer, and pagemill by every peer.
fn beside(entrants: &[Entrant], build: Build, case: &Case) -> Vec<Row> {
    let here = || entrants.iter().filter(move |e| e.build == build);
    let peers = || here().filter(|e| !e.allocator.is_pagemill());
    let mut rows = Vec::new();
    for entrant in here() {
        for ours in entrant.series().iter().filter(|s| is_compared(&s.metric)) {
            let mut ratio = |theirs: &Series, name: &str| {
                // Somebody who was too slow for all rounds.
                if theirs.values.len() == ours.values.len() {
                    let spread = Spread::of_ratios(&ours.values, &theirs.values);
                    let metric = format!("{} / {name}", ours.metric);
                    rows.extend(spread.map(|spread| entrant.row(case, metric, RATIO.into(), spread)));
                }
            };
            if let Some(best) = best(peers(), &ours.metric) {
                ratio(best, BESIDE_BEST);
            }
            for peer in peers().filter(|_| entrant.allocator.is_pagemill()) {
                if let Some(theirs) = peer.find(&ours.metric) {
                    ratio(theirs, peer.allocator.key);
                }
            }
        }
    }
    rows
}

/// The smallest median among those who were there in all rounds.
fn best<'a>(peers: impl Iterator<Item = &'a Entrant>, metric: &str) -> Option<&'a Series> {
    let series: Vec<&Series> = peers.filter_map(|e| e.find(metric)).collect();
    let reps = series.iter().map(|s| s.values.len()).max()?;
    let median = |s: &Series| Spread::of(&s.values).map_or(f64::INFINITY, |spread| spread.median);
    series.into_iter().filter(|s| s.values.len() == reps).min_by(|a, b| median(a).total_cmp(&median(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocators;
    use heap_workloads::list;

    fn entrant(key: &str, values: &[f64]) -> Entrant {
        let allocator = allocators::select(key).unwrap()[0];
        let series = vec![Series { metric: CPU.into(), unit: "ns".into(), values: values.into() }];
        Entrant { series, ..Entrant::new(allocator, Build::NoLto) }
    }

    #[test]
    fn the_best_is_one_of_all_rounds() {
        let case = Case { workload: &list::ALL[0], threads: 1, hurry: 1 };
        let entrants = [entrant("system", &[2.0, 4.0]), entrant("mimalloc", &[1.0])];
        let rows = beside(&entrants, Build::NoLto, &case);
        assert_eq!(rows.len(), 1);
        assert_eq!((&*rows[0].allocator, rows[0].spread.median), ("system", 1.0));
        let entrants = [entrant("system", &[2.0, 4.0]), entrant("mimalloc", &[1.0, 4.0])];
        let rows = beside(&entrants, Build::NoLto, &case);
        assert_eq!((&*rows[0].metric, rows[0].spread.median), ("cpu / best peer", 1.5));
    }

    #[test]
    fn who_hangs_once_has_no_figures() {
        let case = Case { workload: &list::ALL[0], threads: 1, hurry: 1 };
        let hung = Entrant { failed: Some("no end".into()), ..entrant("system", &[1.0]) };
        assert!(hung.rows(&case).is_empty());
        assert_eq!(hung.failure().unwrap(), "system (no-lto): no end");
    }
}
