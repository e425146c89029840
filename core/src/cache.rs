//! A cache: the slabs of one class on one node.
//!
//! ```text
//!              under the lock                                     without
//!   refill ◄── partial ── slab ── slab ── …          queue ◄── slabs that frees have changed:
//!              empty ──── slab                                  full no more, or empty
//!              (full: listed nowhere)                           │
//!                 ▲                                             │
//!                 └───────── sorted by the lock's next holder ──┘
//! ```
//!
//! Slots are taken from the fullest of the first few slabs, so that the others have a chance to become empty. A few
//! empty slabs are kept; what is beyond that is given to whoever holds the lock, who gives their frames back when he
//! has let go.

use crate::arena::{Access, Busy};
use crate::platform::Platform;
use crate::slab::{Listed, Slab, Taker};
use crate::sync::{AtomicU32, AtomicU64, Chain, Lock, Ordering, const_fn};

/// Slabs that a refill compares before it takes from the fullest.
const LOOK: usize = 4;

/// A doubly linked list through the descriptors, under the cache's lock.
struct List<'m> {
    first: Option<&'m Slab<'m>>,
    len: usize,
}

impl<'m> List<'m> {
    const fn new() -> Self {
        Self { first: None, len: 0 }
    }

    fn insert(&mut self, slab: &'m Slab<'m>) {
        slab.previous.set(None);
        slab.next.set(self.first);
        if let Some(first) = self.first {
            first.previous.set(Some(slab));
        }
        self.first = Some(slab);
        self.len += 1;
    }

    fn remove(&mut self, slab: &'m Slab<'m>) {
        let (previous, next) = (slab.previous.get(), slab.next.get());
        match previous {
            Some(previous) => previous.next.set(next),
            None => self.first = next,
        }
        if let Some(next) = next {
            next.previous.set(previous);
        }
        slab.next.set(None);
        slab.previous.set(None);
        self.len -= 1;
    }

    fn iter(&self) -> impl Iterator<Item = &'m Slab<'m>> + use<'m> {
        core::iter::successors(self.first, |slab| slab.next.get())
    }
}

/// What the lock covers.
struct Lists<'m> {
    partial: List<'m>,
    empty: List<'m>,
    /// Slabs in all.
    slabs: usize,
}

/// Counts of a cache, for statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct CacheCount {
    /// Slabs it has.
    pub(crate) slabs: usize,
    /// Of these, slabs with nothing out.
    pub(crate) empty: usize,
    /// Slots that are out, of those slabs that are not full; full ones are not listed.
    pub(crate) partial_used: usize,
    /// Slabs listed as partial.
    pub(crate) partial: usize,
    /// Slots that were ever taken.
    pub(crate) taken: u64,
}

/// The slabs of one class on one node.
pub(crate) struct Cache<'m, P: Platform> {
    lists: Lock<P, Lists<'m>>,
    queue: Chain<'m, Slab<'m>>,
    /// Slots ever taken from its slabs. Written under the lock.
    taken: AtomicU64,
    /// Slabs, and those listed as empty, as a look without the lock sees them.
    slabs: AtomicU32,
    empty: AtomicU32,
}

impl<'m, P: Platform> Cache<'m, P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            let lists = Lists { partial: List::new(), empty: List::new(), slabs: 0 };
            Self {
                lists: Lock::new(lists),
                queue: Chain::new(),
                taken: AtomicU64::new(0),
                slabs: AtomicU32::new(0),
                empty: AtomicU32::new(0),
            }
        }
    }

    fn with<R>(&self, access: Access<'_, P>, work: impl FnOnce(&mut Lists<'m>) -> R) -> Result<R, Busy> {
        let mut lists = match access {
            Access::Wait(pinned) => self.lists.lock(pinned),
            Access::Try => self.lists.try_lock().ok_or(Busy)?,
        };
        let done = work(&mut lists);
        // Relaxed, here and below: written under the lock, and a look without it is a guess.
        self.slabs.store(lists.slabs as u32, Ordering::Relaxed);
        self.empty.store(lists.empty.len as u32, Ordering::Relaxed);
        Ok(done)
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        each.one(&self.lists);
    }

    /// Takes up to `most` slots; answers how many, which is fewer only if all slabs are full.
    pub(crate) fn take(
        &self,
        access: Access<'_, P>,
        most: usize,
        taker: Taker,
        mut give: impl FnMut(usize),
    ) -> Result<usize, Busy> {
        self.with(access, |lists| {
            self.sort(lists);
            let mut taken = 0;
            while taken < most {
                let Some(slab) = lists.fullest() else { break };
                let (count, more) = slab.take(most - taken, taker, &mut give);
                taken += count;
                lists.list(slab, if more { Listed::Partial } else { Listed::Nowhere });
            }
            // No read-modify-write: written under the lock.
            self.taken.store(self.taken.load(Ordering::Relaxed) + taken as u64, Ordering::Relaxed);
            taken
        })
    }

    /// Gives slots of one word back; the slab's count follows by [`retire`](Self::retire).
    ///
    /// Lock-free, for any CPU in any context.
    pub(crate) fn retire(&self, slab: &'m Slab<'m>, count: u32) {
        if slab.retire(count) {
            self.queue.push(slab);
        }
    }

    /// Adds a slab that has just been described.
    pub(crate) fn add(&self, access: Access<'_, P>, slab: &'m Slab<'m>) -> Result<(), Busy> {
        self.with(access, |lists| {
            lists.slabs += 1;
            lists.list(slab, Listed::Empty);
        })
    }

    /// Takes an empty slab out for good if there are more than `keep`.
    pub(crate) fn release(&self, access: Access<'_, P>, keep: usize) -> Result<Option<&'m Slab<'m>>, Busy> {
        self.with(access, |lists| {
            self.sort(lists);
            let idle = lists.empty.iter().find(|slab| slab.is_idle());
            let slab = idle.filter(|_| lists.empty.len > keep)?;
            lists.list(slab, Listed::Nowhere);
            lists.slabs -= 1;
            Some(slab)
        })
    }

    /// How many slabs it has, as a look without the lock sees it.
    pub(crate) fn slabs(&self) -> usize {
        self.slabs.load(Ordering::Relaxed) as usize
    }

    /// Whether there may be more than `keep` empty slabs: there are, or some slab has become empty or has slots again.
    #[inline]
    pub(crate) fn may_release(&self, keep: usize) -> bool {
        !self.queue.is_empty() || self.empty.load(Ordering::Relaxed) as usize > keep
    }

    /// Lists the slabs that frees have queued where they belong now.
    fn sort(&self, lists: &mut Lists<'m>) {
        if self.queue.is_empty() {
            return;
        }
        for slab in self.queue.take() {
            slab.unqueue();
            let listed = match slab.used() {
                0 => Listed::Empty,
                used if used < slab.slots() => Listed::Partial,
                _ => Listed::Nowhere,
            };
            lists.list(slab, listed);
        }
    }

    /// Counts; exact while nothing moves.
    pub(crate) fn count(&self, access: Access<'_, P>) -> Result<CacheCount, Busy> {
        self.with(access, |lists| {
            self.sort(lists);
            CacheCount {
                slabs: lists.slabs,
                empty: lists.empty.len,
                partial: lists.partial.len,
                partial_used: lists.partial.iter().map(|slab| slab.used() as usize).sum(),
                taken: self.taken.load(Ordering::Relaxed),
            }
        })
    }

    /// Checks that every listed slab is one of `own`, and that its bits agree with its count. Exact while nothing
    /// moves.
    pub(crate) fn validate(
        &self,
        access: Access<'_, P>,
        own: impl Fn(&Slab<'m>) -> bool,
    ) -> Result<Result<(), usize>, Busy> {
        self.with(access, |lists| {
            self.sort(lists);
            for (list, kind) in [(&lists.partial, Listed::Partial), (&lists.empty, Listed::Empty)] {
                for slab in list.iter() {
                    let adds_up = slab.free_bits() + slab.used() == slab.slots();
                    let empty = slab.used() == 0;
                    let right = own(slab) && slab.listed() == kind;
                    if !adds_up || !right || empty != (kind == Listed::Empty) {
                        return Err(slab.start());
                    }
                }
                if list.iter().count() != list.len {
                    return Err(0);
                }
            }
            Ok(())
        })
    }
}

impl<'m> Lists<'m> {
    /// Moves a slab to the list where it belongs.
    fn list(&mut self, slab: &'m Slab<'m>, listed: Listed) {
        let before = slab.listed();
        if before == listed {
            return;
        }
        match before {
            Listed::Partial => self.partial.remove(slab),
            Listed::Empty => self.empty.remove(slab),
            Listed::Nowhere => {}
        }
        match listed {
            Listed::Partial => self.partial.insert(slab),
            Listed::Empty => self.empty.insert(slab),
            Listed::Nowhere => {}
        }
        slab.set_listed(listed);
    }

    /// The slab to take from.
    fn fullest(&self) -> Option<&'m Slab<'m>> {
        self.partial.iter().take(LOOK).max_by_key(|slab| slab.used()).or(self.empty.first)
    }
}
