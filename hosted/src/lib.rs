//! pagemill in a process: threads as CPUs, mappings as memory, NUMA topology as data.
//!
//! ```text
//! global     [unsafe] the heap of the process as a global allocator
//! process    [unsafe] that heap: set up by the first request, grown by regions
//! reserve    [unsafe] address space in one piece, made usable part by part
//! fault      [unsafe] what happens on a wrong free
//! moves      [unsafe] large blocks that change their place by page tables
//! huge       which pages there should be
//! balloon    memory that is had and shall not be used: a hard limit
//! background [unsafe] a thread that gives back when nobody else comes by
//! stats      where the bytes are
//! proc       [unsafe] what the system tells, line by line
//! pages      [unsafe] pages that nobody can touch, for the level `Hardened`
//! fork       [unsafe] all locks before, all locks after
//! machine    an instance over a mapping, for demonstrations and tests
//! crew       threads that are the CPUs 0 to n of an instance
//! here       [unsafe] what a thread has for itself
//! tls        [unsafe] which CPU a thread is: the platform of pagemill's core
//! members    the instances that threads have pools of
//! ending     [unsafe] word that a thread ends
//! numbers    the numbers of threads
//! lock       [unsafe] the lock
//! map        [unsafe] anonymous mappings that cost nothing until they are touched
//! numa       nodes, CPUs and distances: of this machine, or as a text describes them
//! excess     [unsafe] how much that nobody uses a process may have, and how the rest goes back
//! errno      [unsafe] system calls in the middle of other people's code
//! c          [unsafe] the same for C
//! ctl        what can be asked of the heaps of a process, and changed in them
//! edges      [unsafe] before `main` and after it
//! nodes      [unsafe] which nodes pages come from
//! prefault   pages before they are touched
//! options    what whoever starts the program wants of its heap
//! report     the account of every heap, as text and as JSON
//! print      [unsafe] text to a file, put together without allocating
//! profile    [unsafe] who has the memory, by samples
//! ```
//!
//! All of it is for Linux. Elsewhere there is only `Pagemill`, which forwards to the system's allocator, as it does
//! under Miri.
#![deny(unsafe_code)]
#![cfg_attr(miri, allow(dead_code, reason = "what stands behind `Pagemill` otherwise"))]

#[cfg(target_os = "linux")]
mod background;
#[cfg(target_os = "linux")]
mod balloon;
#[cfg(target_os = "linux")]
pub mod c;
#[cfg(target_os = "linux")]
mod crew;
#[cfg(target_os = "linux")]
mod ctl;
#[cfg(target_os = "linux")]
mod edges;
#[cfg(target_os = "linux")]
mod ending;
#[cfg(target_os = "linux")]
mod errno;
#[cfg(target_os = "linux")]
mod excess;
#[cfg(target_os = "linux")]
mod fault;
#[cfg(target_os = "linux")]
mod fork;
#[cfg_attr(any(miri, not(target_os = "linux")), path = "elsewhere.rs")]
mod global;
#[cfg(target_os = "linux")]
mod here;
#[cfg(target_os = "linux")]
mod huge;
mod level;
#[cfg(target_os = "linux")]
mod lock;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod map;
#[cfg(target_os = "linux")]
mod members;
#[cfg(target_os = "linux")]
mod moves;
#[cfg(target_os = "linux")]
mod nodes;
#[cfg(target_os = "linux")]
mod numa;
#[cfg(target_os = "linux")]
mod numbers;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod pages;
#[cfg(target_os = "linux")]
mod prefault;
#[cfg(target_os = "linux")]
mod print;
#[cfg(target_os = "linux")]
mod proc;
#[cfg(target_os = "linux")]
mod process;
#[cfg(all(target_os = "linux", feature = "profile"))]
mod profile;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod reserve;
#[cfg(target_os = "linux")]
mod stats;
#[cfg(target_os = "linux")]
mod tls;

pub use ::pagemill::{Checked, Fast, Hardened};
#[cfg(target_os = "linux")]
pub use balloon::LimitError;
#[cfg(target_os = "linux")]
pub use crew::Crew;
#[cfg(target_os = "linux")]
pub use ctl::trim;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use fault::refused as refuse;
#[cfg(all(target_os = "linux", not(miri)))]
pub use global::HostedLevel;
pub use global::{Level, Pagemill};
#[cfg(target_os = "linux")]
pub use huge::HugePages;
pub use level::WithHandlers;
#[cfg(target_os = "linux")]
pub use lock::HostedLock;
#[cfg(target_os = "linux")]
pub use machine::{Machine, MachineBuilder, MachineError};
#[cfg(target_os = "linux")]
pub use map::{MapError, Mapping};
#[cfg(target_os = "linux")]
pub use numa::{NodeInfo, Origin, Topology, TopologyError};
#[cfg(target_os = "linux")]
pub use options::{ChosenLevel, Format, NumaChoice, OptionError, Options, Prefault, Prefix, options};
#[cfg(all(target_os = "linux", feature = "profile"))]
pub use profile::{Profile, ProfileTotals, profile};
#[cfg(target_os = "linux")]
pub use report::write_report;
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use reserve::system_page;
#[cfg(target_os = "linux")]
pub use stats::{Stats, SystemStats};
#[cfg(target_os = "linux")]
pub use tls::{Hosted, Seat, Sitting, thread_is_ready};
