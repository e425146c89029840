//! The machine that the models run on: a few frames, a thread a CPU.
#![allow(unsafe_code)]
#![cfg_attr(shuttle, allow(dead_code, reason = "parts of it are for single edges"))]

use core::cell::Cell;
use core::mem::MaybeUninit;
use std::sync::Arc;

use super::checker;
use crate::arena::Arena;
use crate::carve::Metadata;
use crate::config::Config;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};
use crate::frames::Frames;
use crate::id::{CpuId, NodeId};
use crate::kind::ZoneKind;
use crate::order::Order;
use crate::platform::{Context, Platform};

checker::thread_local! {
    static CPU: Cell<u32> = Cell::new(0);
    static BUSY: Cell<bool> = Cell::new(false);
    static CONTEXT: Cell<Context> = Cell::new(Context::Task);
}

/// Each thread of a model is the CPU it says.
pub(super) struct Cpus;

// SAFETY: a thread is one CPU while it says so, `BUSY` is its own, and each model gives each thread a CPU of its own.
unsafe impl Platform for Cpus {
    // Not used: the lock of a model is the twin in `sync`.
    #[cfg(loom)]
    type Lock = spin::Mutex<()>;
    #[cfg(shuttle)]
    type Lock = crate::sync::PointLock;

    fn enter() -> Option<CpuId> {
        BUSY.with(|busy| !busy.replace(true)).then(|| CpuId::new(CPU.with(Cell::get)))
    }

    fn leave(_cpu: CpuId) {
        BUSY.with(|busy| busy.set(false));
    }

    fn context() -> Context {
        CONTEXT.with(Cell::get)
    }
}

/// Trees of 8 frames, arenas of 64.
pub(super) struct Tiny;
impl Config for Tiny {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// The same without words for what is lent.
pub(super) struct TinyFast;
impl Config for TinyFast {
    const CHECKED: bool = false;
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// One execution's instance, with the bytes it lives in.
pub(super) struct Machine<C: Config = Tiny> {
    pub(super) frames: Frames<'static, Cpus, C>,
    // After `frames`, whose metadata they are.
    _bytes: [Bytes; 2],
}

/// Bytes that go with what was made of them.
pub(super) struct Bytes(*mut [MaybeUninit<u8>]);

// SAFETY: the bytes belong to the machine, which is `Sync` by itself.
unsafe impl Send for Bytes {}
// SAFETY: as above; nobody reads the pointer.
unsafe impl Sync for Bytes {}

impl Bytes {
    pub(super) fn new(count: usize) -> (Self, Metadata<'static>) {
        let bytes = Box::into_raw(Box::<[u8]>::new_uninit_slice(count));
        // SAFETY: just made, and freed only after the last use of what is carved from it.
        (Self(bytes), Metadata::new(unsafe { &mut *bytes }))
    }

    /// Bytes, and where they lie.
    pub(super) fn with_address(count: usize) -> (Self, *mut u8) {
        let bytes = Box::into_raw(Box::<[u8]>::new_uninit_slice(count));
        (Self(bytes), bytes.cast())
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw` in `new`; the machine drops its instance first, and models keep nothing of it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

impl<C: Config> Machine<C> {
    /// A machine of `count` frames from `start` on, with pools for `cpus` CPUs.
    pub(super) fn new(start: usize, count: usize, cpus: usize) -> Arc<Self> {
        let memory = span(start, count);
        let frames = Frames::<Cpus, C>::new();
        let (base, metadata) = Bytes::new(Frames::<Cpus, C>::base_metadata_size(memory, cpus, 1));
        frames.init(memory, cpus, 1, metadata).unwrap();
        let (more, metadata) = Bytes::new(Frames::<Cpus, C>::memory_metadata_size(memory));
        frames.add_memory(NodeId::ZERO, ZoneKind::Normal, memory, &[], metadata).unwrap();
        Arc::new(Self { frames, _bytes: [base, more] })
    }

    /// Takes the frames by name.
    pub(super) fn hold(&self, start: usize, count: usize) -> FrameRange {
        self.frames.alloc_at(span(start, count)).unwrap()
    }

    /// Frees a frame by its number.
    pub(super) fn free(&self, frame: usize) -> Result<(), crate::error::FreeError> {
        self.frames.free_raw(Pfn::new(frame), FrameCount::new(1))
    }

    /// The arena of a frame.
    pub(super) fn arena(&self, frame: usize) -> &'static Arena<'static, Cpus, C> {
        self.frames.nodes.arena_of(Pfn::new(frame)).unwrap()
    }

    /// Free frames in the trees, without a lock, so that nothing is settled by looking.
    pub(super) fn free_in_trees(&self) -> usize {
        self.frames.census().free
    }
}

/// Names frames `start..start + count`.
pub(super) fn span(start: usize, count: usize) -> FrameSpan {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).unwrap()
}

/// One frame, lent.
pub(super) fn alloc<C: Config>(machine: &Machine<C>) -> Option<usize> {
    machine.frames.alloc_raw(Order::ZERO, AllocFlags::TRY).ok().map(Pfn::number)
}

/// From now on the calling thread is CPU `cpu`.
pub(super) fn become_cpu(cpu: u32) {
    CPU.with(|own| own.set(cpu));
}

/// Starts a thread of the model as CPU `cpu`.
#[cfg(loom)]
pub(super) fn on_cpu<R: 'static>(cpu: u32, work: impl FnOnce() -> R + 'static) -> loom::thread::JoinHandle<R> {
    loom::thread::spawn(move || {
        become_cpu(cpu);
        work()
    })
}

/// Runs `work` as an interrupt that stopped its CPU in the middle of the allocator.
pub(super) fn interrupting<R>(work: impl FnOnce() -> R) -> R {
    let busy = BUSY.with(|busy| busy.replace(true));
    let context = CONTEXT.with(|context| context.replace(Context::Nmi));
    let result = work();
    CONTEXT.with(|own| own.set(context));
    BUSY.with(|own| own.set(busy));
    result
}
