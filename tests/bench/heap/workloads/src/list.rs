//! All workloads.

use crate::load::Set::{self, Memory, Micro, Pages};
use crate::load::{Load, Workload};
use crate::meter::Meter;
use crate::work::*;

const ONE: &[usize] = &[1];
const TWO: &[usize] = &[1, 2];
const FORKING: &[usize] = &[4];
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
    one(Micro, "rptest", "pair", FEW, rptest::run),
    one(Micro, "sh6", "pair", ONE, sh6::run),
    one(Micro, "sh8", "pair", FEW, sh8::run),
    one(Micro, "alloc-test", "pair", FEW, alloctest::run),
    one(Micro, "thread-churn", "thread", FEW, churn::run),
    one(Micro, "btree", "replacement", TWO, btree::run),
    one(Micro, "strings", "text", FEW, strings::run),
    one(Micro, "mixed", "step", FEW, mixed::run),
    one(Pages, "json", "byte", TWO, json::run),
    one(Pages, "syn", "type", ONE, source::run),
    one(Pages, "hashmap", "entry", ONE, hashmap::run),
    one(Pages, "vec-100mb", "element", ONE, vecs::one),
    one(Pages, "vec-1000", "element", ONE, vecs::many),
    one(Pages, "medium", "block", TWO, medium::run),
    one(Pages, "large-64k", "pair", ONE, pairs::run::<{ 1 << 13 }>),
    one(Pages, "large-2m", "pair", ONE, pairs::run::<{ 1 << 18 }>),
    one(Memory, "steady", "step", ONE, steady::run),
    one(Memory, "sawtooth", "block", ONE, sawtooth::run),
    one(Memory, "idle", "thread", ONE, idle::run),
    one(Memory, "fork", "fork", FORKING, fork::run),
    one(Memory, "tiny", "program", ONE, tiny::run),
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
