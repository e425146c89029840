//! The workloads, a file each.

pub mod alloctest;
pub mod batches;
pub mod btree;
pub mod churn;
pub mod fork;
pub mod hashmap;
pub mod idle;
pub mod json;
pub mod larson;
pub mod medium;
pub mod mixed;
pub mod mstress;
pub mod pairs;
pub mod rptest;
pub mod sawtooth;
pub mod sh6;
pub mod sh8;
pub mod source;
pub mod steady;
pub mod strings;
pub mod tiny;
pub mod vecs;
pub mod xmalloc;
