use core::cell::Cell;

use super::*;
use crate::backing::Backing;
use crate::frame::Pfn;
use crate::frames::Frames;
use crate::id::CpuId;
use crate::kind::ZoneKind;
use crate::testing::{Checked, Fast, Sim, add, bytes, heap, heap_of_two_nodes, heap_over, keep, span};

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

/// The node on which an address lies.
fn node_of<C: Config>(heap: &Heap<'static, Sim, C>, address: usize) -> usize {
    let frame = address.wrapping_sub(heap.window.base()) / C::FRAME_BYTES;
    heap.frames.node_of(Pfn::new(frame)).unwrap().index()
}

/// A small one, a large one, one that takes many frames.
const SIZES: [usize; 4] = [40, 3000, 100_000, 1_000_000];

fn places<C: Config>(policy: Policy, count: usize) -> Vec<usize> {
    let heap = heap_of_two_nodes::<C>(2048, 2);
    let placed = heap.placed(policy);
    let mut all = Vec::new();
    for size in SIZES {
        let objects: Vec<usize> = (0..count).map(|_| placed.alloc_address(layout(size)).unwrap()).collect();
        let nodes: Vec<usize> = objects.iter().map(|&address| node_of(heap, address)).collect();
        objects.iter().for_each(|&address| heap.free_address(address, layout(size)).unwrap());
        all.push(nodes);
    }
    assert!(all.iter().all(|nodes| *nodes == all[0]), "{all:?}");
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
    heap.frames().validate().unwrap();
    all.swap_remove(0)
}

#[test]
#[cfg_attr(miri, ignore = "more than ten minutes: four heaps of two nodes")]
fn objects_lie_where_the_policy_says() {
    let both = NodeMask::of(node(0)).with(node(1));
    assert_eq!(places::<Checked>(Policy::Bind(NodeMask::of(node(1))), 3), [1, 1, 1]);
    assert_eq!(places::<Checked>(Policy::Preferred(node(1)), 3), [1, 1, 1]);
    assert_eq!(places::<Checked>(Policy::Local, 3), [0, 0, 0]);
    assert_eq!(places::<Fast>(Policy::Interleave(both), 4), [0, 1, 0, 1]);
}

#[test]
fn what_is_bound_to_a_full_node_is_refused_and_what_prefers_it_goes_elsewhere() {
    let heap = heap_of_two_nodes::<Checked>(512, 2);
    let bound = heap.placed(Policy::Bind(NodeMask::of(node(1))));
    let held: Vec<usize> = std::iter::from_fn(|| bound.alloc_address(layout(100_000)).ok()).collect();
    assert!(!held.is_empty() && held.iter().all(|&address| node_of(heap, address) == 1));
    assert_eq!(bound.alloc_address(layout(100_000)), Err(AllocError::NoMemory));
    let preferred = heap.placed(Policy::Preferred(node(1)));
    let elsewhere = preferred.alloc_address(layout(100_000)).unwrap();
    assert_eq!(node_of(heap, elsewhere), 0);
    heap.free_address(elsewhere, layout(100_000)).unwrap();
    let nowhere = heap.placed(Policy::Bind(NodeMask::of(node(7))));
    assert_eq!(nowhere.alloc_address(layout(8)), Err(AllocError::NoMemory), "there is no such node");
    held.iter().for_each(|&address| heap.free_address(address, layout(100_000)).unwrap());
    assert!(bound.alloc_address(layout(100_000)).map(|address| heap.free_address(address, layout(100_000))).is_ok());
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

#[test]
fn wrong_frees_of_placed_objects_are_refused() {
    let heap = heap_of_two_nodes::<Checked>(1024, 2);
    let placed = heap.placed(Policy::Bind(NodeMask::of(node(1))));
    for size in SIZES {
        let address = placed.alloc_address(layout(size)).unwrap();
        assert!(heap.free_address(address + 8, layout(size)).is_err());
        heap.free_address(address, layout(size)).unwrap();
        assert!(heap.free_address(address, layout(size)).is_err(), "{size}");
    }
    heap.drain();
    heap.validate().unwrap();
}

#[test]
fn on_one_node_a_policy_has_no_meaning() {
    let heap = heap::<Checked>(1024, 1);
    let placed = heap.placed(Policy::Interleave(NodeMask::ALL));
    let address = placed.alloc_address(layout(64)).unwrap();
    heap.free_address(address, layout(64)).unwrap();
    assert_eq!(placed.policy(), Policy::Interleave(NodeMask::ALL));
}

/// Frames of each node at first, and of each addition.
const PART: usize = 512;
const MOST_PARTS: usize = 12;

std::thread_local! {
    /// The instance that is given more, and how often somebody asked.
    static GROWING: Cell<Option<&'static Frames<'static, Sim, Checked>>> = const { Cell::new(None) };
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

/// A heap over two nodes, with somebody behind it who answers by `supply`.
fn growing(supply: fn(Layout, NodeMask) -> bool) -> &'static Heap<'static, Sim, Checked> {
    let memory = span(0, MOST_PARTS * PART);
    let frames = keep(Frames::<Sim, Checked>::new());
    frames.init(memory, 1, 2, bytes(Frames::<Sim, Checked>::base_metadata_size(memory, 1, 2))).unwrap();
    for number in 0..2 {
        add(frames, node(number), ZoneKind::Normal, span(number as usize * PART, PART), &[]);
    }
    frames.set_cpu_node(CpuId::new(0), node(0)).unwrap();
    GROWING.set(Some(frames));
    ASKED.set(0);
    heap_over(
        frames,
        memory,
        1,
        2,
        0,
        Some(Backing { supply, taken: None, released: || {}, describe: None, moves: None }),
    )
}

/// Gives the first node more, as long as there is any.
fn give_first(_: Layout, _: NodeMask) -> bool {
    let part = ASKED.get() + 2;
    ASKED.set(ASKED.get() + 1);
    if part == MOST_PARTS {
        return false;
    }
    add(GROWING.get().unwrap(), node(0), ZoneKind::Normal, span(part * PART, PART), &[]);
    true
}

/// Gives the first node more, for who can use it there.
fn give_first_if_wanted(layout: Layout, nodes: NodeMask) -> bool {
    nodes.contains(node(0)) && give_first(layout, nodes)
}

#[test]
#[cfg_attr(miri, ignore = "as many objects as memory has room for")]
fn memory_of_other_nodes_is_no_help_to_what_is_bound() {
    for (supply, most) in [(give_first_if_wanted as fn(_, _) -> _, 0), (give_first, 2)] {
        for size in [100, 100_000] {
            let heap = growing(supply);
            let bound = heap.placed(Policy::Bind(NodeMask::of(node(1))));
            let held: Vec<usize> = std::iter::from_fn(|| bound.alloc_address(layout(size)).ok()).collect();
            assert!(!held.is_empty() && held.iter().all(|&address| node_of(heap, address) == 1));
            assert_eq!(ASKED.get(), most, "asked in vain, as often as may be, for the one request that was refused");
            // What may lie anywhere is served as before, by all that there will be.
            let all: Vec<usize> = std::iter::from_fn(|| heap.alloc_address(layout(size)).ok()).collect();
            assert_eq!(ASKED.get(), MOST_PARTS - 1);
            assert!(all.len() * size > (MOST_PARTS - 2) * PART * Checked::FRAME_BYTES * 8 / 10);
            held.iter().chain(&all).for_each(|&address| heap.free_address(address, layout(size)).unwrap());
            heap.drain();
            assert_eq!(heap.validate().unwrap().lent(), 0);
        }
    }
}
