//! The heap on a machine of a few frames: what CPUs' pools hold, what they are asked for, and frees from elsewhere.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr;
use std::sync::Arc;
use std::vec::Vec;

use super::machine::{Bytes, Cpus, Machine, on_cpu, span};
use super::runner::check;
use crate::config::Config;
use crate::heap::Heap;
use crate::id::NodeId;
use crate::size_class::SizeClass;
use crate::sync::{AtomicUsize, Ordering, OwnerU32, mutant};

/// Trees of 8 frames, arenas of 64; a slab is one frame.
struct Slabs;
impl Config for Slabs {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
    const FRAME_BYTES: usize = 2048;
    const SLAB_BYTES: usize = 2048;
    const NUMA: bool = false;
}

/// Bytes of an object of which a slab has two.
const HALF: usize = 1024;
/// Bytes of an object of which a slab has four.
const QUARTER: usize = 512;

const FRAMES: usize = 64;
/// What the largest slabs of this geometry are aligned to.
const ALIGN: usize = 128 << 10;

/// A heap whose CPU 0 has a pool, while the others come without one.
struct Objects {
    heap: Heap<'static, Cpus, Slabs>,
    base: usize,
    layout: Layout,
    /// One word an object's place, written by whoever has the object.
    contents: Vec<OwnerU32>,
    // What the heap stands on.
    _machine: Arc<Machine<Slabs>>,
    _bytes: [Bytes; 2],
}

impl Objects {
    /// A heap from which objects of `bytes` are requested.
    fn new(bytes: usize) -> Arc<Self> {
        Self::over(Machine::<Slabs>::new(0, FRAMES, 1), Layout::from_size_align(bytes, 8).unwrap())
    }

    /// Apart from the making of the machine: the stack of a model's thread does not have room for both.
    #[inline(never)]
    fn over(machine: Arc<Machine<Slabs>>, layout: Layout) -> Arc<Self> {
        // SAFETY: the machine stays where it is, and goes after the heap, whose threads have ended by then.
        let frames = unsafe { &*ptr::from_ref(&machine.frames) };
        let heap = Heap::new(frames);
        let memory = span(0, FRAMES);
        let (bytes, metadata) = Bytes::new(Heap::<Cpus, Slabs>::metadata_size(memory, 1, 1));
        let (room, place) = Bytes::with_address(FRAMES * Slabs::FRAME_BYTES + ALIGN);
        let base = place.wrapping_add(place.align_offset(ALIGN));
        // SAFETY: so many bytes were made just now, and go with the heap.
        unsafe { heap.init(base, memory, 1, 1, metadata) }.unwrap();
        let contents = (0..4 * FRAMES).map(|_| OwnerU32::new(0)).collect();
        Arc::new(Self { heap, base: base.addr(), layout, contents, _machine: machine, _bytes: [bytes, room] })
    }

    fn class(&self) -> SizeClass {
        SizeClass::of(self.layout).unwrap()
    }

    /// How many objects CPU 0's pool holds. For CPU 0.
    fn pooled(&self) -> usize {
        self.heap.pools.all()[0].stacks.len(self.class())
    }

    /// Writes into an object, whose owner the caller is.
    fn write(&self, object: usize) {
        self.contents[(object - self.base) / self.layout.size()].set(1);
    }

    fn alloc(&self) -> usize {
        let object = self.heap.alloc_address(self.layout).unwrap();
        self.write(object);
        object
    }

    /// Writes into an object for the last time and frees it.
    fn free(&self, object: usize) {
        self.write(object);
        self.heap.free_address(object, self.layout).expect("a right free was refused");
    }

    /// Everything adds up, and comes home. The caller is CPU 0, and nobody else is left.
    fn finish(&self) {
        let census = self.heap.validate().unwrap();
        assert_eq!(census.lent(), 0);
        self.heap.drain_cpu();
        self.heap.trim();
        assert_eq!(self.heap.census().class(self.class()).slabs, 0, "a slab was forgotten");
        self.heap.validate().unwrap();
    }
}

/// Threads: CPU 0, which frees the one object of a slab into its pool and gives back what that holds, as a thread does
/// that ends; and CPU 1, which frees the other object and asks for one.
///
/// Property: whatever is lent again is nobody else's, with what its last owner did done; every free is accepted; all
/// comes home.
///
/// * `put_relaxed`: an object is lent again before its last owner is done with it;
/// * `empty_unseen`: the slab that both have emptied is never released.
fn thread_exit() {
    let objects = Objects::new(HALF);
    let out = [objects.alloc(), objects.alloc()];
    let ending = on_cpu(0, {
        let objects = objects.clone();
        move || {
            objects.free(out[0]);
            objects.heap.drain_cpu();
        }
    });
    let other = on_cpu(1, {
        let objects = objects.clone();
        move || {
            objects.free(out[1]);
            objects.alloc()
        }
    });
    ending.join().unwrap();
    objects.free(other.join().unwrap());
    objects.finish();
}

#[test]
fn a_thread_ends_while_its_objects_are_freed_elsewhere() {
    check("heap_exit", &["put_relaxed", "empty_unseen"], thread_exit);
}

/// Threads: CPU 0, which has an object in its pool, frees another, for which it must spill, and honours what it was
/// asked for; and CPU 1, which asks, empties the depot and asks for an object. The slab has a free slot all the time,
/// so nothing but the bit tells that another came home.
///
/// Property: whatever is lent again is nobody else's, with what its last owner did done; all comes home.
///
/// * `put_relaxed`: an object is lent again before its last owner is done with it.
fn spill() {
    let objects = Objects::new(QUARTER);
    let out = [objects.alloc(), objects.alloc()];
    objects.free(out[0]);
    assert_eq!(objects.pooled(), 1);
    objects.heap.pools.all()[0].stacks.set_limit(objects.class(), 1);
    let owner = on_cpu(0, {
        let (objects, second) = (objects.clone(), out[1]);
        move || {
            objects.free(second);
            objects.heap.poll();
        }
    });
    let other = on_cpu(1, {
        let objects = objects.clone();
        move || {
            objects.heap.request_drain();
            objects.heap.empty_depot(NodeId::ZERO, objects.class());
            objects.alloc()
        }
    });
    owner.join().unwrap();
    objects.free(other.join().unwrap());
    objects.finish();
}

#[test]
fn a_pool_spills_while_it_is_asked_to_drain() {
    check("heap_spill", &["put_relaxed"], spill);
}

/// Threads: two that ask for a drain at once.
///
/// Property: each request counts, so that a pool that has honoured the first knows of the second.
///
/// * `request_plain`: of two requests at once one takes the other back.
fn requests() {
    let objects = Objects::new(HALF);
    let other = on_cpu(1, {
        let objects = objects.clone();
        move || objects.heap.request_drain()
    });
    objects.heap.request_drain();
    other.join().unwrap();
    assert_eq!(objects.heap.drain_requests.load(Ordering::Relaxed), 2, "a request was lost");
}

#[test]
fn no_request_to_drain_is_lost() {
    check("heap_requests", &["request_plain"], requests);
}

/// Threads: CPU 0, which lends an object and says so, and lends and frees another, perhaps the same; and CPU 1, which
/// frees the first if it has been told.
///
/// Property: no right free is refused, since what orders the hand-over of an object orders its mark too.
///
/// * `mailed_relaxed`: the message orders nothing, so the object may be freed before it is seen that it was lent: the
///   duty of whoever hands an object on, shown to be needed;
/// * `put_relaxed`: the mark of the last owner's free comes after that of the next loan.
fn mailed() {
    let objects = Objects::new(QUARTER);
    let kept = objects.alloc();
    assert_eq!(objects.pooled(), 1);
    let mail = Arc::new(AtomicUsize::new(0));
    let receiver = on_cpu(1, {
        let (objects, mail) = (objects.clone(), mail.clone());
        move || {
            let sent = mail.load(if mutant("mailed_relaxed") { Ordering::Relaxed } else { Ordering::Acquire });
            if sent != 0 {
                objects.free(sent);
            }
            sent != 0
        }
    });
    let sent = objects.alloc();
    mail.store(sent, Ordering::Release);
    let again = objects.alloc();
    objects.free(again);
    objects.free(kept);
    if !receiver.join().unwrap() {
        objects.free(sent);
    }
    objects.finish();
}

#[test]
fn an_object_that_is_sent_on_is_freed_elsewhere() {
    check("heap_mailed", &["mailed_relaxed", "put_relaxed"], mailed);
}
