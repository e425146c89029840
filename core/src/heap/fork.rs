//! All locks of a heap at once: for a process that is about to be copied with only one of its threads.
//!
//! In the copy nobody would give back a lock that another thread held at that moment. So the thread that forks takes
//! them all, its own pools with them, and gives them back on both sides. What other threads have in their pools is
//! theirs in the original; in the copy it is nobody's, and stays where it is: what its owner was just doing to it is
//! not known.
#![allow(unsafe_code, reason = "locks that are held from one call to another")]

use super::Heap;
use crate::arena::Access;
use crate::config::Config;
use crate::frames::Frames;
use crate::id::CpuId;
use crate::platform::{Pinned, Platform};
use crate::size_class::SizeClass;
use crate::sync::Lock;

/// What is done to every lock, in the order in which locks are taken.
pub(crate) trait EachLock<P: Platform> {
    fn one<T>(&mut self, lock: &Lock<P, T>);
}

struct Seize<'a, P: Platform>(&'a Pinned<P>);

impl<P: Platform> EachLock<P> for Seize<'_, P> {
    fn one<T>(&mut self, lock: &Lock<P, T>) {
        lock.seize(self.0);
    }
}

struct Release;

impl<P: Platform> EachLock<P> for Release {
    fn one<T>(&mut self, lock: &Lock<P, T>) {
        // SAFETY: taken by `Seize`, as the caller of `unlock_all` promises.
        unsafe { lock.release() };
    }
}

impl<P: Platform, C: Config> Frames<'_, P, C> {
    /// Takes every lock of these frames, as [`Heap::lock_all`] does.
    pub fn lock_all(&self, pinned: &Pinned<P>) {
        self.each_lock(&mut Seize(pinned));
    }

    /// Gives back what [`lock_all`](Self::lock_all) took.
    ///
    /// # Safety
    /// As [`Heap::unlock_all`].
    pub unsafe fn unlock_all(&self) {
        self.each_lock(&mut Release);
        // What interrupts have left for the locks' holder, who did not look when he let go.
        for zone in self.zones() {
            let _ = zone.catch_up(Access::Try);
        }
    }

    fn each_lock(&self, each: &mut impl EachLock<P>) {
        for arena in self.zones().flat_map(|zone| zone.arenas()) {
            arena.each_lock(each);
        }
    }
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Takes every lock of this heap and of its frames: nobody else is in the middle of anything that a lock covers
    /// until [`unlock_all`](Self::unlock_all).
    ///
    /// For `fork`, before and after. `pinned` shows that the caller has not interrupted a lock's holder; it should be
    /// kept as long as the locks, or be forgotten without leaving the CPU, since what interrupts meanwhile must not
    /// wait for them. Memory must not be added, nor the heap be initialised, at the same time.
    pub fn lock_all(&self, pinned: &Pinned<P>) {
        self.lock_own(pinned);
        self.frames.lock_all(pinned);
    }

    /// As [`lock_all`](Self::lock_all), but for the locks of its frames, for heaps that share them:
    /// [`Frames::lock_all`] takes those, after the own ones of each.
    pub fn lock_own(&self, pinned: &Pinned<P>) {
        self.each_lock(&mut Seize(pinned));
    }

    /// Gives back what [`lock_all`](Self::lock_all) took: in the original, and once more in the copy, which calls
    /// [`unlock_copy`](Self::unlock_copy) for that.
    ///
    /// # Safety
    /// The caller, or who it is a copy of, has called `lock_all`, and has not given back since.
    pub unsafe fn unlock_all(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.unlock_own(None) };
        // SAFETY: as above.
        unsafe { self.frames.unlock_all() };
    }

    /// Gives back what [`lock_own`](Self::lock_own) took: in the original, and once more in the copy, which says the
    /// CPU of its only thread.
    ///
    /// # Safety
    /// As [`unlock_all`](Self::unlock_all), for `lock_own`.
    pub unsafe fn unlock_own(&self, copied_as: Option<CpuId>) {
        self.each_lock(&mut Release);
        if let Some(cpu) = copied_as {
            self.in_copy(cpu);
        }
    }

    /// As [`unlock_all`](Self::unlock_all), in a copy of the process with no thread but the caller, who has `cpu`: what
    /// another thread was in the middle of, and that no lock covers, is over here.
    ///
    /// # Safety
    /// As for `unlock_all`.
    pub unsafe fn unlock_copy(&self, cpu: CpuId) {
        // SAFETY: as the caller promises.
        unsafe { self.unlock_all() };
        self.in_copy(cpu);
    }

    fn in_copy(&self, cpu: CpuId) {
        self.reclaim.in_copy(cpu);
        self.deep.in_copy(self.pools.all().get(cpu.index()));
    }

    fn each_lock(&self, each: &mut impl EachLock<P>) {
        each.one(&self.registry);
        self.reclaim.each_lock(each);
        for cache in self.caches.slice() {
            cache.each_lock(each);
        }
        for depot in self.depots.slice() {
            depot.each_lock(each);
        }
        self.store.each_lock(each);
        self.kept.each_lock(each);
    }

    /// Objects in the pool and in the quarantine of a CPU, whoever has it: what a copy has lost with a thread that it
    /// does not have.
    pub fn pooled_on(&self, cpu: CpuId) -> usize {
        let Some(pool) = self.pools.all().get(cpu.index()) else { return 0 };
        let pooled: usize = SizeClass::all().map(|class| pool.stacks.objects(class)).sum();
        pooled + pool.outbox.iter().count() + self.quarantined_on(cpu).count()
    }
}
