//! pagemill in a process: threads as CPUs, mappings as memory, NUMA topology as data.
//!
//! ```text
//! tls      [unsafe] which CPU a thread is, the platform of pagemill's core, the lock
//! map      [unsafe] anonymous mappings that cost nothing until they are touched
//! numa     nodes, CPUs and distances: of this machine, or as a text describes them
//! crew     threads that are the CPUs 0 to n of an instance
//! machine  an instance over a mapping
//! ```
//!
//! Linux only, for now; elsewhere the crate is empty.
#![cfg(target_os = "linux")]
#![deny(unsafe_code)]

mod crew;
mod machine;
mod map;
mod numa;
mod tls;

pub use crew::Crew;
pub use machine::{Machine, MachineBuilder, MachineError};
pub use map::{MapError, Mapping};
pub use numa::{NodeInfo, Origin, Topology, TopologyError};
pub use tls::{Hosted, HostedLock, Seat, Sitting, SpinThenYield};
