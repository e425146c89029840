//! Who is asked to give memory up, and the walk that asks them.
//!
//! ```text
//!   first ──► shrinker ──► shrinker ──► shrinker ──►
//!                               ▲
//!                             next: whom the walk asks after this one
//! ```
//!
//! A shrinker is called with no lock held, and it may be removed, and even added again, while the walk is busy with it
//! or with the one before. So the walk never keeps its place in a shrinker: whoever is next stands in the list, and who
//! is removed makes way there. One walk goes on at a time, as one CPU reclaims at a time.

use super::Shrink;
use crate::platform::Platform;
use crate::sync::{AtomicU32, Guard, Lock, Ordering, Publish, const_fn, mutant};

/// Bit of [`Shrinker::state`]: it is registered.
const LISTED: u32 = 1;
/// One call that is under way, in [`Shrinker::state`].
const CALL: u32 = 2;

/// A registration with one heap, at a place that lives as long as the heap.
///
/// What it calls may be needed no longer than that: once it is removed and [`is_idle`](Self::is_idle), it is never
/// called again.
pub struct Shrinker<'m> {
    shrink: &'m dyn Shrink,
    /// Under the lock of its list.
    next: Publish<'m, Self>,
    state: AtomicU32,
}

impl<'m> Shrinker<'m> {
    const_fn! {
        /// A registration to be: see [`Heap::add_shrinker`](crate::Heap::add_shrinker).
        pub const fn new(shrink: &'m dyn Shrink) -> Self {
            Self { shrink, next: Publish::empty(), state: AtomicU32::new(0) }
        }
    }

    /// Whether it is registered nowhere and no call of it is under way. As long as it is not added again nothing of it
    /// is touched from now on, and everything that its last call did is done.
    pub fn is_idle(&self) -> bool {
        // Acquire: pairs with the Release of `Call::drop`.
        let order = if mutant("shrinker_idle_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        self.state.load(order) == 0
    }

    /// Claims it for a list; `false` if it is in one.
    fn claim(&self) -> bool {
        // Acquire: pairs with the Release of `release`; the list it was in before has done with `next`.
        self.state.fetch_or(LISTED, Ordering::Acquire) & LISTED == 0
    }

    fn release(&self) {
        self.state.fetch_and(!LISTED, Ordering::Release);
    }
}

/// A call of a shrinker, which ends when this is dropped, also by what unwinds.
pub(super) struct Call<'m>(&'m Shrinker<'m>);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of `is_idle`.
        self.0.state.fetch_sub(CALL, Ordering::Release);
    }
}

/// What the lock covers.
struct List<'m> {
    first: Option<&'m Shrinker<'m>>,
    /// Whom the walk asks next.
    next: Option<&'m Shrinker<'m>>,
}

/// The registrations of a heap. Nothing else is locked while they are.
pub(crate) struct Shrinkers<'m, P: Platform>(Lock<P, List<'m>>);

impl<'m, P: Platform> Shrinkers<'m, P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self(Lock::new(List { first: None, next: None }))
        }
    }

    /// Runs `work` on the list; `None` if this context may not wait for it and finds it held.
    fn with<R>(&self, work: impl FnOnce(&mut List<'m>) -> R) -> Option<R> {
        let run = |mut list: Guard<'_, P, List<'m>>| work(&mut list);
        match P::pin() {
            Some(pinned) => Some(run(self.0.lock(&pinned))),
            None => self.0.try_lock().map(run),
        }
    }

    /// Puts a shrinker in; `Some(false)` if it is in a list already, `None` as [`with`](Self::with).
    pub(crate) fn add(&self, shrinker: &'m Shrinker<'m>) -> Option<bool> {
        self.with(|list| {
            let claimed = shrinker.claim();
            if claimed {
                shrinker.next.set(list.first);
                list.first = Some(shrinker);
            }
            claimed
        })
    }

    /// Takes a shrinker out; `Some(false)` if it is not in.
    pub(crate) fn remove(&self, shrinker: &'m Shrinker<'m>) -> Option<bool> {
        self.with(|list| {
            let is_it = |other: Option<&'m Shrinker<'m>>| other.is_some_and(|other| core::ptr::eq(other, shrinker));
            let mut before = None;
            let mut place = list.first;
            while let Some(found) = place.filter(|_| !is_it(place)) {
                before = Some(found);
                place = found.next.get();
            }
            if place.is_none() {
                return false;
            }
            let after = shrinker.next.get();
            match before {
                Some(before) => before.next.set(after),
                None => list.first = after,
            }
            if is_it(list.next) && !mutant("shrinker_next_stays") {
                list.next = after;
            }
            shrinker.release();
            true
        })
    }

    /// Asks everybody who is registered now, less those who go before it is their turn; answers what they gave
    /// together. For who has the right to reclaim.
    pub(crate) fn walk(&self, ask: impl Fn(&dyn Shrink) -> usize) -> usize {
        self.start();
        core::iter::from_fn(|| self.next()).map(|call| ask(call.0.shrink)).sum()
    }

    pub(super) fn start(&self) {
        let _ = self.with(|list| list.next = list.first);
    }

    /// The next one that the walk asks; it counts as called from here on.
    pub(super) fn next(&self) -> Option<Call<'m>> {
        self.with(|list| {
            let shrinker = list.next?;
            list.next = shrinker.next.get();
            // Relaxed: whoever removes it has the lock first, so this comes before what says that it is idle.
            shrinker.state.fetch_add(CALL, Ordering::Relaxed);
            Some(Call(shrinker))
        })?
    }

    /// Forgets calls that nobody is left to end. The lock is held, or nobody else is there.
    #[cfg(not(loom))]
    pub(crate) fn forget_calls(&self) {
        self.with(|list| {
            let all = core::iter::successors(list.first, |shrinker| shrinker.next.get());
            all.for_each(|shrinker| shrinker.state.store(LISTED, Ordering::Relaxed));
        });
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        each.one(&self.0);
    }
}
