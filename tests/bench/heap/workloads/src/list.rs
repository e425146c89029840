//! All workloads.

use crate::load::Set::{self, Micro};
use crate::load::{Load, Workload};
use crate::meter::Meter;
use crate::work::{batches, larson, mstress, pairs, xmalloc};

const ONE: &[usize] = &[1];
const FEW: &[usize] = &[1, 2, 4];

/// Every workload, in the order of the report.
pub const ALL: &[Workload] = &[
    one(Micro, "pair-16", "pair", ONE, pairs::run::<2>),
    one(Micro, "pair-64", "pair", FEW, pairs::run::<8>),
    one(Micro, "pair-256", "pair", ONE, pairs::run::<32>),
    one(Micro, "pair-1024", "pair", ONE, pairs::run::<128>),
    one(Micro, "pair-8192", "pair", ONE, pairs::run::<1024>),
    one(Micro, "batch-64x64", "pair", ONE, batches::run::<8, 64>),
    one(Micro, "batch-64x1000", "pair", FEW, batches::run::<8, 1000>),
    one(Micro, "batch-1024x64", "pair", ONE, batches::run::<128, 64>),
    one(Micro, "batch-1024x1000", "pair", ONE, batches::run::<128, 1000>),
    one(Micro, "larson", "replacement", FEW, larson::run),
    one(Micro, "xmalloc", "pair", FEW, xmalloc::run),
    one(Micro, "mstress", "object", FEW, mstress::run),
];

const fn one(
    set: Set,
    name: &'static str,
    unit: &'static str,
    threads: &'static [usize],
    run: fn(&Load, &mut Meter) -> u64,
) -> Workload {
    Workload { name, set, unit, threads, run }
}

/// The workload of that name.
pub fn find(name: &str) -> Option<&'static Workload> {
    ALL.iter().find(|workload| workload.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_runs_on_every_number_of_threads() {
        for workload in ALL {
            for &threads in workload.threads {
                let mut meter = Meter::new();
                let units = (workload.run)(&Load { threads, hurry: 1000 }, &mut meter);
                assert!(units > 0, "{}", workload.name);
                assert!(!meter.finish(units).is_empty());
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for (at, workload) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|other| other.name != workload.name), "{}", workload.name);
        }
    }
}
