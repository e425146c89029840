//! The heap front end: small objects from pools, large ones from frames, and who answers `NoMemory`.
//!
//! ```text
//!              ≤ 32 KiB                                              more
//!   request ──► pool ──► depot ──► cache ──► slab ──► frames ◄── large ◄── request
//!               this     batches   class,
//!               CPU      by value  node
//! ```
//!
//! Everything here is addresses: no object is ever touched, and the caller's pointer matters for its address alone. The
//! pointers are made in `global`.
//!
//! **Checks.** At [`Checked`] each slot has a mark, set while it is lent; a free finds the slab by the address,
//! compares class and start, and takes the mark off. What is not lent at that moment, wherever it lies, has none. At
//! [`Fast`](crate::Fast) a free looks whether the address is inside the span, and the slab finds the rest out when the
//! object gets there. At [`Hardened`](crate::Hardened) requests and frees come here by way of `harden`.

mod census;
#[cfg(not(loom))]
mod fork;
mod give_back;
mod init;
mod layout;
mod marks;
mod refill;
mod sample;
mod slabinfo;

use core::alloc::Layout;

use crate::backing::Backing;
use crate::cache::Cache;
use crate::carve::Window;
use crate::config::{Checked, Config};
use crate::depot::Depot;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::frames::Frames;
use crate::harden::Hardening;
use crate::id::NodeId;
use crate::large::{KeptBlocks, Ready};
use crate::platform::{Desk, Pinned, Platform};
use crate::pool::{Deep, ObjectPool};
use crate::reclaim::Reclaim;
use crate::shadow::Shadow;
use crate::size_class::SizeClass;
use crate::slab::{Slab, SlabStore};
pub use census::{ClassCount, HeapCensus, HeapInvalid};
#[cfg(not(loom))]
pub(crate) use fork::EachLock;
pub(crate) use sample::Lent;
use sample::Sampling;
pub use sample::{Sample, SampleHook};
pub use slabinfo::HeapReport;

use crate::sync::{AtomicU32, AtomicU64, Fixed, Lock, PerCpu, Publish, PublishSlice, Reach, const_fn};

/// An address, or why there is none: one word, which comes back in a register where a `Result` would come through
/// memory. No object lies in the first bytes of the address space.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Answer(usize);

const ERRORS: [AllocError; 4] =
    [AllocError::NoMemory, AllocError::WouldBlock, AllocError::Impossible, AllocError::NotReady];

impl Answer {
    pub(super) fn of(result: Result<usize, AllocError>) -> Self {
        Self(result.unwrap_or_else(|error| error as usize))
    }

    /// The address, 0 if there is none.
    #[inline(always)]
    pub(crate) fn or_null(self) -> usize {
        if self.0 < ERRORS.len() { 0 } else { self.0 }
    }

    #[inline(always)]
    pub(crate) fn address(self) -> Result<usize, AllocError> {
        match ERRORS.get(self.0) {
            Some(&error) => Err(error),
            None => Ok(self.0),
        }
    }
}

// Each error stands at its own number.
const _: () = {
    let mut number = 0;
    while number < ERRORS.len() {
        assert!(ERRORS[number] as usize == number);
        number += 1;
    }
};

/// A heap of objects over the frames of one instance.
///
/// Made `const`, so that it can be a `static`; it serves as soon as [`init`](Self::init) has given it metadata and
/// [`Frames`] has memory. `P` is the machine, `C` the level of checking and the geometry of both.
///
/// In this order: a pool is the heap's if it says the address of the heap's pools, which is best the heap's own; what
/// else the fast paths look at follows.
#[repr(C)]
pub struct Heap<'m, P: Platform, C: Config = Checked> {
    pub(crate) pools: PerCpu<'m, ObjectPool>,
    pub(crate) window: Window,
    /// Bytes of the span, from the window's base.
    pub(crate) span_bytes: Fixed,
    /// The slab of each aligned `SLAB_BYTES` of the span.
    pub(crate) directory: PublishSlice<'m, Publish<'m, Slab<'m>>>,
    /// What [`Slab::brief`] says of each of these, where nothing else of them is looked at.
    pub(crate) briefs: PublishSlice<'m, AtomicU32>,
    /// The marks of lent objects, where they do not stand in the slabs' descriptors.
    pub(crate) shadow: Shadow<'m>,
    pub(crate) frames: &'m Frames<'m, P, C>,
    /// Who is behind its memory.
    pub(crate) backing: Option<Backing>,
    /// Node by node, a cache a class.
    pub(crate) caches: PublishSlice<'m, Cache<'m, P>>,
    /// One a node.
    pub(crate) depots: PublishSlice<'m, Depot<'m, P>>,
    pub(crate) store: SlabStore<'m, P>,
    /// Freed large blocks that the next of their size may have.
    pub(crate) kept: KeptBlocks<P>,
    /// Those that the next request gets without a lock.
    pub(crate) ready: Ready,
    /// Held while the heap is initialised; before every other lock.
    pub(crate) registry: Lock<P, ()>,
    /// Counts the requests to drain; a pool that has honoured fewer is asked.
    pub(crate) drain_requests: AtomicU32,
    /// Wrong frees that were found only when the object got to its slab.
    pub(crate) late_faults: AtomicU64,
    pub(crate) on_fault: Publish<'m, fn(BadFree)>,
    pub(crate) reclaim: Reclaim<'m, P>,
    pub(crate) hardening: Hardening<'m>,
    sampling: Sampling<'m>,
    /// How much CPUs have at hand.
    pub(crate) deep: Deep,
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    const_fn! {
        /// A heap that will take its frames from `frames`.
        pub const fn new(frames: &'m Frames<'m, P, C>) -> Self {
            Self::with(frames, None)
        }
    }

    const_fn! {
        /// As [`new`](Self::new), whose memory comes from somebody and can go back to him.
        pub const fn with_backing(frames: &'m Frames<'m, P, C>, backing: Backing) -> Self {
            Self::with(frames, Some(backing))
        }
    }

    const_fn! {
        const fn with(frames: &'m Frames<'m, P, C>, backing: Option<Backing>) -> Self {
            Self {
                frames,
                backing,
                window: Window::empty(),
                span_bytes: Fixed::new(0),
                directory: PublishSlice::empty(),
                briefs: PublishSlice::empty(),
                shadow: Shadow::empty(),
                pools: PerCpu::empty(),
                caches: PublishSlice::empty(),
                depots: PublishSlice::empty(),
                store: SlabStore::new(),
                kept: KeptBlocks::new(),
                ready: Ready::new(),
                registry: Lock::new(()),
                drain_requests: AtomicU32::new(0),
                late_faults: AtomicU64::new(0),
                on_fault: Publish::empty(),
                reclaim: Reclaim::new(),
                hardening: Hardening::new(),
                sampling: Sampling::new(),
                deep: Deep::new(C::DEEP_BYTES),
            }
        }
    }

    /// The frames it stands on.
    pub fn frames(&self) -> &'m Frames<'m, P, C> {
        self.frames
    }

    /// Whether it has been initialised.
    pub(crate) fn is_ready(&self) -> bool {
        !self.caches.slice().is_empty()
    }

    /// The address of an object for `layout`; where there is none, without `reclaim` nothing is tried to make one.
    #[inline(always)]
    pub(crate) fn answer(&self, layout: Layout, reclaim: bool) -> Answer {
        if let Some(class) = SizeClass::of(layout)
            && let Some(address) = self.take_pooled(class)
        {
            return Answer(address);
        }
        self.alloc_slow(layout, reclaim)
    }

    /// The address of an object for `layout`.
    #[inline(always)]
    pub(crate) fn alloc_address(&self, layout: Layout) -> Result<usize, AllocError> {
        self.answer(layout, true).address()
    }

    /// Takes back the object for `layout` at `address`.
    #[inline(always)]
    pub(crate) fn free_address(&self, address: usize, layout: Layout) -> Result<(), BadFree> {
        match SizeClass::of(layout) {
            Some(class) => self.free_small(class, address),
            None => self.free_other(address, layout),
        }
    }

    /// Takes back a small object.
    #[inline(always)]
    pub(crate) fn free_small(&self, class: SizeClass, address: usize) -> Result<(), BadFree> {
        if self.put_pooled(class, address) { Ok(()) } else { self.free_rest(class, address) }
    }

    /// The part of a free that calls nothing: the checks, and this CPU's pool if it has room. If it answers `false`
    /// nothing has happened yet, so one call is enough for all that follows.
    ///
    /// The compiler puts it in line where a caller's layout is a constant, as long as it finds it short enough.
    #[inline(always)]
    pub(crate) fn put_pooled(&self, class: SizeClass, address: usize) -> bool {
        self.put_by(class, address, Self::REACH)
    }

    /// As [`put_pooled`](Self::put_pooled).
    #[inline(always)]
    pub(crate) fn put_by(&self, class: SizeClass, address: usize, reach: Reach) -> bool {
        let Some((pool, mut pinned)) = self.my_pool() else { return false };
        let Some(room) = pool.room(&mut pinned, class, reach) else { return false };
        let right = self.accept(pool, class, address);
        if right {
            room.put(address);
        }
        right
    }

    /// As [`put_by`](Self::put_by), for an object whose class nobody has told.
    #[inline(always)]
    pub(crate) fn put_unsized(&self, address: usize, reach: Reach) -> bool {
        let Some((pool, mut pinned)) = self.my_pool() else { return false };
        if C::CHECKED && C::LINEAR_SHADOW && !C::NUMA {
            // The mark first and the stack after it: so there are never more words in hand than registers.
            let Some(class) = self.class_if_any(address) else { return false };
            let Some(mark) = self.shadow.lent(class, self.window.offset(address), reach) else { return false };
            let Some(room) = pool.room(&mut pinned, class, reach) else { return false };
            mark.take_back();
            room.put(address);
            return true;
        }
        let Some(class) = self.class_at(address) else { return false };
        let Some(room) = pool.room(&mut pinned, class, reach) else { return false };
        // Where nodes and marks are nothing, what has a class is inside.
        let right = !(C::NUMA || C::CHECKED) || self.accept(pool, class, address);
        if right {
            room.put(address);
        }
        right
    }

    /// The rest of a free: a wrong one, or a pool that has no room.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_rest(&self, class: SizeClass, address: usize) -> Result<(), BadFree> {
        let right = self.is_ready() && if C::CHECKED { self.unmark(class, address) } else { self.is_inside(address) };
        if !right {
            return if self.free_sample(class, address) { Ok(()) } else { self.refuse(address, Some(class)) };
        }
        self.free_slow(class, address);
        Ok(())
    }

    /// The part of a request that calls nothing.
    #[inline(always)]
    pub(crate) fn take_pooled(&self, class: SizeClass) -> Option<usize> {
        self.take_by(class, Self::REACH)
    }

    /// As [`take_pooled`](Self::take_pooled).
    #[inline(always)]
    pub(crate) fn take_by(&self, class: SizeClass, reach: Reach) -> Option<usize> {
        let (pool, mut pinned) = self.my_pool()?;
        let address = pool.take_by(&mut pinned, class, reach)?;
        drop(pinned);
        self.mark_by(class, address, reach);
        Some(address)
    }

    /// How requests are best served whose class is known when they come: with the work of the marks between them a
    /// round is there in time.
    pub(crate) const AT_HAND: Reach = if C::CHECKED { Reach::LateStack } else { Reach::LateRound };

    /// How they are where it may be known when the program is compiled.
    const REACH: Reach = if P::SLOW_INDEXES { Reach::Stack } else { Reach::Folded };

    /// This CPU's pool and the claim to it.
    #[inline(always)]
    fn my_pool(&self) -> Option<(&'m ObjectPool, Pinned<P>)> {
        if P::HAS_DESKS {
            return self.pools.at_desk::<{ Desk::OBJECTS }, P, C>();
        }
        let pinned = P::pin()?;
        Some((self.pools.mine(&pinned)?, pinned))
    }

    /// Whether an address is inside the span.
    fn is_inside(&self, address: usize) -> bool {
        self.offset(address) < self.span_bytes.get()
    }

    /// How far from the span's start an address is, for anybody.
    #[inline(always)]
    fn offset(&self, address: usize) -> usize {
        address.wrapping_sub(self.window.base())
    }

    /// The slab that an address is in.
    #[inline(always)]
    pub(crate) fn slab_of(&self, address: usize) -> Option<&'m Slab<'m>> {
        self.directory.slice().get(self.offset(address) / C::SLAB_BYTES)?.get()
    }

    /// The same, for who has a pool of the heap, or an object's address.
    #[inline(always)]
    fn slab_settled(&self, address: usize) -> Option<&'m Slab<'m>> {
        self.directory.settled().get(self.window.offset(address) / C::SLAB_BYTES)?.get()
    }

    /// The cache of a class on a node.
    pub(crate) fn cache(&self, node: NodeId, class: SizeClass) -> Option<&'m Cache<'m, P>> {
        self.caches.slice().get(node.index() * SizeClass::COUNT + class.index())
    }

    /// The depot of a node.
    pub(crate) fn depot(&self, node: NodeId) -> Option<&'m Depot<'m, P>> {
        self.depots.slice().get(node.index())
    }

    /// Refuses a free, and says why.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse(&self, address: usize, class: Option<SizeClass>) -> Result<(), BadFree> {
        let fault = self.explain(address, class);
        self.report(fault);
        Err(fault)
    }

    /// Calls the fault hook; nothing is held.
    pub(crate) fn report(&self, fault: BadFree) {
        if let Some(hook) = self.on_fault.get() {
            hook(fault);
        }
    }

    /// What is wrong with a free of `address` as an object of `class`, or as a large one.
    pub(crate) fn explain(&self, address: usize, class: Option<SizeClass>) -> BadFree {
        let Some(slab) = self.slab_of(address) else { return self.explain_large(address) };
        let Some(own) = slab.class() else {
            return BadFree { kind: BadFreeKind::Foreign, address, object_bytes: 0, block: 0 };
        };
        let kind = match slab.slot_of(own, address) {
            None => BadFreeKind::Interior,
            Some(slot) if slot >= slab.slots() => BadFreeKind::Interior,
            Some(_) if class != Some(own) && self.is_lent(slab, own, address) => BadFreeKind::WrongClass,
            Some(_) => BadFreeKind::NotLent,
        };
        BadFree { kind, address, object_bytes: own.bytes(), block: slab.start() }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod corners;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod twin;
