//! What boot found out about the machine.

use spin::Once;

use crate::cpu::time_stamp;
use crate::memory_map::{MapOddity, MemoryMap};
use crate::percpu;
use crate::time::Span;
use crate::topology::Topology;

/// The machine. CPUs are numbered as in its topology; [`percpu::online`] tells how many have come up.
#[derive(Debug)]
pub struct Machine {
    /// Its memory, as the firmware tells.
    pub map: MemoryMap,
    /// Its CPUs and nodes, as ACPI tells.
    pub topology: Topology,
    /// What the loader was told to tell the kernel.
    pub command_line: &'static str,
    /// The time stamp of the kernel's first instruction.
    pub began: u64,
}

static MACHINE: Once<Machine> = Once::new();
static BOOTED: Once<u64> = Once::new();

pub(crate) fn publish(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

/// The machine.
///
/// # Panics
/// Before boot knows it, which no kernel's own code can be.
pub fn get() -> &'static Machine {
    MACHINE.get().expect("boot has read the firmware's tables")
}

/// Ends the time of booting, and reports the machine and what was odd about it.
pub(crate) fn booted() {
    BOOTED.call_once(time_stamp);
    let Machine { map, topology, .. } = get();
    crate::println!(
        "pagemill-bare: {} CPUs, {} nodes, {} KiB usable, booted in {}",
        percpu::online(),
        topology.node_count(),
        map.usable_bytes() >> 10,
        boot_time(),
    );
    // A region that ends within a frame is nothing unusual: low memory most often does.
    for problem in map.problems().iter().filter(|problem| problem.oddity != MapOddity::Unaligned) {
        crate::println!("  memory map, entry {}: {:?}", problem.entry, problem.oddity);
    }
    for problem in topology.problems() {
        crate::println!("  {problem}");
    }
    let untold = map.problem_count() + topology.problem_count() - map.problems().len() - topology.problems().len();
    if untold != 0 {
        crate::println!("  and {untold} more");
    }
}

/// From the first instruction to the kernel's own code.
pub fn boot_time() -> Span {
    Span(BOOTED.get().map_or(0, |booted| booted - get().began))
}
