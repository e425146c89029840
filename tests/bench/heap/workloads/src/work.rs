//! The workloads, a file each.

pub mod batches;
pub mod larson;
pub mod mstress;
pub mod pairs;
pub mod xmalloc;
