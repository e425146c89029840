//! The shadow: for each place where an object could start, a byte that says whether one is lent there.
//!
//! ```text
//!   span    │ 48 │ 48 │ 48 │ 48 │ …        │ 64  │ 64  │ …
//!             ▼    ▼    ▼    ▼               ▼     ▼
//!   32 … 56 │l0│  │l2│l1│                    one byte for each 32 bytes of the span
//!   64 … 112│                              │l0│  │        one for each 64; and so on, an array an octave of sizes
//! ```
//!
//! A class has its sizes' octave in common with three others; slots of one class are at least as far apart as the bytes
//! of that octave's array, so no two share one. The byte of a lent object tells its class and its start: `1`, which of
//! the octave's classes, and where in the byte's stretch of the span it starts. Every other byte is 0: what was never
//! lent, what is free, whatever lies inside an object. So one load and one comparison answer whether an object of this
//! class starts here and is lent, with no look at a slab; the arrays start at zero and cost memory only where objects are.
//!
//! For spans whose metadata is backed lazily: the arrays are a quarter of the span long. Elsewhere the marks stand in the
//! slabs' descriptors (`Slab::mark`), which takes three loads more.

use core::ops::Range;

use crate::carve::{Carver, Plan};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU8, Ordering, PublishSlice};

/// The octaves of the classes' sizes: 8, 16, 32, …, 32768; and three more, so that no index is out of bounds.
const OCTAVES: usize = SizeClass::COUNT / 4;
/// The octaves that there are classes of.
const USED: usize = SizeClass::MAX_BYTES.ilog2() as usize - 2;
/// log2 of the first.
const FIRST_LOG2: u32 = 3;

/// What the byte of a lent object of the first class of an octave is, at the first of the four places that share it.
const LENT: u8 = 0x80;

/// The arrays, for a span that grows at its end.
pub(crate) struct Shadow<'m> {
    octaves: [PublishSlice<'m, AtomicU8>; OCTAVES],
}

impl<'m> Shadow<'m> {
    pub(crate) const fn empty() -> Self {
        Self { octaves: [const { PublishSlice::empty() }; OCTAVES] }
    }

    /// What a span of so many bytes needs.
    pub(crate) const fn plan(plan: Plan, span_bytes: usize) -> Plan {
        let (mut plan, mut octave) = (plan, 0);
        while octave < USED {
            plan = plan.and::<AtomicU8>(Self::len(octave, span_bytes));
            octave += 1;
        }
        plan
    }

    /// The bytes of all arrays.
    pub(crate) fn bytes(span_bytes: usize) -> usize {
        (0..USED).map(|octave| Self::len(octave, span_bytes)).sum()
    }

    /// The bytes about a part of the span, array by array, counted from the first array's beginning.
    pub(crate) fn ranges(span_bytes: usize, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        (0..USED).scan(0, move |next, octave| {
            let first = *next;
            *next += Self::len(octave, span_bytes);
            let place = |byte: usize| (first + (byte >> (octave as u32 + FIRST_LOG2))).min(*next);
            Some(place(part.start)..place(part.end - 1).saturating_add(1).min(*next))
        })
    }

    const fn len(octave: usize, span_bytes: usize) -> usize {
        span_bytes >> (octave as u32 + FIRST_LOG2)
    }

    /// Shadows a span of so many bytes.
    pub(crate) fn init(&self, span_bytes: usize, carver: &mut Carver<'m>) {
        for (octave, place) in self.octaves[..USED].iter().enumerate() {
            let bytes = carver.zeros(Self::len(octave, span_bytes));
            if !bytes.is_empty() {
                place.set(bytes);
            }
        }
    }

    /// Where the first array begins.
    pub(crate) fn address(&self) -> usize {
        self.octaves[0].slice().as_ptr().addr()
    }

    /// The byte of an object at `offset` of the span, and what it is while the object is lent.
    ///
    /// Starts of the class are multiples of a quarter of its octave, so four places share a byte. An offset that is none
    /// of these has its low bits rotated to the top: no array is that long.
    #[inline(always)]
    fn byte(&self, class: SizeClass, offset: usize) -> Option<(&'m AtomicU8, u8)> {
        let quarter = offset.rotate_right(class.octave() as u32 + FIRST_LOG2 - 2);
        let byte = self.octaves[class.octave()].slice().get(quarter / 4)?;
        Some((byte, LENT | (class.step() as u8) << 2 | quarter as u8 & 3))
    }

    /// Marks an object of a slab as lent.
    #[inline(always)]
    pub(crate) fn lend(&self, class: SizeClass, offset: usize) {
        if let Some((byte, lent)) = self.byte(class, offset) {
            // Relaxed: ordered for the next owner by what hands the object over.
            byte.store(lent, Ordering::Relaxed);
        }
    }

    /// Whether an object of the class starts there and is lent.
    #[inline(always)]
    pub(crate) fn is_lent(&self, class: SizeClass, offset: usize) -> bool {
        self.byte(class, offset).is_some_and(|(byte, lent)| byte.load(Ordering::Relaxed) == lent)
    }

    /// Takes the mark off a lent object of the class; `false` if none starts there.
    #[inline(always)]
    pub(crate) fn take_back(&self, class: SizeClass, offset: usize) -> bool {
        let Some((byte, lent)) = self.byte(class, offset) else { return false };
        if byte.load(Ordering::Relaxed) != lent {
            return false;
        }
        byte.store(0, Ordering::Relaxed);
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::testing::bytes;

    /// Bytes of a span, and the classes of which it has room for several objects.
    const SPAN_BYTES: usize = if cfg!(miri) { 2 << 10 } else { 128 << 10 };

    fn classes() -> impl Iterator<Item = SizeClass> {
        SizeClass::all().filter(|class| 4 * class.bytes() <= SPAN_BYTES && (!cfg!(miri) || class.index() % 5 == 0))
    }

    #[test]
    fn an_object_is_known_by_its_class_and_its_start_alone() {
        let span_bytes = SPAN_BYTES;
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        let shadow = Shadow::empty();
        shadow.init(span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        for class in classes() {
            let offset = 3 * class.bytes();
            shadow.lend(class, offset);
            for other in classes() {
                for near in offset.saturating_sub(16)..(offset + 17).min(span_bytes) {
                    assert_eq!(shadow.is_lent(other, near), other == class && near == offset, "{near} {other:?}");
                }
            }
            assert!(shadow.take_back(class, offset) && !shadow.take_back(class, offset));
        }
    }

    #[test]
    fn neighbours_have_bytes_of_their_own() {
        let span_bytes = SPAN_BYTES;
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        for class in classes() {
            let shadow = Shadow::empty();
            shadow.init(span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
            let slots = span_bytes / class.bytes();
            (0..slots).for_each(|slot| shadow.lend(class, slot * class.bytes()));
            (0..slots).step_by(2).for_each(|slot| assert!(shadow.take_back(class, slot * class.bytes())));
            (0..slots).for_each(|slot| assert_eq!(shadow.is_lent(class, slot * class.bytes()), slot % 2 == 1));
        }
    }

    #[test]
    fn what_is_outside_is_not_lent() {
        let shadow = Shadow::empty();
        let class = SizeClass::new(0).unwrap();
        assert!(!shadow.is_lent(class, 0) && !shadow.is_lent(class, usize::MAX) && !shadow.take_back(class, 1 << 40));
    }
}
