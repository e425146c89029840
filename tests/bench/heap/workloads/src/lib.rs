//! Heap workloads: what an allocator is made to do while it is measured.
//!
//! A worker is a program with one `#[global_allocator]` and [`worker::main`]. It runs one workload of [`list::ALL`],
//! and prints what that cost as lines of [`meter`]. Each workload is a file of its own under [`work`]; those named
//! after well-known programs are models of them, written for Rust.
//!
//! All `unsafe` is in [`block`] and [`os`].

pub mod block;
pub mod list;
pub mod load;
pub mod meter;
pub mod os;
pub mod rng;
pub mod work;
pub mod worker;
