//! Reclaim: what a heap does before it says that memory has ended.
//!
//! ```text
//!   no memory ──► own pool, depots, empty slabs, kept blocks, drain requests ──► again
//!             ──► shrinkers give up caches of their own                      ──► again
//!             ──► the OOM policy: give up, or try again                      ──► again, or `NoMemory`
//! ```
//!
//! Everything of it runs in task context with no lock and no pin held, so a shrinker may free and even allocate. One CPU
//! at a time is in it: an allocation inside a shrinker does not begin another, and other CPUs wait for what the first one
//! finds. The order is that of Linux's `try_to_free_pages` and `out_of_memory`.

use core::alloc::Layout;

use crate::config::Config;
use crate::error::{AllocError, SetupError};
use crate::heap::Heap;
use crate::platform::{Context, Platform};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, Publish, const_fn};

/// Somebody who holds memory that he can do without: a cache of names, of blocks, of idle objects.
pub trait Shrink: Sync {
    /// How many objects he could give up now; 0 if none. Cheap, and only a guess.
    fn count(&self) -> usize;

    /// Gives up as many as `target` objects; answers how many it were. May free and allocate; must not unwind where the
    /// heap is a global allocator.
    fn scan(&self, target: usize) -> usize;
}

/// A registration with one heap, at a place that lives as long as the heap.
pub struct Shrinker<'m> {
    shrink: &'m dyn Shrink,
    next: Publish<'m, Self>,
    /// 1 while it is registered.
    listed: AtomicU32,
}

impl<'m> Shrinker<'m> {
    const_fn! {
        /// A registration to be: see [`Heap::add_shrinker`].
        pub const fn new(shrink: &'m dyn Shrink) -> Self {
            Self { shrink, next: Publish::empty(), listed: AtomicU32::new(0) }
        }
    }
}

/// What is to be done when memory has ended in spite of all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OomAnswer {
    /// The request fails.
    GiveUp,
    /// Memory was made, by ending a program for instance: the request is tried once more.
    Retry,
}

/// Who decides when memory has ended: called in task context with nothing held.
pub type OomPolicy = fn(Layout) -> OomAnswer;

/// What failed, since the heap was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Failures {
    /// Requests that got no memory.
    pub count: u64,
    /// The largest of them, in bytes.
    pub largest_bytes: usize,
    /// Times that somebody had to reclaim.
    pub reclaims: u64,
    /// Objects that shrinkers have given up.
    pub shrunk: u64,
}

/// The registrations, and who is reclaiming.
pub(crate) struct Reclaim<'m> {
    first: Publish<'m, Shrinker<'m>>,
    policy: Publish<'m, OomPolicy>,
    /// 0, or 1 more than the number of the CPU that reclaims.
    owner: AtomicU32,
    failures: AtomicU32,
    largest: AtomicUsize,
    reclaims: AtomicU32,
    shrunk: AtomicUsize,
}

impl<'m> Reclaim<'m> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                first: Publish::empty(),
                policy: Publish::empty(),
                owner: AtomicU32::new(0),
                failures: AtomicU32::new(0),
                largest: AtomicUsize::new(0),
                reclaims: AtomicU32::new(0),
                shrunk: AtomicUsize::new(0),
            }
        }
    }

    /// Notes a request that got nothing.
    #[cold]
    fn failed(&self, layout: Layout) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(layout.size(), Ordering::Relaxed);
    }

    /// The right to reclaim, unless this CPU has it already; waits a while for another CPU to be done.
    fn enter(&self, me: u32) -> Option<Turn<'_, 'm>> {
        for _ in 0..1 << 16 {
            // Acquire: pairs with the Release of `Turn::drop`; what the last one found is there to be had.
            match self.owner.compare_exchange(0, me + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Turn(self)),
                Err(owner) if owner == me + 1 => return None,
                Err(_) => core::hint::spin_loop(),
            }
        }
        None
    }
}

/// The right to reclaim, given back when dropped, also by what unwinds.
struct Turn<'a, 'm>(&'a Reclaim<'m>);

impl Drop for Turn<'_, '_> {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::Release);
    }
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// From now on `shrinker` is asked to give up objects when memory ends.
    ///
    /// # Errors
    /// [`SetupError::State`] if it is registered already; [`SetupError::WouldBlock`] from a context that interrupted the
    /// allocator.
    pub fn add_shrinker(&self, shrinker: &'m Shrinker<'m>) -> Result<(), SetupError> {
        let Some(pinned) = P::pin() else { return Err(SetupError::WouldBlock) };
        let _held = self.registry.lock(&pinned);
        if shrinker.listed.swap(1, Ordering::Relaxed) != 0 {
            return Err(SetupError::State);
        }
        shrinker.next.set(self.reclaim.first.get());
        self.reclaim.first.set(Some(shrinker));
        Ok(())
    }

    /// From now on `shrinker` is not asked any more, but for a call that may be under way on another CPU.
    ///
    /// # Errors
    /// [`SetupError::State`] if it is not registered; [`SetupError::WouldBlock`] from a context that interrupted the
    /// allocator.
    pub fn remove_shrinker(&self, shrinker: &'m Shrinker<'m>) -> Result<(), SetupError> {
        let Some(pinned) = P::pin() else { return Err(SetupError::WouldBlock) };
        let _held = self.registry.lock(&pinned);
        let mut place = &self.reclaim.first;
        while let Some(found) = place.get() {
            if core::ptr::eq(found, shrinker) {
                // It keeps its own `next`: who stands on it goes on from there.
                place.set(found.next.get());
                found.listed.store(0, Ordering::Relaxed);
                return Ok(());
            }
            place = &found.next;
        }
        Err(SetupError::State)
    }

    /// Calls `policy` when memory has ended in spite of reclaim, to make some or to give up.
    pub fn set_oom_policy(&self, policy: &'m OomPolicy) {
        self.reclaim.policy.set(Some(policy));
    }

    /// What failed so far.
    pub fn failures(&self) -> Failures {
        Failures {
            count: u64::from(self.reclaim.failures.load(Ordering::Relaxed)),
            largest_bytes: self.reclaim.largest.load(Ordering::Relaxed),
            reclaims: u64::from(self.reclaim.reclaims.load(Ordering::Relaxed)),
            shrunk: self.reclaim.shrunk.load(Ordering::Relaxed) as u64,
        }
    }

    /// Serves a request by `once`, again after its source has given more, and with `reclaim` after reclaim.
    pub(crate) fn serve<R>(
        &self,
        layout: Layout,
        reclaim: bool,
        once: impl Fn() -> Result<R, AllocError>,
    ) -> Result<R, AllocError> {
        let once = || if self.is_ready() { once() } else { Err(AllocError::NotReady) };
        let mut served = once();
        while matches!(served, Err(AllocError::NoMemory | AllocError::NotReady))
            && self.source.is_some_and(|source| source(layout))
        {
            served = once();
        }
        if is_empty(&served) && reclaim && P::context() == Context::Task {
            served = self.reclaim(layout, once);
        }
        if served.is_err() {
            self.reclaim.failed(layout);
        }
        served
    }

    /// Makes memory for `layout` in every way there is, and tries `again` after each.
    fn reclaim<R>(&self, layout: Layout, again: impl Fn() -> Result<R, AllocError>) -> Result<R, AllocError> {
        self.drain_cpu();
        self.drain();
        let drained = again();
        if !is_empty(&drained) {
            return drained;
        }
        let me = P::pin().map_or(u32::MAX - 1, |pinned| pinned.cpu().index() as u32);
        let Some(turn) = self.reclaim.enter(me) else { return again() };
        self.reclaim.reclaims.fetch_add(1, Ordering::Relaxed);
        // Another CPU may have found what this one waited for.
        let mut found = again();
        if is_empty(&found) && self.shrink(layout) {
            self.drain();
            found = again();
        }
        if is_empty(&found)
            && let Some(policy) = self.reclaim.policy.get()
            && policy(layout) == OomAnswer::Retry
        {
            self.drain();
            found = again();
        }
        drop(turn);
        found
    }

    /// Asks every shrinker for a part of what it has, all of it if the request is large; answers whether any gave.
    fn shrink(&self, layout: Layout) -> bool {
        let mut gave = 0;
        let mut next = self.reclaim.first.get();
        while let Some(shrinker) = next {
            next = shrinker.next.get();
            let count = shrinker.shrink.count();
            if count == 0 {
                continue;
            }
            // A small request is no reason to empty every cache of the machine.
            let target = if layout.size() > C::SLAB_BYTES { count } else { count.div_ceil(2) };
            gave += shrinker.shrink.scan(target);
        }
        self.reclaim.shrunk.fetch_add(gave, Ordering::Relaxed);
        gave > 0
    }
}

/// Whether a request was refused for want of memory.
fn is_empty<R>(served: &Result<R, AllocError>) -> bool {
    matches!(served, Err(AllocError::NoMemory))
}

#[cfg(all(test, not(loom)))]
mod tests;
