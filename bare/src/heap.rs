//! pagemill's heap on this machine, over the frames of [`FRAMES`]: what a kernel installs as its global allocator.
//!
//! ```text
//! #[global_allocator]
//! static GLOBAL: pagemill_bare::heap::Global = pagemill_bare::heap::Global;
//! ```
//!
//! and then calls [`init`] once, after [`frames::init`](crate::frames::init). Before that a request is answered with
//! null.
//!
//! What an embedder has to do, in order: take frames for the metadata, say where frame 0 is seen, say which CPU is on
//! which node, let each CPU settle, hang in the hook for wrong frees, and have idle and kicked CPUs poll.
//!
//! The [`boot_heap`](crate::boot_heap) is another allocator and stays one: what comes from it goes back to it.
#![allow(unsafe_code, reason = "the promises of a global allocator, and of where frames lie")]

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pagemill::{BadFree, CpuId, FrameCount, FrameSpan, Heap, Metadata, NodeId, Request, SetupError};

use crate::frames::{self, FRAMES};
use crate::memory_map::FRAME_BYTES;
use crate::percpu::{self, Bare};
use crate::{machine, physical, println, smp};

/// The machine's heap. It has no object before [`init`].
pub static HEAP: Heap<'static, Bare> = Heap::new(&FRAMES);

/// [`HEAP`] by a name without a place of its own, so that any kernel can make it the global allocator.
#[derive(Clone, Copy, Default, Debug)]
pub struct Global;

// SAFETY: the heap keeps these promises, and this is the heap.
unsafe impl GlobalAlloc for Global {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, as below.
        unsafe { GlobalAlloc::alloc(&HEAP, layout) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { GlobalAlloc::dealloc(&HEAP, object, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { GlobalAlloc::alloc_zeroed(&HEAP, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe { GlobalAlloc::realloc(&HEAP, object, layout, new_size) }
    }
}

/// Gives [`HEAP`] its metadata and has every CPU settle. The frames of the machine must be handed over by then.
///
/// # Errors
/// [`SetupError::State`] for a second call; [`SetupError::MetadataTooSmall`] if the frames for the metadata are not to
/// be had; what [`Heap::init`] answers.
pub fn init() -> Result<(), SetupError> {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    let (cpus, nodes) = (percpu::online() as usize, machine::get().topology.node_count());
    let span = frames::span().ok_or(SetupError::State)?;
    // Relaxed: only who finds it unset goes on.
    if BEGUN.swap(true, Ordering::Relaxed) {
        return Err(SetupError::State);
    }
    let bytes = Heap::<Bare>::metadata_size(span, cpus, nodes);
    let metadata = metadata(bytes).inspect_err(|_| BEGUN.store(false, Ordering::Relaxed))?;
    // SAFETY: all RAM is mapped in the window from physical address 0 on, and FRAMES alone deals it out.
    unsafe { HEAP.init(physical::pointer(0), span, cpus, nodes, metadata) }?;
    static FAULT: fn(BadFree) = report_fault;
    HEAP.set_fault_hook(&FAULT);
    for cpu in 0..percpu::online() {
        let home = percpu::area(cpu).map_or(0, percpu::PerCpu::node);
        HEAP.set_cpu_node(CpuId::new(cpu), NodeId::new(home as u32).unwrap_or_default())?;
    }
    smp::on_all(&|_| {
        HEAP.settle();
    });
    smp::add_idle_hook(|| HEAP.poll());
    Ok(())
}

/// Frames that nobody gets back, as metadata.
fn metadata(bytes: usize) -> Result<Metadata<'static>, SetupError> {
    let count = FrameCount::new(bytes.div_ceil(FRAME_BYTES as usize));
    let frames = FRAMES.alloc_range(&Request::frames(count));
    let frames = frames.map_err(|_| SetupError::MetadataTooSmall { needed_bytes: bytes })?;
    // SAFETY: the machine's frames are RAM that nobody else uses.
    Ok(Metadata::new(unsafe { physical::bytes_of(frames) }))
}

/// The frames that the heap has taken for itself and keeps: its metadata, and the descriptors of slabs.
pub fn frames_kept() -> usize {
    let (cpus, nodes) = (percpu::online() as usize, machine::get().topology.node_count());
    let size = |span: FrameSpan| Heap::<Bare>::metadata_size(span, cpus, nodes).div_ceil(FRAME_BYTES as usize);
    frames::span().map_or(0, size) + HEAP.census().descriptor_bytes / FRAME_BYTES as usize
}

/// Wrong frees since boot, each of which was refused and reported.
pub fn faults() -> u64 {
    FAULTS.load(Ordering::Relaxed)
}

/// Says that wrong frees are to be counted and nothing else, as tests of them want it. Otherwise one is a panic.
pub fn only_count_faults(only: bool) {
    ONLY_COUNT.store(only, Ordering::Relaxed);
}

// Relaxed: a count and a wish that order nothing.
static FAULTS: AtomicU64 = AtomicU64::new(0);
static ONLY_COUNT: AtomicBool = AtomicBool::new(false);

/// A wrong free is somebody's mistake, and somebody may go on using what it was to free: the kernel ends unless it has
/// said otherwise. Nothing is allocated for it.
fn report_fault(fault: BadFree) {
    FAULTS.fetch_add(1, Ordering::Relaxed);
    println!("heap: CPU {}: {fault}", percpu::cpu());
    assert!(ONLY_COUNT.load(Ordering::Relaxed), "{fault}");
}
