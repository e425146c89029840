//! The instances that threads serve themselves from: who is told when a thread comes and goes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering, fence};

use pagemill::{Config, CpuId, Frames, Heap, Pinned};

use crate::ctl::Control;
use crate::tls::Hosted;

/// An instance with pools for threads.
pub(crate) trait Instance: Sync {
    /// Makes the pools of a thread with this number usable; `false` if there is no memory for them.
    fn prepare(&self, _number: u32) -> bool {
        true
    }

    /// Lays the pools of the calling thread, which has just got its number, on its desks.
    fn settle(&self) {}

    /// What can be asked of it and changed in it, if it is the heap of a process.
    fn control(&'static self) -> Option<&'static dyn Control> {
        None
    }

    /// Gives back what the process should not keep, as far as it may be done now.
    fn tick(&'static self) {}

    /// Gives back what the calling thread's pools hold.
    fn give_back(&'static self);

    /// Takes all its locks, but for those of frames that it shares with others.
    fn before_fork(&self, _pinned: &Pinned<Hosted>) {}

    /// Takes the locks of frames that are an instance by themselves. They come after all others.
    fn before_fork_frames(&self, _pinned: &Pinned<Hosted>) {}

    /// Gives them back, in the original or in the copy, where the calling thread is the only one and has this number.
    /// Called once after each `before_fork`.
    fn after_fork(&self, _copied_as: Option<CpuId>) {}
}

impl<C: Config + Sync> Instance for Frames<'static, Hosted, C> {
    fn give_back(&'static self) {
        self.drain_cpu();
    }

    fn before_fork_frames(&self, pinned: &Pinned<Hosted>) {
        self.lock_all(pinned);
    }

    #[allow(unsafe_code, reason = "locks that are held from one call to another")]
    fn after_fork(&self, _copied_as: Option<CpuId>) {
        // SAFETY: locked by `before_fork_frames`, and given back once.
        unsafe { self.unlock_all() };
    }
}

impl<C: Config + Sync> Instance for Heap<'static, Hosted, C> {
    fn give_back(&'static self) {
        self.drain_cpu();
        // Frames of slabs have gone to their instance's pool, which has been emptied before if it came before.
        self.frames().drain_cpu();
    }

    fn before_fork(&self, pinned: &Pinned<Hosted>) {
        self.lock_own(pinned);
    }

    #[allow(unsafe_code, reason = "locks that are held from one call to another")]
    fn after_fork(&self, copied_as: Option<CpuId>) {
        // SAFETY: locked by `before_fork`, and given back once.
        unsafe { self.unlock_own(copied_as) };
    }
}

/// An instance in the list of all.
pub(crate) struct Member {
    instance: &'static dyn Instance,
    next: OnceLock<&'static Member>,
}

/// The list: only ever added to, and read without a lock, since a child of `fork` must be able to read it.
static FIRST: OnceLock<&'static Member> = OnceLock::new();

impl Member {
    pub(crate) const fn new(instance: &'static dyn Instance) -> Self {
        Self { instance, next: OnceLock::new() }
    }

    pub(crate) fn instance(&self) -> &'static dyn Instance {
        self.instance
    }

    /// Adds it to the list; once.
    pub(crate) fn join(&'static self) {
        let mut place = &FIRST;
        while place.set(self).is_err()
            && let Some(other) = place.get()
        {
            place = &other.next;
        }
    }
}

/// Makes the pools of this number, which somebody has just taken, usable everywhere; `false` if that cannot be.
pub(crate) fn prepare(number: u32) -> bool {
    // Either the number is seen to be taken by who adds an instance, or that instance is seen here: a fence on each
    // side of both.
    fence(Ordering::SeqCst);
    all().all(|instance| instance.prepare(number))
}

/// Every instance, in the order in which they came.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn Instance> {
    std::iter::successors(FIRST.get().copied(), |member| member.next.get().copied()).map(|member| member.instance)
}

/// The instances whose locks are held while the process is copied: the first so many, since others may join meanwhile.
static LOCKED: AtomicUsize = AtomicUsize::new(0);

/// Takes the locks of all instances.
pub(crate) fn before_fork(pinned: &Pinned<Hosted>) {
    let count = all().count();
    all().take(count).for_each(|instance| instance.before_fork(pinned));
    all().take(count).for_each(|instance| instance.before_fork_frames(pinned));
    // Relaxed: whoever forks at the same time waits for one of the locks, if there are any.
    LOCKED.store(count, Ordering::Relaxed);
}

/// Gives them back.
pub(crate) fn after_fork(copied_as: Option<CpuId>) {
    all().take(LOCKED.load(Ordering::Relaxed)).for_each(|instance| instance.after_fork(copied_as));
}
