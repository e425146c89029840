//! Pages before they are touched: a fault for each of them costs more than one call for many.
//!
//! Whenever frames are lent beyond all that were lent before, the pages that follow are asked for together, a *run* of
//! them. Runs double while the heap grows, and are no more than a part of what is in use: so a small heap gets none,
//! and none gets much more than it would have touched soon. What was given back and is lent again comes page by page.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::options::{Prefault, options};
use crate::reserve::{PAGE, Populated, Reservation};

/// With less in use there is nothing to win, and a small program stays small.
const SMALL_BYTES: usize = 2 << 20;
/// A run is at most this part of what is in use.
const SHARE: usize = 16;
const LEAST_RUN: usize = 32 << 10;
const MOST_RUN: usize = 1 << 20;

/// How far pages of one heap are there.
pub(crate) struct Ahead {
    /// The offset that all that was lent, or asked for, lies below.
    mark: AtomicUsize,
    /// Bytes of the last run.
    run: AtomicUsize,
    /// Whether the system does not know how, or does not want to.
    is_refused: AtomicBool,
}

impl Ahead {
    pub(crate) const fn new() -> Self {
        Self { mark: AtomicUsize::new(0), run: AtomicUsize::new(LEAST_RUN / 2), is_refused: AtomicBool::new(false) }
    }

    /// Whether these bytes end beyond all that were lent so far.
    #[inline]
    pub(crate) fn is_beyond(&self, lent: &Range<usize>) -> bool {
        // Relaxed, here and below: whoever comes too late asks for pages that are there.
        lent.end > self.mark.load(Ordering::Relaxed)
    }

    /// Asks for the pages of bytes that are lent and of those that follow, in a heap of `memory` bytes of which `used`
    /// are in use. Nobody need have touched them.
    #[cold]
    pub(crate) fn lent(&self, reservation: Reservation, lent: Range<usize>, used: usize, memory: usize) {
        let mark = self.mark.fetch_max(lent.end, Ordering::Relaxed);
        let run = match options().prefault() {
            Prefault::Off => return,
            Prefault::Bytes(bytes) => bytes.next_multiple_of(PAGE),
            Prefault::Auto if used < SMALL_BYTES => return,
            Prefault::Auto => {
                let most = (used / SHARE).min(MOST_RUN) & !(PAGE - 1);
                let run = (2 * self.run.load(Ordering::Relaxed)).clamp(LEAST_RUN, most.max(LEAST_RUN));
                self.run.store(run, Ordering::Relaxed);
                run
            }
        };
        let from = lent.start.max(mark);
        let run = from..(from + run).min(memory);
        if run.is_empty() || self.is_refused.load(Ordering::Relaxed) {
            return;
        }
        match reservation.populate(run.clone()) {
            Populated::Yes => {
                self.mark.fetch_max(run.end, Ordering::Relaxed);
            }
            Populated::NotNow => {}
            Populated::Never => self.is_refused.store(true, Ordering::Relaxed),
        }
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn pages_are_asked_for_once_and_only_where_there_is_memory() {
        const MIB: usize = 1 << 20;
        let reservation = Reservation::new(8 * MIB, PAGE).expect("address space");
        assert!(reservation.commit(0..4 * MIB));
        if reservation.populate(0..PAGE) == Populated::Never {
            println!("the system does not know how");
            return;
        }
        assert_eq!(reservation.populate(7 * MIB..9 * MIB), Populated::NotNow);
        assert_eq!(reservation.populate(0..2 * MIB), Populated::Yes);
        reservation.give_up();
    }

    #[test]
    fn what_lies_below_the_mark_was_lent_before() {
        let ahead = Ahead::new();
        assert!(ahead.is_beyond(&(0..PAGE)));
        let reservation = Reservation::new(4 * PAGE, PAGE).expect("address space");
        // Little is in use, or it is off: nothing is asked for, but it was lent.
        ahead.lent(reservation, 0..2 * PAGE, 0, 4 * PAGE);
        assert!(
            !ahead.is_beyond(&(0..PAGE)) && !ahead.is_beyond(&(PAGE..2 * PAGE)) && ahead.is_beyond(&(PAGE..3 * PAGE))
        );
        reservation.give_up();
    }
}
