//! A tiny heap: frees that find the lock of their region held.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use std::sync::Arc;

use super::machine::{Bytes, on_cpu};
use super::runner::check;
use crate::error::BadFree;
use crate::platform::Context;
use crate::tiny::TinyHeap;

const REGION_BYTES: usize = 2048;
/// Where a region lies decides how it is cut, and each execution of a model is to be the same as the last.
const ALIGN: usize = 4096;
const LAYOUT: Layout = Layout::new::<[u8; 100]>();

std::thread_local! {
    // loom's threads are coroutines on the thread that runs the model.
    static FAULTS: Cell<u32> = const { Cell::new(0) };
}

static HOOK: fn(BadFree) = |_| FAULTS.set(FAULTS.get() + 1);

/// A heap of one region, and the bytes it lives in.
struct Tiny {
    heap: TinyHeap<spin::Mutex<()>>,
    // After `heap`, whose memory they are.
    _bytes: Bytes,
}

impl Tiny {
    fn new() -> Arc<Self> {
        let (bytes, place) = Bytes::with_address(REGION_BYTES + ALIGN);
        let start = place.wrapping_add(place.align_offset(ALIGN));
        let region = core::ptr::slice_from_raw_parts_mut(start, REGION_BYTES);
        // Whoever finds the lock held has interrupted its holder.
        let heap = TinyHeap::with_context(|| Context::Nmi);
        heap.set_fault_hook(&HOOK);
        FAULTS.set(0);
        // SAFETY: the bytes are kept as long as the heap, which alone has them.
        unsafe { heap.add_region(region) }.unwrap();
        Arc::new(Self { heap, _bytes: bytes })
    }

    /// An allocation, by its address.
    fn alloc(&self) -> usize {
        self.heap.alloc(LAYOUT).unwrap().addr().get()
    }

    fn free(&self, address: usize) -> bool {
        let memory = NonNull::new(core::ptr::without_provenance_mut(address)).unwrap();
        // SAFETY: nobody uses it.
        unsafe { self.heap.free(memory, LAYOUT) }.is_ok()
    }
}

/// Threads: two that free, of which one finds the lock held.
///
/// Property: when both are done nothing waits for a holder who may never come. Looked at without taking the lock, which
/// would settle what was left.
///
/// * `freer_fence`, `holder_fence`: as for frames, either may see the other's old word.
fn two_frees() {
    let tiny = Tiny::new();
    let objects = [tiny.alloc(), tiny.alloc()];
    let other = on_cpu(1, {
        let tiny = tiny.clone();
        move || assert!(tiny.free(objects[1]))
    });
    assert!(tiny.free(objects[0]));
    other.join().unwrap();
    assert!(!tiny.heap.is_pending(), "an allocation stays behind");
    tiny.heap.validate().unwrap();
    assert_eq!(tiny.heap.census().unwrap().allocations, 0);
}

#[test]
fn nothing_stays_pending_in_a_tiny_heap() {
    check("tiny_pending", &["freer_fence", "holder_fence"], two_frees);
}

/// Threads: two that free the same allocation.
///
/// Property: it is freed once, and of the two frees one is refused: at the call, or, if it was checked before the other
/// had the lock, when it is taken along.
///
/// * `posted_without_rmw`: if both find the lock held, neither sees that the other has left it already.
fn freed_twice() {
    let tiny = Tiny::new();
    let object = tiny.alloc();
    let other = on_cpu(1, {
        let tiny = tiny.clone();
        move || tiny.free(object)
    });
    // Holds the lock for a while, so that both can find it held.
    let holder = on_cpu(2, {
        let tiny = tiny.clone();
        move || tiny.heap.census().map(drop)
    });
    let _ = tiny.free(object);
    let _ = (other.join().unwrap(), holder.join().unwrap());
    tiny.heap.validate().unwrap();
    assert_eq!(tiny.heap.census().unwrap().allocations, 0);
    // The next request tells what has come to light meanwhile.
    tiny.alloc();
    assert_eq!(FAULTS.get(), 1);
}

#[test]
fn an_allocation_freed_twice_at_once_is_freed_once() {
    check("tiny_twice", &["posted_without_rmw"], freed_twice);
}
