//! The machine that the models run on: a few frames, a thread a CPU.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::MaybeUninit;

use super::checker;
use crate::carve::Metadata;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::id::CpuId;
use crate::platform::{Context, Platform};

// For models of single edges.
#[cfg(loom)]
mod few;
#[cfg(loom)]
pub(super) use few::{Machine, Tiny, TinyFast, alloc};

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

/// Names frames `start..start + count`.
pub(super) fn span(start: usize, count: usize) -> FrameSpan {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).unwrap()
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
