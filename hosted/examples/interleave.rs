//! Memory on several nodes: a table that all threads read lies on all of them in turn, what one thread works on beside
//! it.
//!
//! `cargo run --release -p pagemill-hosted --example interleave`
#![allow(unsafe_code, reason = "objects of a heap are freed by hand")]

use std::alloc::Layout;

use pagemill::{Checked, NodeId, NodeMask, Policy};
use pagemill_hosted::{MachineBuilder, Topology};

/// What stands in for the nodes of a machine that has one.
const TWO_NODES: &str = "cpus 0-1 256M; cpus 2-3 256M; distances 10 21 / 21 10";
const CHUNKS: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut topology = Topology::of_system();
    if topology.nodes.len() == 1 {
        println!("this machine has one node; as if it had two:");
        topology = Topology::parse(TWO_NODES)?;
    }
    // Addresses are enough for the memory of the machine; what is touched counts.
    let machine = MachineBuilder::new(topology).build::<Checked>()?;
    println!("{} of {} nodes placed by the system", machine.bound_ranges(), machine.topology().nodes.len());
    let heap = machine.heap()?;
    let layout = Layout::from_size_align(64 << 10, 64)?;
    let node_of = |object| machine.frame_of(object).and_then(|frame| machine.frames().node_of(frame));

    let shared = heap.placed(Policy::Interleave(NodeMask::ALL));
    let table = (0..CHUNKS).map(|_| shared.alloc(layout)).collect::<Result<Vec<_>, _>>()?;
    let last = NodeId::new(machine.topology().nodes.len() as u32 - 1).ok_or("too many nodes")?;
    let bound = heap.placed(Policy::Bind(NodeMask::of(last)));
    let own = (0..CHUNKS).map(|_| bound.alloc(layout)).collect::<Result<Vec<_>, _>>()?;
    for (name, objects) in [("interleaved", &table), ("bound to the last", &own)] {
        let mut counts = vec![0; machine.topology().nodes.len()];
        objects.iter().filter_map(|&object| node_of(object)).for_each(|node| counts[node.index()] += 1);
        println!("{name}: chunks on each node: {counts:?}");
    }
    for object in table.into_iter().chain(own) {
        // SAFETY: lent above with this layout, and not used any more.
        unsafe { heap.free(object, layout) }?;
    }
    heap.drain();
    heap.validate()?;
    println!("{}", machine.frames().numastat());
    Ok(())
}
