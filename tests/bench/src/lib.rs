//! Benchmarks of pagemill beside its peers.
//!
//! A measurement goes through these files: [`args`] says what to measure, [`run`] interleaves the allocators of
//! [`peers`] within each repetition, [`workload`] is what each of them does, [`stats`] turns the samples into medians
//! and paired ratios, [`csv`] records them and [`summary`] renders the record. [`scale`] simulates machines that are
//! larger than the one at hand. All `unsafe` is in [`os`] and [`machine`].
//!
//! Time is the CPU time of the measuring threads, so that a busy machine widens the spread rather than moves the
//! median. Managed frames are never touched: what is measured is the allocator and its metadata.

pub mod args;
pub mod check;
pub mod csv;
pub mod frames;
pub mod machine;
pub mod os;
pub mod pagemill;
pub mod peers;
pub mod rng;
pub mod run;
pub mod scale;
pub mod summary;
pub(crate) mod worker;
pub mod workload;

pub use bench_record::stats;
