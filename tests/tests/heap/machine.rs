//! A heap on real memory, whose CPUs are numbers: a thread is the CPU that it says it is, so that one thread can lay an
//! object wherever a test wants it, and many can meet.

use std::alloc::Layout;
use std::cell::Cell;
use std::mem::MaybeUninit;

use pagemill::{
    Checked, Config, Context, CpuId, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId, Pfn, Platform, SizeClass,
    ZoneKind,
};

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// The machine.
pub(crate) struct Machine;

// SAFETY: a thread is one CPU while it says so, `BUSY` is its own, and no two threads say the same at once.
unsafe impl Platform for Machine {
    type Lock = spin::Mutex<()>;

    fn enter() -> Option<CpuId> {
        (!BUSY.replace(true)).then(|| CpuId::new(CPU.get()))
    }

    fn leave(_cpu: CpuId) {
        BUSY.set(false);
    }

    fn context() -> Context {
        Context::Task
    }
}

/// From now on this thread is CPU `cpu`.
pub(crate) fn become_cpu(cpu: u32) {
    CPU.set(cpu);
}

/// Runs `work` as CPU `cpu`.
pub(crate) fn on_cpu<R>(cpu: u32, work: impl FnOnce() -> R) -> R {
    let own = CPU.replace(cpu);
    let result = work();
    CPU.set(own);
    result
}

/// [`Checked`] for one node: a free looks at no node.
pub(crate) struct OneNode;
impl Config for OneNode {
    const NUMA: bool = false;
}

/// [`Checked`] with the marks in arrays beside the span.
pub(crate) struct Linear;
impl Config for Linear {
    const LINEAR_SHADOW: bool = true;
}

/// The class that an object for `layout` is of.
pub(crate) fn class_of<C: Config>(layout: Layout) -> Option<SizeClass> {
    // What is hardened has 8 bytes more.
    let more = if C::HARDENED { 8 } else { 0 };
    SizeClass::of(Layout::from_size_align(layout.size() + more, layout.align()).unwrap())
}

/// Nothing is checked at the call.
pub(crate) struct Fast;
impl Config for Fast {
    const CHECKED: bool = false;
}

pub(crate) type Instance<C = Checked> = Heap<'static, Machine, C>;

/// What the memory of a heap is aligned to.
const ALIGN: usize = 2 << 20;

fn metadata(count: usize) -> Metadata<'static> {
    Metadata::new(Box::leak(Box::<[u8]>::new_uninit_slice(count)))
}

/// A heap over `count` frames of memory, of one node, with pools for `cpus` CPUs.
pub(crate) fn heap<C: Config>(count: usize, cpus: usize) -> &'static Instance<C> {
    let memory = FrameSpan::new(Pfn::new(0), FrameCount::new(count)).unwrap();
    let frames: &'static Frames<'static, Machine, C> = Box::leak(Box::new(Frames::new()));
    let base = Frames::<Machine, C>::base_metadata_size(memory, cpus, 1);
    frames.init(memory, cpus, 1, metadata(base)).unwrap();
    let more = Frames::<Machine, C>::memory_metadata_size(memory);
    frames.add_memory(NodeId::ZERO, ZoneKind::Normal, memory, &[], metadata(more)).unwrap();
    let heap: &'static Instance<C> = Box::leak(Box::new(Heap::new(frames)));
    let room: &'static mut [MaybeUninit<u8>] = Box::leak(Box::<[u8]>::new_uninit_slice(count * C::FRAME_BYTES + ALIGN));
    let skip = room.as_ptr().align_offset(ALIGN);
    let own = metadata(Heap::<Machine, C>::metadata_size(memory, cpus, 1));
    // SAFETY: so many bytes from there on were made just now, and live as long as the program.
    unsafe { heap.init(room[skip..].as_mut_ptr().cast(), memory, cpus, 1, own) }.unwrap();
    heap
}
