//! What pagemill needs of a machine, and what needs `unsafe`: the machines it is measured on.
//!
//! "Kernel style" is what a kernel does: a thread is a CPU, its desks are its own, and claiming them takes no atomic
//! read-modify-write. On a simulated machine one thread says which CPU it is, and has a busy byte. The hosted machine
//! is the crate `pagemill-hosted`, in which a thread sits on a CPU's number.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence};

use lock_api::RawMutex;
use pagemill::{
    Config, Context, CpuId, Desk, FrameCount, FrameSpan, Frames, Metadata, NodeId, Pfn, Platform, ZoneKind,
};
use pagemill_hosted::{Hosted, Seat, Sitting};

use crate::os::Reservation;

/// A CPU's own state: what a kernel keeps at its per-CPU base register.
struct Here {
    cpu: Cell<u32>,
    busy: AtomicBool,
    /// The pools at hand, or [`Desk::CLAIMED`].
    desks: [AtomicPtr<()>; Desk::COUNT],
    /// What lies on the desks when nobody has claimed the CPU.
    homes: [AtomicPtr<()>; Desk::COUNT],
}

thread_local! {
    static HERE: Here = const {
        Here {
            cpu: Cell::new(0),
            busy: AtomicBool::new(false),
            desks: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
            homes: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
        }
    };
    static LOCKS: Cell<u64> = const { Cell::new(0) };
}

/// A machine whose CPUs are what threads say they are.
pub trait Cpus: Platform {
    /// Can one thread act as several CPUs?
    const SIMULATED: bool;

    /// What makes the calling thread a CPU, for as long as it is kept.
    type Place;

    /// Called before the first instance is made.
    fn prepare() {}

    /// Makes the calling thread CPU `index`.
    fn become_cpu(index: usize) -> Self::Place;

    /// Makes the calling thread this CPU again, where it has become another since.
    fn return_to(_place: &Self::Place) {}
}

/// A kernel's way: desks and a spin lock.
pub struct Kernel;

// SAFETY: a thread is a CPU and stays one; its desks are thread-local and hold what they were given, at first `EMPTY`;
// the measuring threads have numbers of their own from 0; nothing interrupts them, so all code is task context. What is
// laid on a desk is taken off by `Settled` before it goes.
unsafe impl Platform for Kernel {
    type Lock = spin::Mutex<()>;

    #[inline(always)]
    fn enter() -> Option<CpuId> {
        HERE.with(|here| {
            if here.desks.iter().any(|desk| desk.load(Ordering::Relaxed) == Desk::CLAIMED.as_ptr()) {
                return None;
            }
            here.desks.iter().for_each(|desk| desk.store(Desk::CLAIMED.as_ptr(), Ordering::Relaxed));
            // An interrupt of this CPU sees the claim before anything that follows.
            compiler_fence(Ordering::SeqCst);
            Some(CpuId::new(here.cpu.get()))
        })
    }

    #[inline(always)]
    fn leave(_cpu: CpuId) {
        compiler_fence(Ordering::SeqCst);
        HERE.with(|here| {
            for (desk, home) in here.desks.iter().zip(&here.homes) {
                desk.store(home.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        });
    }

    const HAS_DESKS: bool = true;

    #[inline(always)]
    fn take_desk<const WHICH: usize>() -> Desk {
        HERE.with(|here| {
            let desk = here.desks[WHICH].load(Ordering::Relaxed);
            here.desks[WHICH].store(Desk::CLAIMED.as_ptr(), Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            // SAFETY: only what `Desk::as_ptr` answered is ever laid there.
            unsafe { Desk::from_ptr(desk) }
        })
    }

    #[inline(always)]
    unsafe fn put_desk<const WHICH: usize>(desk: Desk) {
        compiler_fence(Ordering::SeqCst);
        HERE.with(|here| here.desks[WHICH].store(desk.as_ptr(), Ordering::Relaxed));
    }

    unsafe fn set_desk<const WHICH: usize>(desk: Desk) {
        HERE.with(|here| here.homes[WHICH].store(desk.as_ptr(), Ordering::Relaxed));
    }

    #[inline(always)]
    fn context() -> Context {
        Context::Task
    }
}

/// A thread that is a CPU of [`Kernel`]; dropped, its desks are empty.
pub struct Settled;

impl Settled {
    fn clear<const WHICH: usize>() {
        let pinned = Kernel::pin().expect("who gives up a CPU is not inside the allocator");
        // SAFETY: the CPU is claimed, and the desk is to be empty.
        unsafe { Kernel::set_desk::<WHICH>(Desk::EMPTY) };
        drop(pinned);
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        Self::clear::<{ Desk::FRAMES }>();
        Self::clear::<{ Desk::OBJECTS }>();
    }
}

impl Cpus for Kernel {
    const SIMULATED: bool = false;
    type Place = Settled;

    fn become_cpu(index: usize) -> Settled {
        HERE.with(|here| here.cpu.set(index as u32));
        Settled
    }
}

/// One thread acting as each CPU in turn, with locks that count how often they are taken.
pub struct Simulated;

// SAFETY: the one thread is one CPU at a time, and changes it only while it holds no pin; its busy byte is
// thread-local; nothing interrupts it, so all code is task context.
unsafe impl Platform for Simulated {
    type Lock = CountingLock;

    #[inline(always)]
    fn enter() -> Option<CpuId> {
        HERE.with(|here| {
            if here.busy.load(Ordering::Relaxed) {
                return None;
            }
            here.busy.store(true, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            Some(CpuId::new(here.cpu.get()))
        })
    }

    #[inline(always)]
    fn leave(_cpu: CpuId) {
        compiler_fence(Ordering::SeqCst);
        HERE.with(|here| here.busy.store(false, Ordering::Relaxed));
    }

    #[inline(always)]
    fn context() -> Context {
        Context::Task
    }
}

/// The number of a CPU of [`Simulated`].
pub struct Told(u32);

impl Cpus for Simulated {
    const SIMULATED: bool = true;
    type Place = Told;

    fn become_cpu(index: usize) -> Told {
        let told = Told(index as u32);
        Self::return_to(&told);
        told
    }

    fn return_to(told: &Told) {
        HERE.with(|here| here.cpu.set(told.0));
    }
}

/// The most threads that measure at once on [`Hosted`].
const MAX_THREADS: usize = 256;

/// The numbers of the measuring threads. They are kept from all others, also from the thread that makes an instance and
/// looks through it, which would otherwise be CPU 0.
static SEATS: LazyLock<Vec<Seat>> = LazyLock::new(|| {
    let keep = |cpu| Seat::keep(CpuId::new(cpu)).expect("nobody has a number before the seats are kept");
    (0..MAX_THREADS as u32).map(keep).collect()
});

impl Cpus for Hosted {
    const SIMULATED: bool = false;
    type Place = Sitting<'static>;

    fn become_cpu(index: usize) -> Sitting<'static> {
        SEATS[index].sit().expect("a measuring thread is alone on its CPU")
    }

    fn prepare() {
        LazyLock::force(&SEATS);
    }
}

/// How many locks of [`Simulated`] the calling thread has taken.
pub fn locks_taken() -> u64 {
    LOCKS.get()
}

/// A spin lock that counts.
pub struct CountingLock(spin::Mutex<()>);

// SAFETY: it is the inner lock, which excludes.
unsafe impl RawMutex for CountingLock {
    const INIT: Self = Self(<spin::Mutex<()> as RawMutex>::INIT);

    type GuardMarker = <spin::Mutex<()> as RawMutex>::GuardMarker;

    fn lock(&self) {
        LOCKS.set(LOCKS.get() + 1);
        RawMutex::lock(&self.0);
    }

    fn try_lock(&self) -> bool {
        LOCKS.set(LOCKS.get() + 1);
        RawMutex::try_lock(&self.0)
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, as it promises.
        unsafe { RawMutex::unlock(&self.0) }
    }
}

/// An instance of pagemill with its metadata.
pub struct Instance<P: Platform, C: Config> {
    // Before the metadata that it stands on, so that it is dropped first.
    frames: Frames<'static, P, C>,
    _metadata: Reservation,
}

impl<P: Platform, C: Config> Instance<P, C> {
    /// Manages `count` frames from frame 0, on one node with `cpus` CPUs.
    pub fn new(count: usize, cpus: usize) -> Self {
        let span = FrameSpan::new(Pfn::new(0), FrameCount::new(count)).expect("frames from 0 are a span");
        let base = Frames::<P, C>::base_metadata_size(span, cpus, 1);
        let memory = Frames::<P, C>::memory_metadata_size(span);
        let mut metadata = Reservation::new(base + memory);
        let (for_base, for_memory) = metadata.bytes().split_at_mut(base);
        let (for_base, for_memory) = (lasting(for_base), lasting(for_memory));
        let frames = Frames::new();
        frames.init(span, cpus, 1, for_base).expect("the metadata is as large as it asked for");
        let added = frames.add_memory(NodeId::ZERO, ZoneKind::Normal, span, &[], for_memory);
        added.expect("the metadata is as large as it asked for");
        Self { frames, _metadata: metadata }
    }

    /// The allocator.
    #[inline(always)]
    pub fn frames(&self) -> &Frames<'static, P, C> {
        &self.frames
    }

    /// Lays the calling CPU's pool on its desk, if the machine has desks. The CPU's place is given up before the
    /// instance.
    pub fn settle(&self)
    where
        C: 'static,
    {
        if P::HAS_DESKS {
            // SAFETY: what `settle` keeps are the desk and, in the pool itself, the address of the allocator. The
            // caller borrows the instance, so it does not move, until its place is given up and its desk is empty
            // again.
            let frames: &'static Frames<'static, P, C> = unsafe { &*std::ptr::from_ref(&self.frames) };
            assert!(frames.settle(), "the CPU has a pool and has not claimed it");
        }
    }

    /// Bytes of metadata.
    pub fn metadata_bytes(count: usize, cpus: usize) -> usize {
        let span = FrameSpan::new(Pfn::new(0), FrameCount::new(count)).expect("frames from 0 are a span");
        Frames::<P, C>::metadata_size(span, cpus, 1)
    }
}

/// Bytes of a reservation as metadata for an [`Instance`], which keeps the reservation for longer than the allocator.
fn lasting(bytes: &mut [u8]) -> Metadata<'static> {
    let (start, len) = (bytes.as_mut_ptr().cast::<MaybeUninit<u8>>(), bytes.len());
    // SAFETY: initialised bytes may be seen as `MaybeUninit`; the only caller keeps the reservation until the
    // allocator is gone and does not touch it.
    let bytes = unsafe { std::slice::from_raw_parts_mut(start, len) };
    // SAFETY: a fresh anonymous mapping is zero, and this part of it has had no other use.
    unsafe { Metadata::zeroed(bytes) }
}
