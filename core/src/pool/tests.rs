use std::vec::Vec;

use core::alloc::Layout;

use super::*;
use crate::config::Config;
use crate::heap::{Heap, HeapInvalid};
use crate::testing::{Checked, Fast, Sim, heap};

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

/// A heap for one CPU, its pool, and objects of a larger class that are lent.
fn heap_with_lent<C: Config>() -> (&'static Heap<'static, Sim, C>, &'static ObjectPool, SizeClass, Vec<usize>) {
    let heap = heap::<C>(1024, 1);
    let lent = (0..512).map(|_| heap.alloc_address(layout(1024)).unwrap()).collect();
    (heap, &heap.pools.all()[0], SizeClass::of(layout(1024)).unwrap(), lent)
}

fn assert_streams(pool: &ObjectPool) {
    let streams = SizeClass::all().filter(|&class| pool.is_stream(class)).count();
    assert_eq!(pool.streams.get() as usize, streams);
}

/// The spill by which a stack becomes a stream may be the one by which its CPU begins to leave.
#[test]
fn who_leaves_by_a_stacks_last_spill_before_it_streams_counts_it_once() {
    let (heap, pool, class, lent) = heap_with_lent::<Checked>();
    let mut left = lent.into_iter();
    // By now its depot has enough of this class.
    let depot = heap.depot(NodeId::ZERO).unwrap();
    while depot.welcomes(0, class, class.batch()) {}
    while pool.spills[class.index()].get() < NEW_STREAM - 1 {
        heap.free_address(left.next().unwrap(), layout(1024)).unwrap();
    }
    // What other classes have spilled meanwhile: the next spill is one too many.
    let others = LEAVING_BYTES - pool.unwanted.get() - class.bytes() as u32;
    pool.note_spill(&mut Sim::pin().unwrap(), others as usize, false);
    while !pool.is_leaving(&mut Sim::pin().unwrap()) {
        heap.free_address(left.next().unwrap(), layout(1024)).unwrap();
        assert_streams(pool);
    }
    left.for_each(|address| heap.free_address(address, layout(1024)).unwrap());
    assert_streams(pool);
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

#[test]
fn who_leaves_holds_nothing_of_a_larger_class_until_it_takes_again() {
    let (heap, pool, class, lent) = heap_with_lent::<Checked>();
    heap.drain_cpu();
    pool.note_spill(&mut Sim::pin().unwrap(), LEAVING_BYTES as usize, false);
    for &address in &lent[..256] {
        heap.free_address(address, layout(1024)).unwrap();
        assert!(heap.free_address(address, layout(1024)).is_err(), "it is not lent any more");
        assert!(heap.free_address(address + 8, layout(1024)).is_err(), "there is none");
    }
    assert!(pool.is_leaving(&mut Sim::pin().unwrap()) && pool.stacks.objects(class) == 0);
    assert_eq!(heap.validate().unwrap().lent(), 256);
    // Whoever takes stays, and what was given to the slabs is what he gets.
    while pool.is_leaving(&mut Sim::pin().unwrap()) {
        heap.alloc_address(layout(1024)).unwrap();
    }
    assert!(pool.stacks.objects(class) > 0);
}

/// Where no mark says that an object is lent no more, its slab does.
#[test]
fn what_who_leaves_frees_twice_is_told_once_and_goes_home_once() {
    let (heap, pool, _, lent) = heap_with_lent::<Fast>();
    heap.drain_cpu();
    pool.note_spill(&mut Sim::pin().unwrap(), LEAVING_BYTES as usize, false);
    for (number, &address) in lent.iter().enumerate() {
        heap.free_address(address, layout(1024)).unwrap();
        if number < 3 {
            heap.free_address(address, layout(1024)).unwrap();
            assert_eq!(heap.late_faults.load(Ordering::Relaxed), number as u64 + 1);
        }
    }
    assert!(pool.is_leaving(&mut Sim::pin().unwrap()));
    heap.drain();
    // All else adds up: what went home went once.
    assert_eq!(heap.validate().unwrap_err(), HeapInvalid::LateFaults(3));
    assert_eq!(heap.census().lent(), 0);
}
