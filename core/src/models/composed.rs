//! The whole heap, all its layers at once: what the parts do to one another in long runs of several CPUs.
//!
//! Each CPU makes some dozens of random requests: small and large objects, to be freed here, by another CPU, or by one that
//! interrupts; moves; drains, trims, shrinkers that come and go; threads that end and others that take their place. All of
//! an object's bytes say whose it is, so that nobody else can have it unseen.
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
use super::machine::{Bytes, Cpus, Machine, become_cpu, interrupting, span};
use super::runner::{check, exploring};
use crate::config::Config;
use crate::error::AllocError;
use crate::heap::Heap;
use crate::reclaim::{Shrink, Shrinker};
use crate::size_class::SizeClass;

/// Trees of 8 frames, arenas of 64; a slab is a frame, or two or four.
struct Small;
impl Config for Small {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
    const FRAME_BYTES: usize = 2048;
    const SLAB_BYTES: usize = 2048;
    const LARGE_CACHE_BYTES: usize = 8 * 2048;
    const NUMA: bool = false;
}

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
struct Idle {
    world: *const World,
    objects: Mutex<Vec<Object>>,
    /// Whether it must not be asked.
    gone: AtomicBool,
}

// SAFETY: the world outlives every thread, and is shared as it is.
unsafe impl Send for Idle {}
// SAFETY: as above.
unsafe impl Sync for Idle {}

impl Shrink for Idle {
    fn count(&self) -> usize {
        assert!(!self.gone.load(Ordering::Relaxed), "asked after it had been removed and idle");
        self.objects.lock().unwrap().len()
    }

    fn scan(&self, target: usize) -> usize {
        let mut given = 0;
        while given < target {
            let Some(object) = self.objects.lock().unwrap().pop() else { break };
            // SAFETY: made with the world, which is there for as long as anybody asks.
            unsafe { &*self.world }.free(object);
            given += 1;
        }
        assert!(!self.gone.load(Ordering::Relaxed), "still asked after it was idle");
        given
    }
}

/// A heap, and what its CPUs share.
struct World {
    heap: Heap<'static, Cpus, Small>,
    /// Objects on their way from one CPU to another.
    post: Mutex<Vec<Object>>,
    idle: [Idle; 2],
    shrinkers: Vec<Shrinker<'static>>,
    // What the heap stands on.
    machine: std::sync::Arc<Machine<Small>>,
    _bytes: [Bytes; 2],
}

impl World {
    /// A world that stays until [`end`](Self::end).
    fn new(frames: usize) -> &'static Self {
        let machine = Machine::<Small>::new(0, frames, CPUS as usize);
        // SAFETY: the machine stays where it is, and goes after the heap, whose threads have ended by then.
        let of_heap = unsafe { &*ptr::from_ref(&machine.frames) };
        let heap = Heap::new(of_heap);
        let memory = span(0, frames);
        let (bytes, metadata) = Bytes::new(Heap::<Cpus, Small>::metadata_size(memory, CPUS as usize, 1));
        let (room, place) = Bytes::with_address(frames * Small::FRAME_BYTES + ALIGN);
        let base = place.wrapping_add(place.align_offset(ALIGN));
        // SAFETY: so many bytes were made just now, and go with the heap.
        unsafe { heap.init(base, memory, CPUS as usize, 1, metadata) }.unwrap();
        let idle = || Idle { world: ptr::null(), objects: Mutex::default(), gone: AtomicBool::new(false) };
        let (idle, post) = ([idle(), idle()], Mutex::default());
        let world =
            Box::leak(Box::new(Self { heap, post, idle, shrinkers: Vec::new(), machine, _bytes: [bytes, room] }));
        let at = ptr::from_ref(world);
        world.idle.iter_mut().for_each(|idle| idle.world = at);
        // SAFETY: as `end` says they go with the world.
        let idle: &'static [Idle; 2] = unsafe { &*ptr::from_ref(&world.idle) };
        world.shrinkers = idle.iter().map(|idle| Shrinker::new(idle)).collect();
        let world: &'static Self = world;
        world.shrinkers.iter().for_each(|shrinker| world.heap.add_shrinker(shrinker).unwrap());
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
        // SAFETY: it goes with the world, after the last thread.
        let shrinker: &'static Shrinker<'static> = unsafe { &*ptr::from_ref(&self.shrinkers[which]) };
        if self.heap.remove_shrinker(shrinker).is_err() {
            // Another CPU is at it.
            return;
        }
        while !shrinker.is_idle() {
            give_way();
        }
        let idle = &self.idle[which];
        idle.gone.store(true, Ordering::Relaxed);
        let objects = core::mem::take(&mut *idle.objects.lock().unwrap());
        objects.into_iter().for_each(|object| self.free(object));
        idle.gone.store(false, Ordering::Relaxed);
        self.heap.add_shrinker(shrinker).unwrap();
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
            self.machine.frames.drain_cpu();
        }
        let census = self.heap.validate().unwrap();
        assert_eq!(SizeClass::all().map(|class| census.class(class).slabs).sum::<usize>(), 0, "a slab was forgotten");
        self.machine.frames.validate().unwrap();
        let described = census.descriptor_bytes / Small::FRAME_BYTES;
        assert_eq!(self.machine.frames.census().available(), frames - described, "frames are lost");
        // SAFETY: from `Box::leak` in `new`; no thread is left that could have it.
        drop(unsafe { Box::from_raw(ptr::from_ref(self).cast_mut()) });
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
fn live(world: &World, plan: Plan) {
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
    world.machine.frames.drain_cpu();
}

fn run(plan: Plan) {
    let world = World::new(plan.frames);
    let frames = world.machine.frames.census().available();
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
    run(Plan { frames: 192, steps: 40, lives: 1, most: 12, kinds: 32 });
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
    run(Plan { frames: 28, steps: 40, lives: 1, most: 16, kinds: 42 });
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
    run(Plan { frames: 96, steps: 10, lives: 4, most: 8, kinds: 32 });
}

#[test]
fn threads_come_and_go() {
    check("heap_lives", &["empty_unseen"], lives);
}
