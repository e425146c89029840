use super::*;
use crate::frame::Pfn;
use crate::testing::{Checked, Fast, Sim, heap, heap_of_two_nodes};

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
