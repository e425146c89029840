//! The reserve of a memory pool: places for a few objects, taken and filled by any CPU in any context without a lock.
//!
//! ```text
//!   places   │ object │   0    │ object │ object │
//!   full     3   places that hold an object nobody has a claim to
//!   empty    1   places that hold none and that nobody has a claim to
//! ```
//!
//! Who wants an object first claims one by counting `full` down, and then looks for it: as long as he has his claim
//! there is one more object in the places than `full` and the other claims say, so he finds one. Who brings an object
//! claims a place by counting `empty` down. So a request fails only if nothing is there, which no search without a
//! claim could promise: what it seeks could move from where it has not looked to where it has.

use crate::sync::{AtomicUsize, Ordering, const_fn, mutant, relax};

pub(crate) struct Reserve<const N: usize> {
    /// Addresses of objects, 0 where there is none.
    places: [AtomicUsize; N],
    full: AtomicUsize,
    empty: AtomicUsize,
}

impl<const N: usize> Reserve<N> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                #[cfg(not(loom))]
                places: [const { AtomicUsize::new(0) }; N],
                #[cfg(loom)]
                places: core::array::from_fn(|_| AtomicUsize::new(0)),
                full: AtomicUsize::new(0),
                empty: AtomicUsize::new(N),
            }
        }
    }

    /// How many objects there are, none of which has been claimed.
    pub(crate) fn len(&self) -> usize {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes an object out, if there is one.
    pub(crate) fn take(&self) -> Option<usize> {
        if mutant("reserve_unclaimed") {
            return self.places.iter().find_map(take_from).inspect(|_| self.count(&self.empty));
        }
        claim(&self.full)?;
        let object = self.search(take_from);
        self.count(&self.empty);
        Some(object)
    }

    /// Puts an object in, if there is room.
    pub(crate) fn put(&self, object: usize) -> bool {
        if claim(&self.empty).is_none() {
            return false;
        }
        // Release: pairs with the Acquire of `take_from`.
        self.search(|place| place.compare_exchange(0, object, Ordering::Release, Ordering::Relaxed).ok());
        // Afterwards, so that who claims it need not wait for it: he may have interrupted this.
        self.count(&self.full);
        true
    }

    /// Counts one up.
    fn count(&self, count: &AtomicUsize) {
        // Release: pairs with the Acquire of `claim`; who claims it sees it in its place.
        count.fetch_add(1, Ordering::Release);
    }

    /// Whether an object lies here.
    pub(crate) fn holds(&self, object: usize) -> bool {
        self.places.iter().any(|place| place.load(Ordering::Relaxed) == object)
    }

    /// Looks from place to place until `found`, which a claim has promised. Others move meanwhile only by finding
    /// theirs.
    fn search(&self, found: impl Fn(&AtomicUsize) -> Option<usize>) -> usize {
        loop {
            if let Some(object) = self.places.iter().find_map(&found) {
                return object;
            }
            relax();
        }
    }
}

fn take_from(place: &AtomicUsize) -> Option<usize> {
    let object = place.load(Ordering::Relaxed);
    if object == 0 {
        return None;
    }
    if mutant("reserve_taken_plain") {
        place.store(0, Ordering::Relaxed);
        return Some(object);
    }
    // Acquire: pairs with the Release of `put`; what its last user did to the object is done.
    let order = if mutant("reserve_taken_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
    Some(place.swap(0, order)).filter(|&object| object != 0)
}

/// Counts one down, unless there is none.
fn claim(count: &AtomicUsize) -> Option<usize> {
    // Acquire: pairs with the Release of who counted it up.
    count.fetch_update(Ordering::Acquire, Ordering::Relaxed, |count| count.checked_sub(1)).ok()
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_holds_so_many_and_no_more() {
        let reserve = Reserve::<3>::new();
        assert_eq!(reserve.take(), None);
        assert!((1..=3).all(|object| reserve.put(object)) && !reserve.put(4));
        assert!(reserve.holds(2) && !reserve.holds(4));
        let mut taken = [reserve.take(), reserve.take(), reserve.take()];
        taken.sort_unstable();
        assert_eq!(taken, [Some(1), Some(2), Some(3)]);
        assert_eq!((reserve.take(), reserve.len()), (None, 0));
    }

    #[test]
    fn concurrent_takers_who_bring_as_much_never_go_without() {
        const THREADS: usize = 4;
        let reserve = Reserve::<THREADS>::new();
        (1..=THREADS).for_each(|object| assert!(reserve.put(object)));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..if cfg!(miri) { 5 } else { 20_000 } {
                        let object = reserve.take().expect("there is one for each");
                        assert!(reserve.put(object), "it came from here");
                    }
                });
            }
        });
        assert_eq!(reserve.len(), THREADS);
    }
}
