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

#[test]
#[cfg_attr(miri, ignore = "thousands of objects")]
fn stacks_are_deep_as_far_as_all_of_them_may_be() {
    const CPUS: usize = 8;
    let heap = heap::<Checked>(16 << 10, CPUS);
    let deep = |pool: &ObjectPool| SizeClass::all().map(|class| pool.deep_bytes_of(class)).sum::<usize>();
    let longest = 128 << 10;
    let mut lent = Vec::new();
    for cpu in 0..CPUS {
        Sim::become_cpu(cpu as u32);
        for bytes in [512, 1024, 2048, 4096, 8192] {
            lent.extend((0..400).map(|_| (heap.alloc_address(layout(bytes)).unwrap(), bytes)));
        }
        let pool = &heap.pools.all()[cpu];
        assert_eq!(pool.deep_bytes.get(), deep(pool));
        assert!(deep(pool) < Checked::DEEP_BYTES / DEEP_SHARE + longest, "{cpu}: {}", deep(pool));
    }
    let of_cpu: Vec<usize> = heap.pools.all().iter().map(deep).collect();
    assert_eq!(heap.deep.bytes.load(Ordering::Relaxed), of_cpu.iter().sum());
    let is_deep = of_cpu[0] >= Checked::DEEP_BYTES / DEEP_SHARE;
    assert!(is_deep == cfg!(feature = "deep-pools") && of_cpu[CPUS - 1] == 0, "{of_cpu:?}");
    // A copy with one CPU has what that one has.
    heap.deep.in_copy(heap.pools.all().first());
    assert_eq!(heap.deep.bytes.load(Ordering::Relaxed), of_cpu[0]);
    heap.deep.bytes.store(of_cpu.iter().sum(), Ordering::Relaxed);
    lent.iter().for_each(|&(address, bytes)| heap.free_address(address, layout(bytes)).unwrap());
    for cpu in 0..CPUS {
        Sim::become_cpu(cpu as u32);
        heap.drain_cpu();
    }
    Sim::become_cpu(0);
    heap.drain();
    assert_eq!(heap.deep.bytes.load(Ordering::Relaxed), 0);
    assert_eq!(heap.validate().unwrap().lent(), 0);
}
