//! The scenarios: what a frame allocator must do on a whole machine, as one list that kernels and processes run.
//!
//! A [`World`] is what a scenario needs of the machine under it: the machine's own instance, its CPUs, and some memory
//! to work with. [`scenarios`] lists what runs on any world; each ends with every frame back where it was.
//!
//! ```text
//! World       the machine, as a scenario sees it
//!   Marks     which frames a scenario holds, a bit each: lent twice is found here
//!   Slots     blocks that CPUs hand to one another
//!   Sim       a machine that does not exist, over the world's CPUs
//!   Home      where every frame was, and that it is there again
//! scenario/   one file per theme
//! load        work for all CPUs, as the demonstrations run it
//! show        what a machine shows of itself: the same text in every world
//! ```
//!
//! Nothing here allocates but through the world, and nothing is unsafe.
//!
//! [`conformance`] is for heaps: what any allocator must do, as a kit that runs on any allocator.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "std")]
extern crate std;

pub mod conformance;
mod flag;
mod home;
mod load;
mod marks;
mod rng;
mod scenario;
pub mod show;
mod sim;
mod slots;
mod world;

pub use home::{Home, settle};
pub use load::{Load, with_load};
pub use rng::Rng;
pub use scenario::{Scenario, scenarios};
pub use world::World;
