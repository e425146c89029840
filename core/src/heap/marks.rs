//! Which slots are lent: where their marks are, and how they are set and taken off.

use super::Heap;
use crate::config::Config;
use crate::platform::Platform;
use crate::pool::ObjectPool;
use crate::size_class::SizeClass;
use crate::slab::{Shape, Slab, brief_of, class_of_brief, slot_around, slot_at};
use crate::sync::{AtomicU8, Ordering, Reach};

/// The mark of a slot that is lent, where the slabs' descriptors have the marks, and of one whose object is a sample.
/// All others are not lent.
const LENT: u8 = 1;
const SAMPLE: u8 = 2;

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Whether the slabs' descriptors have the marks of their slots.
    pub(super) const MARKS_IN_SLABS: bool = C::CHECKED && !C::LINEAR_SHADOW;

    /// Whether class and node are all that a free looks at.
    const BRIEFS: bool = C::NUMA && !C::CHECKED;

    /// Whether briefs are kept: for such frees, and for those whose layout nobody knows where metadata costs memory
    /// only as far as it is used.
    pub(super) const KEEPS_BRIEFS: bool = Self::BRIEFS || C::LINEAR_SHADOW;

    /// Marks an object as lent, at levels that check.
    #[inline(always)]
    pub(crate) fn mark(&self, class: SizeClass, address: usize) {
        self.mark_by(class, address, Reach::Folded);
    }

    /// As [`mark`](Self::mark).
    #[inline(always)]
    pub(crate) fn mark_by(&self, class: SizeClass, address: usize, reach: Reach) {
        if !C::CHECKED {
            return;
        }
        if C::LINEAR_SHADOW {
            return self.shadow.lend(class, self.window.offset(address), reach);
        }
        // What a pool holds is some slab's, unless two frees of one object passed at the same moment and its slab has
        // gone since.
        if let Some(slab) = self.slab_settled(address)
            && let Some(mark) = slab.mark(slot_around(class, Self::offset_in_slab(class, address)))
        {
            // Relaxed: ordered for the next owner by what hands the object over.
            mark.store(LENT, Ordering::Relaxed);
        }
    }

    /// Takes the mark off a lent object of `class`; `false` if none starts there.
    ///
    /// A load and a store, not an exchange: of two frees at the same moment both may pass, and the second is then found
    /// by the slab. An exchange would cost more than the rest of a free. For who has a pool of the heap, or knows that
    /// it is ready.
    #[inline(always)]
    pub(crate) fn unmark(&self, class: SizeClass, address: usize) -> bool {
        if C::LINEAR_SHADOW {
            return self.shadow.take_back(class, self.window.offset(address));
        }
        self.slab_settled(address).is_some_and(|slab| slab.is_of(class) && Self::unmark_in(slab, class, address))
    }

    /// As [`unmark`](Self::unmark), for an address in a slab of the class where marks stand in the slabs.
    #[inline(always)]
    fn unmark_in(slab: &Slab<'m>, class: SizeClass, address: usize) -> bool {
        let slot = slot_at(class, Self::offset_in_slab(class, address));
        let Some(mark) = slot.and_then(|slot| slab.mark(slot)) else { return false };
        if mark.load(Ordering::Relaxed) != LENT {
            return false;
        }
        mark.store(0, Ordering::Relaxed);
        true
    }

    /// Whether an object may go to a CPU's pool: as far as the level tells, one of `class` that is on the CPU's node is
    /// lent there. Its mark is off then. If not, nothing has happened.
    #[inline(always)]
    pub(crate) fn accept(&self, pool: &ObjectPool, class: SizeClass, address: usize) -> bool {
        if Self::BRIEFS {
            let brief = self.briefs.settled().get(self.window.offset(address) / C::SLAB_BYTES);
            return brief.is_some_and(|brief| brief.load(Ordering::Relaxed) == brief_of(class, pool.home()));
        }
        if C::NUMA {
            // One comparison for class and node.
            let Some(slab) = self.slab_settled(address) else { return false };
            return slab.is_of_on(class, pool.home())
                && match C::LINEAR_SHADOW {
                    true => self.shadow.take_back(class, self.window.offset(address)),
                    false => Self::unmark_in(slab, class, address),
                };
        }
        if C::CHECKED { self.unmark(class, address) } else { self.window.offset(address) < self.span_bytes.settled() }
    }

    /// The class of the slab that an address is in, for who has a pool of the heap.
    #[inline(always)]
    pub(crate) fn class_at(&self, address: usize) -> Option<SizeClass> {
        if Self::KEEPS_BRIEFS {
            let brief = self.briefs.settled().get(self.window.offset(address) / C::SLAB_BYTES)?;
            return class_of_brief(brief.load(Ordering::Relaxed));
        }
        self.slab_settled(address)?.class()
    }

    /// As [`class_at`](Self::class_at) where briefs are kept, for who looks at the mark of that class: where there is
    /// no slab it is some class, of which nothing is lent there.
    #[inline(always)]
    pub(crate) fn class_if_any(&self, address: usize) -> Option<SizeClass> {
        let brief = self.briefs.settled().get(self.window.offset(address) / C::SLAB_BYTES)?;
        Some(SizeClass::from_low_bits(brief.load(Ordering::Relaxed)))
    }

    /// As [`unmark`](Self::unmark), by an exchange: of several at the same moment one succeeds.
    pub(crate) fn unmark_once(&self, class: SizeClass, address: usize) -> bool {
        self.exchange_mark(class, address, false)
    }

    /// Makes a lent object, which nobody but the caller knows, a sample.
    pub(super) fn mark_sample(&self, class: SizeClass, address: usize) {
        if C::LINEAR_SHADOW {
            return self.shadow.lend_sample(class, self.window.offset(address));
        }
        if let Some(mark) = self.mark_of(class, address) {
            // Relaxed: as `mark`.
            mark.store(SAMPLE, Ordering::Relaxed);
        }
    }

    /// As [`unmark_once`](Self::unmark_once), for a sample.
    pub(super) fn unmark_sample(&self, class: SizeClass, address: usize) -> bool {
        C::SAMPLED
            && C::CHECKED
            && self.slab_of(address).is_some_and(|slab| slab.is_of(class))
            && self.exchange_mark(class, address, true)
    }

    fn exchange_mark(&self, class: SizeClass, address: usize, sample: bool) -> bool {
        if C::LINEAR_SHADOW {
            return self.shadow.take_back_once(class, self.offset(address), sample);
        }
        let lent = if sample { SAMPLE } else { LENT };
        let mark = self.mark_of(class, address);
        // Relaxed: as `mark`.
        mark.is_some_and(|mark| mark.compare_exchange(lent, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }

    /// The mark of the object of `class` that starts at `address`.
    #[inline(always)]
    fn mark_of(&self, class: SizeClass, address: usize) -> Option<&'m AtomicU8> {
        let slab = self.slab_of(address)?;
        if !slab.is_of(class) {
            return None;
        }
        slab.mark(slot_at(class, Self::offset_in_slab(class, address))?)
    }

    /// How far into its slab an address is. A slab starts at a multiple of its size, which the window's base keeps.
    #[inline(always)]
    fn offset_in_slab(class: SizeClass, address: usize) -> usize {
        address & (Shape::of::<C>(class).bytes - 1)
    }

    /// Whether the object of `class`, the slab's, at `address` is lent, as far as marks or bits tell.
    pub(crate) fn is_lent(&self, slab: &Slab<'_>, class: SizeClass, address: usize) -> bool {
        if !C::CHECKED {
            return slab.slot_of(class, address).is_some_and(|slot| !slab.holds(slot));
        }
        let is = |sample: bool| match C::LINEAR_SHADOW {
            true => self.shadow.is_lent(class, self.offset(address), sample),
            false => {
                let lent = if sample { SAMPLE } else { LENT };
                self.mark_of(class, address).is_some_and(|mark| mark.load(Ordering::Relaxed) == lent)
            }
        };
        is(false) || C::SAMPLED && is(true)
    }
}
