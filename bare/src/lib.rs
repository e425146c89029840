//! A library kernel for x86-64: it boots under QEMU, brings the machine up, and runs what a kernel's author writes into
//! one file. See the README for how, and for what it does not do.
//!
//! Files, a ladder: each uses only what stands above it, except that locks and printing are everybody's.
//!
//! ```text
//! pure, and tested on the host
//!   fixed_vec    a list in place
//!   memory_map   the firmware's map, brought into order
//!   early        reservations, and a bump allocator over the rest
//!   pvh          what the loader hands over
//!   acpi         the tables: found, checked, read
//!   topology     CPUs, nodes, whose memory is where, distances
//!   paging       page tables
//!   zone_map     which memory becomes which zone
//! on the machine
//!   cpu          [unsafe] ports, time stamps, the way out of QEMU, single step
//!   percpu       [unsafe] the areas behind GS, the platform of pagemill's core, the lock
//!   serial       printing
//!   physical     [unsafe] the window on physical memory
//!   apic         [unsafe] the local APIC
//!   idt          [unsafe] descriptor tables, entry stubs, hooks
//!   time         how fast the time stamp counter runs
//!   machine      what boot found out
//!   boot_heap    a heap for the time before there is one
//!   smp          work for all CPUs
//!   boot         [unsafe] from the loader to the kernel's own code
//!   harness      tests inside a kernel, panics
//!   frames       pagemill, given this machine: what an embedder does
//!   heap         [unsafe] its heap, and the global allocator to install
//! on the host
//!   host         builds the kernel and boots it
//! ```
#![no_std]
#![deny(unsafe_code)]

#[cfg(not(target_os = "none"))]
extern crate std;

pub mod acpi;
pub mod early;
pub mod fixed_vec;
pub mod memory_map;
pub mod paging;
pub mod pvh;
pub mod topology;
pub mod zone_map;

#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
mod boot;
#[cfg(target_os = "none")]
pub mod boot_heap;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod frames;
#[cfg(target_os = "none")]
pub mod harness;
#[cfg(target_os = "none")]
pub mod heap;
#[cfg(target_os = "none")]
pub mod idt;
#[cfg(target_os = "none")]
pub mod machine;
#[cfg(target_os = "none")]
pub mod percpu;
#[cfg(target_os = "none")]
pub mod physical;
#[cfg(target_os = "none")]
pub mod serial;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
pub mod time;

#[cfg(not(target_os = "none"))]
pub mod host;

mod kernel;
