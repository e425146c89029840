//! pagemill in a process: threads as CPUs, mappings as memory, NUMA topology as data.
//!
//! ```text
//! global   [unsafe] the heap of the process as a global allocator
//! process  [unsafe] that heap: set up by the first request, grown by regions
//! reserve  [unsafe] address space in one piece, made usable part by part
//! fault    [unsafe] what happens on a wrong free
//! fork     [unsafe] all locks before, all locks after
//! machine  an instance over a mapping, for demonstrations and tests
//! crew     threads that are the CPUs 0 to n of an instance
//! tls      [unsafe] which CPU a thread is: the platform of pagemill's core
//! members  the instances that threads have pools of
//! ending   [unsafe] word that a thread ends
//! numbers  the numbers of threads
//! lock     [unsafe] the lock
//! map      [unsafe] anonymous mappings that cost nothing until they are touched
//! numa     nodes, CPUs and distances: of this machine, or as a text describes them
//! errno    [unsafe] system calls in the middle of other people's code
//! ```
//!
//! Linux only, for now; elsewhere the crate is empty.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod crew;
mod ending;
mod errno;
mod fault;
mod fork;
mod global;
mod lock;
mod machine;
mod map;
mod members;
mod numa;
mod numbers;
mod process;
mod reserve;
mod tls;

pub use ::pagemill::{Checked, Fast};
pub use crew::Crew;
pub use global::{HostedLevel, Level, Pagemill};
pub use lock::HostedLock;
pub use machine::{Machine, MachineBuilder, MachineError};
pub use map::{MapError, Mapping};
pub use numa::{NodeInfo, Origin, Topology, TopologyError};
pub use tls::{Hosted, Seat, Sitting};
