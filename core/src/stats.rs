//! Counts that are summed when somebody asks.

use crate::sync::{AtomicU64, Ordering, const_fn};

/// What is counted of each node, named as Linux names it. All count allocations, whatever their size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumaStat {
    Hit,
    Miss,
    Foreign,
    InterleaveHit,
    Local,
    Other,
}

impl NumaStat {
    const COUNT: usize = 6;
}

/// The counts of one node that slow paths keep; what pools serve is counted by the pools.
pub(crate) struct NodeCounters([AtomicU64; NumaStat::COUNT]);

impl NodeCounters {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self([
                AtomicU64::new(0),
                AtomicU64::new(0),
                AtomicU64::new(0),
                AtomicU64::new(0),
                AtomicU64::new(0),
                AtomicU64::new(0),
            ])
        }
    }

    pub(crate) fn add(&self, stat: NumaStat, count: u64) {
        // Relaxed: a count orders nothing.
        self.0[stat as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, stat: NumaStat) -> u64 {
        self.0[stat as usize].load(Ordering::Relaxed)
    }
}

/// Where the allocations of a node went, by the names that `numastat` has for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NumaCounts {
    /// Meant for this node and served by it.
    pub numa_hit: u64,
    /// Meant for another node, served by this one.
    pub numa_miss: u64,
    /// Meant for this node, served by another.
    pub numa_foreign: u64,
    /// Meant for this node by interleaving, and served by it.
    pub interleave_hit: u64,
    /// Served by this node to a CPU of it.
    pub local_node: u64,
    /// Served by this node to a CPU of another.
    pub other_node: u64,
}
