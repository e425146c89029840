//! A machine for the unit tests: each thread says which CPU it is, and may say that it is an interrupt.
#![allow(unsafe_code)]

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::sync::Mutex;
use std::vec::Vec;

use crate::backing::Backing;
use crate::carve::Metadata;
use crate::config::Config;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frames::Frames;
use crate::heap::Heap;
use crate::id::{CpuId, NodeId};
use crate::kind::ZoneKind;
use crate::platform::{Context, Platform};

std::thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::Task) };
    static LEAVING: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// The bytes of a slab in tests: under Miri a frame. A slab's descriptor has a byte and a bit for each slot, which are
/// made one by one there.
pub(crate) const SLAB_BYTES: usize = if cfg!(miri) { 4096 } else { 32 << 10 };

/// The levels as users have them, but for the size of slabs under Miri.
#[cfg(not(miri))]
pub(crate) use crate::config::{Checked, Checked as Roomy, Fast};
#[cfg(miri)]
pub(crate) use small::{Checked, Fast, Roomy};

#[cfg(miri)]
mod small {
    use crate::config::Config;

    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct Level<const CHECKED: bool, const SLAB_BYTES: usize>;
    impl<const CHECKED: bool, const SLAB_BYTES: usize> Config for Level<CHECKED, SLAB_BYTES> {
        const CHECKED: bool = CHECKED;
        // Of an arena everything is looked at, also what is not there.
        const HUGE_ORDER: u32 = 6;
        const ARENA_ORDER: u32 = 11;
        const POOL_FRAMES: u32 = 16;
        const REFILL_FRAMES: u32 = 8;
        const DENSE_BELOW_FRAMES: u32 = 16;
        const SLAB_BYTES: usize = SLAB_BYTES;
        const DEPOT_ROUNDS: usize = 128;
    }

    pub(crate) type Checked = Level<true, { super::SLAB_BYTES }>;
    pub(crate) type Fast = Level<false, { super::SLAB_BYTES }>;
    /// With room for several large objects in a slab.
    pub(crate) type Roomy = Level<true, { 32 << 10 }>;
}

/// Whether all of `bytes` are `byte`: by one comparison, which Miri makes as a whole.
pub(crate) fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes == std::vec![byte; bytes.len()]
}

/// The machine.
pub(crate) struct Sim;

// SAFETY: a thread is one CPU while it says so, `BUSY` is that thread's own, and the tests give each thread a number of
// its own.
unsafe impl Platform for Sim {
    type Lock = spin::Mutex<()>;

    fn enter() -> Option<CpuId> {
        (!BUSY.replace(true)).then(|| CpuId::new(CPU.get()))
    }

    fn leave(_cpu: CpuId) {
        BUSY.set(false);
        // What it does itself is nothing to do it for.
        LEAVING.with(|hook| hook.try_borrow_mut().iter().for_each(|hook| hook.iter().for_each(|hook| hook())));
    }

    fn context() -> Context {
        CONTEXT.get()
    }
}

impl Sim {
    /// From now on this thread is CPU `cpu`.
    pub(crate) fn become_cpu(cpu: u32) {
        CPU.set(cpu);
    }

    /// From now on `hook` runs whenever this thread has let go of its CPU: somebody who always comes in between.
    pub(crate) fn when_leaving(hook: Option<Box<dyn Fn()>>) {
        LEAVING.set(hook);
    }

    /// Runs `work` as an interrupt that stopped this CPU in the middle of the allocator.
    pub(crate) fn interrupting<R>(work: impl FnOnce() -> R) -> R {
        let (busy, context) = (BUSY.replace(true), CONTEXT.replace(Context::Nmi));
        let result = work();
        CONTEXT.set(context);
        BUSY.set(busy);
        result
    }
}

/// Names frames `start..start + count`.
pub(crate) fn span(start: usize, count: usize) -> FrameSpan {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).unwrap()
}

/// Bytes that live as long as the program, and are known to: a static has them.
pub(crate) fn bytes(count: usize) -> Metadata<'static> {
    let bytes = Box::into_raw(Box::<[u8]>::new_uninit_slice(count));
    KEPT.lock().unwrap().push(Kept(bytes));
    // SAFETY: just made, never freed, and reached through this reference alone.
    Metadata::new(unsafe { &mut *bytes })
}

/// As [`bytes`], known to be zero: what is not written costs no time where every write is checked.
fn zeroes(count: usize) -> Metadata<'static> {
    let bytes = Box::into_raw(Box::<[u8]>::new_zeroed_slice(count));
    KEPT.lock().unwrap().push(Kept(bytes));
    // SAFETY: just made, never freed, and reached through this reference alone.
    let bytes = unsafe { &mut *bytes };
    // SAFETY: made of zeros.
    unsafe { Metadata::zeroed(bytes) }
}

/// Bytes for a heap's own state.
pub(crate) fn metadata_of_heap(count: usize) -> Metadata<'static> {
    if cfg!(miri) { zeroes(count) } else { bytes(count) }
}

/// What [`bytes`] has made.
static KEPT: Mutex<Vec<Kept>> = Mutex::new(Vec::new());

struct Kept(#[expect(dead_code, reason = "held, so that it is no leak")] *mut [MaybeUninit<u8>]);

// SAFETY: nobody uses the pointer.
unsafe impl Send for Kept {}

/// An instance of one node that manages `memory` as one range, on `cpus` CPUs.
pub(crate) fn machine<C: Config>(memory: FrameSpan, cpus: usize) -> Frames<'static, Sim, C> {
    let frames = Frames::<Sim, C>::new();
    frames.init(memory, cpus, 1, bytes(Frames::<Sim, C>::base_metadata_size(memory, cpus, 1))).unwrap();
    add(&frames, NodeId::ZERO, ZoneKind::Normal, memory, &[]);
    frames
}

/// Adds memory with as much metadata as it asks for.
pub(crate) fn add<C: Config>(
    frames: &Frames<'static, Sim, C>,
    node: NodeId,
    kind: ZoneKind,
    memory: FrameSpan,
    reserved: &[FrameSpan],
) {
    let metadata = bytes(Frames::<Sim, C>::memory_metadata_size(memory));
    frames.add_memory(node, kind, memory, reserved, metadata).unwrap();
}

/// A heap over `count` frames of real memory, whose first is frame 0, on `cpus` CPUs of one node.
pub(crate) fn heap<C: Config>(count: usize, cpus: usize) -> &'static Heap<'static, Sim, C> {
    heap_at(count, cpus, 0)
}

/// As [`heap`], with frame 0 so many bytes after a multiple of 16 MiB.
pub(crate) fn heap_at<C: Config>(count: usize, cpus: usize, skew: usize) -> &'static Heap<'static, Sim, C> {
    heap_over(keep(machine(span(0, count), cpus)), span(0, count), cpus, 1, skew, None)
}

/// A heap over two nodes of `count` frames each; every second CPU is on the second.
pub(crate) fn heap_of_two_nodes<C: Config>(count: usize, cpus: u32) -> &'static Heap<'static, Sim, C> {
    let memory = span(0, 2 * count);
    let frames = Frames::<Sim, C>::new();
    let base = bytes(Frames::<Sim, C>::base_metadata_size(memory, cpus as usize, 2));
    frames.init(memory, cpus as usize, 2, base).unwrap();
    for node in 0..2 {
        add(&frames, NodeId::new(node).unwrap(), ZoneKind::Normal, span(node as usize * count, count), &[]);
    }
    let heap = heap_over(keep(frames), memory, cpus as usize, 2, 0, None);
    for cpu in 0..cpus {
        let node = NodeId::new(cpu % 2).unwrap();
        heap.frames().set_cpu_node(CpuId::new(cpu), node).unwrap();
        heap.set_cpu_node(CpuId::new(cpu), node).unwrap();
    }
    heap
}

/// A heap over the frames of an instance inside `memory`, behind which somebody may stand.
pub(crate) fn heap_over<C: Config>(
    frames: &'static Frames<'static, Sim, C>,
    memory: FrameSpan,
    cpus: usize,
    nodes: usize,
    skew: usize,
    backing: Option<Backing>,
) -> &'static Heap<'static, Sim, C> {
    let count = memory.count().get();
    let heap: &'static Heap<'static, Sim, C> = keep(match backing {
        None => Heap::new(frames),
        Some(backing) => Heap::with_backing(frames, backing),
    });
    let layout = core::alloc::Layout::from_size_align(count * C::FRAME_BYTES + skew, 16 << 20).unwrap();
    let make = if C::FRESH_FRAMES_ARE_ZERO { std::alloc::alloc_zeroed } else { std::alloc::alloc };
    // SAFETY: it has a size.
    let base = unsafe { make(layout) };
    let base = base.wrapping_add(skew);
    KEPT.lock().unwrap().push(Kept(core::ptr::slice_from_raw_parts_mut(base.cast(), 1)));
    let metadata = metadata_of_heap(Heap::<Sim, C>::metadata_size(memory, cpus, nodes));
    // SAFETY: the memory was made for this instance, and has room for all its frames.
    unsafe { heap.init(base, memory, cpus, nodes, metadata) }.unwrap();
    heap
}

/// Keeps a thing as long as the program.
pub(crate) fn keep<T>(thing: T) -> &'static T {
    let thing = Box::into_raw(Box::new(thing));
    KEPT.lock().unwrap().push(Kept(core::ptr::slice_from_raw_parts_mut(thing.cast(), 1)));
    // SAFETY: just made, never freed.
    unsafe { &*thing }
}
