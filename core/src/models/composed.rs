//! The whole heap, all its layers at once: what the parts do to one another in long runs of several CPUs.
//!
//! Each CPU makes some dozens of random requests: small and large objects, to be freed here, by another CPU, or by one
//! that interrupts; moves; drains, trims, shrinkers that come and go; threads that end and others that take their
//! place. All of an object's bytes say whose it is, so that nobody else can have it unseen.
//!
//! At the end everything comes home: the heap and its frames validate, no slab is left, and as many frames are free as
//! before, but for those that describe slabs.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::{self, NonNull};
use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, JoinHandle};

use super::give_way;
use super::machine::{Bytes, Cpus, become_cpu, interrupting, span};
use super::runner::{check, exploring};
use crate::config::Config;
use crate::error::AllocError;
use crate::frames::Frames;
use crate::heap::Heap;
use crate::id::{CpuId, NodeId};
use crate::kind::ZoneKind;
use crate::reclaim::{Shrink, Shrinker};
use crate::size_class::SizeClass;

/// Trees of 8 frames, arenas of 64; a slab is a frame, or two or four. On one node, or on two.
struct Small<const NUMA: bool>;
impl<const NUMA: bool> Config for Small<NUMA> {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
    const FRAME_BYTES: usize = FRAME_BYTES;
    const SLAB_BYTES: usize = FRAME_BYTES;
    const LARGE_CACHE_BYTES: usize = 8 * FRAME_BYTES;
    const NUMA: bool = NUMA;
}

const FRAME_BYTES: usize = 2048;
const CPUS: u32 = 3;
/// What the largest slabs of this geometry are aligned to.
const ALIGN: usize = 128 << 10;
/// Few sizes, so that CPUs meet in their slabs: of some a slab has two slots, of some many; the last are large.
const SIZES: [usize; 8] = [1024, 700, 1024, 200, 16, 1024, 3000, 9000];

/// What a run is like.
#[derive(Clone, Copy)]
struct Plan {
    frames: usize,
    /// Requests of each thread.
    steps: usize,
    /// Threads that one CPU has, one after the other.
    lives: usize,
    /// Objects that a thread has at most.
    most: usize,
    /// Of how many kinds of requests it picks: the last ones are about shrinkers.
    kinds: usize,
}

/// An object that somebody has, all of whose bytes are `stamp`.
struct Object {
    place: NonNull<u8>,
    layout: Layout,
    stamp: u8,
}

// SAFETY: who has it is alone with it.
unsafe impl Send for Object {}

/// A cache of objects that nobody needs.
struct Idle<const NUMA: bool> {
    world: *const World<NUMA>,
    registration: Option<Shrinker<'static>>,
    objects: Mutex<Vec<Object>>,
    /// Whether it must not be asked.
    gone: AtomicBool,
}

// SAFETY: the world outlives every thread, and is shared as it is.
unsafe impl<const NUMA: bool> Send for Idle<NUMA> {}
// SAFETY: as above.
unsafe impl<const NUMA: bool> Sync for Idle<NUMA> {}

impl<const NUMA: bool> Idle<NUMA> {
    fn new() -> Self {
        Self { world: ptr::null(), registration: None, objects: Mutex::default(), gone: AtomicBool::new(false) }
    }

    fn shrinker(&self) -> &'static Shrinker<'static> {
        // SAFETY: part of the world, which goes after the last thread.
        unsafe { &*ptr::from_ref(self.registration.as_ref().unwrap()) }
    }
}

impl<const NUMA: bool> Shrink for Idle<NUMA> {
    fn count(&self) -> usize {
        assert!(!self.gone.load(Ordering::Relaxed), "asked after it had been removed and idle");
        self.objects.lock().unwrap().len()
    }

    fn scan(&self, target: usize) -> usize {
        let mut given = 0;
        while given < target {
            let Some(object) = self.objects.lock().unwrap().pop() else { break };
            // SAFETY: the world is there for as long as anybody asks.
            unsafe { &*self.world }.free(object);
            given += 1;
        }
        assert!(!self.gone.load(Ordering::Relaxed), "still asked after it was idle");
        given
    }
}

/// A heap, and what its CPUs share.
struct World<const NUMA: bool> {
    heap: Heap<'static, Cpus, Small<NUMA>>,
    frames: &'static Frames<'static, Cpus, Small<NUMA>>,
    /// Objects on their way from one CPU to another.
    post: Mutex<Vec<Object>>,
    idle: [Idle<NUMA>; 2],
    /// What the heap stands on.
    _bytes: Vec<Bytes>,
}

impl<const NUMA: bool> World<NUMA> {
    /// Frames of which each node has an equal part.
    fn frames(count: usize) -> (Frames<'static, Cpus, Small<NUMA>>, Vec<Bytes>) {
        let frames = Frames::new();
        let (all, nodes) = (span(0, count), if NUMA { 2 } else { 1 });
        let (bytes, metadata) = Bytes::new(Frames::<Cpus, Small<NUMA>>::base_metadata_size(all, CPUS as usize, nodes));
        frames.init(all, CPUS as usize, nodes, metadata).unwrap();
        let mut kept = vec![bytes];
        for node in 0..nodes {
            let part = span(node * count / nodes, count / nodes);
            let (bytes, metadata) = Bytes::new(Frames::<Cpus, Small<NUMA>>::memory_metadata_size(part));
            let node = NodeId::new(node as u32).unwrap();
            frames.add_memory(node, ZoneKind::Normal, part, &[], metadata).unwrap();
            kept.push(bytes);
        }
        (frames, kept)
    }

    /// A world that stays until [`end`](Self::end).
    fn new(count: usize) -> &'static Self {
        let (frames, mut bytes) = Self::frames(count);
        let frames = Box::leak(Box::new(frames));
        let (memory, nodes) = (span(0, count), if NUMA { 2 } else { 1 });
        let heap = Heap::new(frames);
        let (of_heap, metadata) = Bytes::new(Heap::<Cpus, Small<NUMA>>::metadata_size(memory, CPUS as usize, nodes));
        let (room, place) = Bytes::with_address(count * FRAME_BYTES + ALIGN);
        bytes.extend([of_heap, room]);
        let base = place.wrapping_add(place.align_offset(ALIGN));
        // SAFETY: so many bytes were made just now, and go with the heap.
        unsafe { heap.init(base, memory, CPUS as usize, nodes, metadata) }.unwrap();
        if NUMA {
            let (last, node) = (CpuId::new(CPUS - 1), NodeId::new(1).unwrap());
            frames.set_cpu_node(last, node).unwrap();
            heap.set_cpu_node(last, node).unwrap();
        }
        Self::populate(Self { heap, frames, post: Mutex::default(), idle: [Idle::new(), Idle::new()], _bytes: bytes })
    }

    /// Puts the world where it stays, and its shrinkers into the heap.
    fn populate(world: Self) -> &'static Self {
        let world = Box::leak(Box::new(world));
        let at = ptr::from_ref(world);
        for idle in &mut world.idle {
            idle.world = at;
            // SAFETY: as `end` says it goes with the world, whose threads have ended by then.
            let shrink: &'static Idle<NUMA> = unsafe { &*ptr::from_ref(idle) };
            idle.registration = Some(Shrinker::new(shrink));
        }
        let world: &'static Self = world;
        world.idle.iter().for_each(|idle| world.heap.add_shrinker(idle.shrinker()).unwrap());
        world
    }

    fn alloc(&self, layout: Layout, zeroed: bool) -> Option<Object> {
        let got = if zeroed { self.heap.alloc_zeroed(layout) } else { self.heap.alloc(layout) };
        let place = match got {
            Ok(place) => place,
            Err(AllocError::NoMemory) => return None,
            Err(error) => panic!("{layout:?}: {error}"),
        };
        Some(stamped(place, layout))
    }

    fn free(&self, object: Object) {
        object.check(object.layout.size());
        // SAFETY: it was lent by this heap and is nobody else's.
        unsafe { self.heap.free(object.place, object.layout) }.expect("a right free was refused");
    }

    fn realloc(&self, object: Object, size: usize) -> Object {
        // SAFETY: as in `free`; the size is not 0.
        let Ok(place) = (unsafe { self.heap.realloc(object.place, object.layout, size) }) else { return object };
        let moved = Object { place, ..object };
        moved.check(size.min(object.layout.size()));
        stamped(place, Layout::from_size_align(size, object.layout.align()).unwrap())
    }

    /// Takes a shrinker and all it has away, and brings it back.
    fn renew(&self, which: usize) {
        let idle = &self.idle[which];
        if self.heap.remove_shrinker(idle.shrinker()).is_err() {
            // Another CPU is at it.
            return;
        }
        while !idle.shrinker().is_idle() {
            give_way();
        }
        idle.gone.store(true, Ordering::Relaxed);
        let objects = core::mem::take(&mut *idle.objects.lock().unwrap());
        objects.into_iter().for_each(|object| self.free(object));
        idle.gone.store(false, Ordering::Relaxed);
        self.heap.add_shrinker(idle.shrinker()).unwrap();
    }

    /// Everything comes home. No other thread is left.
    fn end(&'static self, frames: usize) {
        let idle = self.idle.iter().flat_map(|idle| core::mem::take(&mut *idle.objects.lock().unwrap()));
        let left = core::mem::take(&mut *self.post.lock().unwrap()).into_iter().chain(idle);
        left.for_each(|object| self.free(object));
        assert_eq!(self.heap.validate().unwrap().lent(), 0);
        for cpu in 0..CPUS {
            become_cpu(cpu);
            self.heap.drain_cpu();
            self.heap.trim();
            self.frames.drain_cpu();
        }
        let census = self.heap.validate().unwrap();
        assert_eq!(SizeClass::all().map(|class| census.class(class).slabs).sum::<usize>(), 0, "a slab was forgotten");
        self.frames.validate().unwrap();
        let described = census.descriptor_bytes / FRAME_BYTES;
        assert_eq!(self.frames.census().available(), frames - described, "frames are lost");
        let of_heap = ptr::from_ref(self.frames).cast_mut();
        // SAFETY: from `Box::leak` in `populate`; no thread is left that could have it.
        drop(unsafe { Box::from_raw(ptr::from_ref(self).cast_mut()) });
        // SAFETY: from `Box::leak` in `new`; the heap that had it has gone.
        drop(unsafe { Box::from_raw(of_heap) });
    }
}

/// An object that was just lent, with a stamp of its own.
fn stamped(place: NonNull<u8>, layout: Layout) -> Object {
    let stamp = pick(255) as u8 + 1;
    // SAFETY: it has so many bytes, and is the caller's.
    unsafe { place.write_bytes(stamp, layout.size()) };
    Object { place, layout, stamp }
}

impl Object {
    /// Nobody else has written into the first `size` bytes.
    fn check(&self, size: usize) {
        // SAFETY: it is the caller's, who has written so many bytes.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.place, size).as_ref() };
        assert!(bytes.iter().all(|&byte| byte == self.stamp), "another has written into {:?}", self.place);
    }
}

fn pick(end: usize) -> usize {
    thread_rng().gen_range(0..end)
}

fn layout() -> Layout {
    Layout::from_size_align(SIZES[pick(SIZES.len())], 8).unwrap()
}

/// One thread: makes its requests, gives away or frees what it has, and ends as a thread does.
fn live<const NUMA: bool>(world: &World<NUMA>, plan: Plan) {
    let mut own: Vec<Object> = Vec::new();
    for _ in 0..plan.steps {
        let full = own.len() >= plan.most;
        match pick(plan.kinds) {
            0..13 if !full => own.extend(world.alloc(layout(), pick(8) == 0)),
            0..18 if !own.is_empty() => world.free(own.swap_remove(pick(own.len()))),
            18..21 if !own.is_empty() => {
                let sent = own.swap_remove(pick(own.len()));
                world.post.lock().unwrap().push(sent);
            }
            21..24 => {
                let received = world.post.lock().unwrap().pop();
                received.into_iter().for_each(|object| world.free(object));
            }
            24 if !own.is_empty() => {
                let object = own.swap_remove(pick(own.len()));
                own.push(world.realloc(object, SIZES[pick(SIZES.len())]));
            }
            25 if !own.is_empty() => {
                let object = own.swap_remove(pick(own.len()));
                interrupting(|| world.free(object));
            }
            26 | 32..36 if !own.is_empty() => {
                let object = own.swap_remove(pick(own.len()));
                world.idle[pick(2)].objects.lock().unwrap().push(object);
            }
            27 | 36..42 => world.renew(pick(2)),
            28 => world.heap.drain(),
            29 => world.heap.poll(),
            30 => world.heap.trim(),
            _ => world.heap.drain_cpu(),
        }
    }
    for object in own {
        if pick(2) == 0 { world.free(object) } else { world.post.lock().unwrap().push(object) }
    }
    world.heap.drain_cpu();
    world.frames.drain_cpu();
}

fn run<const NUMA: bool>(plan: Plan) {
    let world = World::<NUMA>::new(plan.frames);
    let frames = world.frames.census().available();
    exploring(|| {
        let start = |cpu| {
            let life = move || {
                become_cpu(cpu);
                live(world, plan);
            };
            // One thread after the other, each on this CPU.
            thread::spawn(move || (0..plan.lives).for_each(|_| thread::spawn(life).join().unwrap()))
        };
        let threads: Vec<JoinHandle<()>> = (0..CPUS).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    world.end(frames);
}

/// Threads: three CPUs with room for all they want.
///
/// Property: as at the top.
///
/// * `refill_plain`: a slot that is freed while its slab's word is taken is lost, or has two owners;
/// * `empty_unseen`: the slab that several have emptied is never released;
/// * `fold_without_rmw`: of two CPUs that count frames at once one takes the other back.
fn plenty() {
    run::<false>(Plan { frames: 192, steps: 40, lives: 1, most: 12, kinds: 32 });
}

#[test]
fn a_heap_with_room_for_all() {
    check("heap_plenty", &["refill_plain", "empty_unseen", "fold_without_rmw"], plenty);
}

/// Threads: three CPUs that want more than there is, so that they reclaim all the time.
///
/// Property: as at the top, and nobody waits for ever.
///
/// * `shrinker_next_stays`: a shrinker is asked after it has gone;
/// * `refill_plain`: as above.
fn scarce() {
    run::<false>(Plan { frames: 28, steps: 40, lives: 1, most: 16, kinds: 42 });
}

#[test]
fn a_heap_with_too_little() {
    check("heap_scarce", &["shrinker_next_stays", "refill_plain"], scarce);
}

/// Threads: on each CPU four, one after the other.
///
/// Property: as at the top; what one thread has left in the pools the next one finds or the end does.
///
/// * `empty_unseen`: as above.
fn lives() {
    run::<false>(Plan { frames: 96, steps: 10, lives: 4, most: 8, kinds: 32 });
}

#[test]
fn threads_come_and_go() {
    check("heap_lives", &["empty_unseen"], lives);
}

/// Threads: three CPUs, two of them on one node and one on the other, on each of which there is too little for all.
///
/// Property: as at the top; what is freed far from home gets there.
///
/// * `refill_plain`: as above.
fn nodes() {
    run::<true>(Plan { frames: 128, steps: 40, lives: 1, most: 16, kinds: 32 });
}

#[test]
fn a_heap_on_two_nodes() {
    check("heap_nodes", &["refill_plain"], nodes);
}
