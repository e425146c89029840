//! Freed large blocks at hand for the next request of their size, which takes no lock for one.
//!
//! ```text
//!   free      word of the first frame: lent → ready      then: does the hint of its size lead here? if not, change it
//!   request   the hint of its size                       then: word of the first frame: ready → lent
//! ```
//!
//! The word says whether a block may be had; who changes it from `LargeReady` has it. A hint only says where to look,
//! may lead to a block that is lent by now, and is left as it is by requests: so a program that frees and asks for one
//! size over and over pays for two exchanges of one word, and reads the hint.
//!
//! **Nothing is lost.** Whoever puts a hint in the place of another looks after the block that the other led to: if
//! that is ready he takes it, and it goes to the [kept blocks](super::kept). Whoever frees a block leaves the hint
//! alone if it leads there already. Between these two it is as between the two halves of Dekker's lock: each writes its
//! own word, then reads the other's, so one of them sees what the other did.
//!
//! ```text
//!   frees b                          frees c, of the same place
//!   word of b: ready     (SeqCst)    hint: c              (SeqCst)
//!   hint: leads to b?    (SeqCst)    word of b: ready?    (SeqCst)
//! ```

use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::sync::{AtomicU64, Ordering, const_fn, fence_in_models, mutant};

/// Places for hints, one for some sizes each.
const PLACES: usize = if cfg!(loom) { 1 } else { 8 };
/// Bits of a hint for the number of frames.
const COUNT_BITS: u32 = 20;

/// The hints, in a cache line.
#[repr(align(64))]
pub(crate) struct Ready {
    hints: [AtomicU64; PLACES],
}

/// A span as a hint, which is not 0; `None` if it is too large for one.
#[inline]
fn hint_of(span: FrameSpan) -> Option<u64> {
    let (start, count) = (span.start().number() as u64, span.count().get() as u64);
    (count >> COUNT_BITS == 0 && start.leading_zeros() >= COUNT_BITS).then_some(start << COUNT_BITS | count)
}

/// What a hint leads to, if it is any.
#[inline]
fn span_of(hint: u64) -> Option<FrameSpan> {
    let count = FrameCount::new((hint & ((1 << COUNT_BITS) - 1)) as usize);
    FrameSpan::new(Pfn::new((hint >> COUNT_BITS) as usize), count).ok().filter(|_| hint != 0)
}

impl Ready {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self { hints: [const { AtomicU64::new(0) }; PLACES] };
            #[cfg(loom)]
            return Self { hints: core::array::from_fn(|_| AtomicU64::new(0)) };
        }
    }

    #[inline]
    fn place(&self, count: FrameCount) -> &AtomicU64 {
        // Neighbouring sizes have places of their own, whatever their steps: a multiplication by the golden ratio.
        let mixed = (count.get() as u32).wrapping_mul(0x9e37_79b9);
        &self.hints[(mixed >> 29) as usize % PLACES]
    }

    /// The block of just so many frames that may be at hand.
    #[inline]
    pub(crate) fn look(&self, count: FrameCount) -> Option<FrameSpan> {
        // Relaxed: a hint orders nothing, the block's word does.
        span_of(self.place(count).load(Ordering::Relaxed)).filter(|span| span.count() == count)
    }

    /// Leaves a hint to a block that the caller has made ready. Answers the block that another hint led to, of which
    /// the caller must see whether it is ready; or this one, if it is too large for hints.
    #[inline]
    pub(crate) fn show(&self, span: FrameSpan) -> Option<FrameSpan> {
        let Some(hint) = hint_of(span) else { return Some(span) };
        let place = self.place(span.count());
        if !mutant("ready_unseen") {
            fence_in_models();
        }
        // SeqCst, both: see above.
        if place.load(Ordering::SeqCst) == hint {
            return None;
        }
        let before = place.swap(hint, Ordering::SeqCst);
        if !mutant("hint_unseen") {
            fence_in_models();
        }
        span_of(before).filter(|&before| before != span)
    }

    /// Takes all hints away; of the blocks that they led to the caller must see whether they are ready.
    pub(crate) fn take(&self) -> impl Iterator<Item = FrameSpan> {
        self.hints.iter().filter_map(|place| {
            // Relaxed: mostly there is none, and who misses one that comes just now leaves it to whoever comes next.
            if place.load(Ordering::Relaxed) == 0 {
                return None;
            }
            // SeqCst: as in `show`.
            let before = place.swap(0, Ordering::SeqCst);
            fence_in_models();
            span_of(before)
        })
    }

    /// Where the hints lead, as a look sees it.
    pub(crate) fn hints(&self) -> impl Iterator<Item = FrameSpan> {
        self.hints.iter().filter_map(|place| span_of(place.load(Ordering::Relaxed)))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::testing::span;

    #[test]
    fn a_hint_leads_to_a_block_of_its_size_until_another_takes_its_place() {
        let ready = Ready::new();
        assert_eq!(ready.look(FrameCount::new(16)), None);
        assert_eq!(ready.show(span(32, 16)), None);
        assert_eq!(ready.show(span(32, 16)), None, "it is there already");
        assert_eq!(ready.look(FrameCount::new(16)), Some(span(32, 16)));
        assert_eq!(ready.show(span(0, 16)), Some(span(32, 16)));
        assert_eq!(ready.hints().collect::<std::vec::Vec<_>>(), [span(0, 16)]);
        assert_eq!(ready.take().collect::<std::vec::Vec<_>>(), [span(0, 16)]);
        assert_eq!(ready.take().count(), 0);
    }

    #[test]
    fn what_has_no_room_in_a_hint_comes_back() {
        let ready = Ready::new();
        let large = span(0, 1 << COUNT_BITS);
        assert_eq!(ready.show(large), Some(large));
        assert_eq!(ready.hints().count(), 0);
    }
}
