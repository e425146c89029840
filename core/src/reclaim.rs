//! Reclaim: what a heap does before it says that memory has ended.
//!
//! ```text
//!   no memory ──► own pool, depots, empty slabs, kept blocks, drain requests ──► again
//!             ──► shrinkers give up caches of their own                      ──► again
//!             ──► the OOM policy: give up, or try again                      ──► again, or `NoMemory`
//! ```
//!
//! Everything of it runs in task context with no lock and no pin held, so a shrinker may free and even allocate. One
//! CPU at a time is in it: an allocation inside a shrinker does not begin another, and other CPUs wait for what the
//! first one finds. The order is that of Linux's `try_to_free_pages` and `out_of_memory`.

mod shrinkers;

use core::alloc::Layout;

use crate::config::Config;
use crate::error::{AllocError, SetupError};
use crate::heap::Heap;
use crate::id::{CpuId, NodeMask};
use crate::platform::{Context, Platform};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, Publish, const_fn, relax};
pub use shrinkers::Shrinker;
pub(crate) use shrinkers::Shrinkers;

/// How often a source may say yes and give nothing where it is wanted: once, since another CPU may have been given it
/// just before, and may have taken it all; then not for ever.
const SUPPLIES_IN_VAIN: u32 = 2;

/// Looks at whether another CPU is done with reclaiming, before a request does without.
const WAITS: usize = if cfg!(any(loom, shuttle)) { 8 } else { 1 << 16 };

/// Somebody who holds memory that he can do without: a cache of names, of blocks, of idle objects.
pub trait Shrink: Sync {
    /// How many objects he could give up now; 0 if none. Cheap, and only a guess.
    fn count(&self) -> usize;

    /// Gives up as many as `target` objects; answers how many it were. May free and allocate; must not unwind where the
    /// heap is a global allocator.
    fn scan(&self, target: usize) -> usize;
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
pub(crate) struct Reclaim<'m, P: Platform> {
    shrinkers: Shrinkers<'m, P>,
    policy: Publish<'m, OomPolicy>,
    /// 0, or 1 more than the number of the CPU that reclaims.
    owner: AtomicU32,
    failures: AtomicU32,
    largest: AtomicUsize,
    reclaims: AtomicU32,
    shrunk: AtomicUsize,
}

impl<P: Platform> Reclaim<'_, P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                shrinkers: Shrinkers::new(),
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

    /// In a copy of the process that only the caller is left in: what others were about to do will never end.
    ///
    /// A shrinker that was being asked by another thread, and had been removed meanwhile, is idle never.
    #[cfg(not(loom))]
    pub(crate) fn in_copy(&self, cpu: CpuId) {
        // Its own reclaim goes on, if one of the shrinkers has made the copy.
        if self.owner.load(Ordering::Relaxed) != number(Some(cpu)) + 1 {
            self.owner.store(0, Ordering::Relaxed);
            self.shrinkers.forget_calls();
        }
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        self.shrinkers.each_lock(each);
    }

    /// The right to reclaim, unless this CPU has it already; waits a while for another CPU to be done.
    fn enter(&self, me: u32) -> Option<Turn<'_>> {
        for _ in 0..WAITS {
            // Acquire: pairs with the Release of `Turn::drop`; what the last one found is there to be had.
            match self.owner.compare_exchange(0, me + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Turn(&self.owner)),
                Err(owner) if owner == me + 1 => return None,
                Err(_) => relax(),
            }
        }
        None
    }
}

/// The right to reclaim, given back when dropped, also by what unwinds.
struct Turn<'a>(&'a AtomicU32);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// From now on `shrinker` is asked to give up objects when memory ends.
    ///
    /// # Errors
    /// [`SetupError::State`] if it is registered already; [`SetupError::WouldBlock`] from a context that interrupted
    /// the allocator.
    pub fn add_shrinker(&self, shrinker: &'m Shrinker<'m>) -> Result<(), SetupError> {
        as_setup(self.reclaim.shrinkers.add(shrinker))
    }

    /// From now on no call of `shrinker` begins. One may be under way on another CPU, or be what calls this; it has
    /// ended when [`Shrinker::is_idle`]. Nobody waits for that here: the caller may hold what the call waits for.
    ///
    /// # Errors
    /// [`SetupError::State`] if it is not registered; [`SetupError::WouldBlock`] from a context that interrupted the
    /// allocator.
    pub fn remove_shrinker(&self, shrinker: &'m Shrinker<'m>) -> Result<(), SetupError> {
        as_setup(self.reclaim.shrinkers.remove(shrinker))
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
        self.serve_on(NodeMask::ALL, layout, reclaim, once)
    }

    /// As [`serve`](Self::serve), where memory of these nodes alone helps.
    pub(crate) fn serve_on<R>(
        &self,
        nodes: NodeMask,
        layout: Layout,
        reclaim: bool,
        once: impl Fn() -> Result<R, AllocError>,
    ) -> Result<R, AllocError> {
        let once = || if self.is_ready() { once() } else { Err(AllocError::NotReady) };
        let mut served = once();
        // Before more is asked for, what lies idle in the CPUs' pools of frames.
        if is_empty(&served) && reclaim && P::context() == Context::Task {
            self.frames.drain();
            served = once();
        }
        let mut in_vain = 0;
        while in_vain < SUPPLIES_IN_VAIN && matches!(served, Err(AllocError::NoMemory | AllocError::NotReady)) {
            let before = self.frames.present_on(nodes);
            if !self.supply(layout, nodes) {
                break;
            }
            in_vain += u32::from(self.frames.present_on(nodes) == before);
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
        let me = number(P::pin().map(|pinned| pinned.cpu()));
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
        let gave = self.reclaim.shrinkers.walk(|shrinker| {
            let count = shrinker.count();
            if count == 0 {
                return 0;
            }
            // A small request is no reason to empty every cache of the machine.
            let target = if layout.size() > C::SLAB_BYTES { count } else { count.div_ceil(2) };
            shrinker.scan(target)
        });
        self.reclaim.shrunk.fetch_add(gave, Ordering::Relaxed);
        gave > 0
    }
}

/// What a CPU is called by the others while it reclaims.
fn number(cpu: Option<CpuId>) -> u32 {
    cpu.map_or(u32::MAX - 1, |cpu| cpu.index() as u32)
}

/// What became of a change to the registrations: done, at the wrong time, or not done since others were at it.
fn as_setup(changed: Option<bool>) -> Result<(), SetupError> {
    match changed {
        Some(true) => Ok(()),
        Some(false) => Err(SetupError::State),
        None => Err(SetupError::WouldBlock),
    }
}

/// Whether a request was refused for want of memory.
fn is_empty<R>(served: &Result<R, AllocError>) -> bool {
    matches!(served, Err(AllocError::NoMemory))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
