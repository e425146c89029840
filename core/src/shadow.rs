//! The shadow: for each place where an object could start, a byte that says whether one is lent there.
//!
//! ```text
//!   span       │ 48 │ 48 │ 48 │ 48 │ …        │ 64  │ 64  │ …
//!                ▼    ▼    ▼    ▼               ▼     ▼
//!   32 … 56    │l0│  │l2│l1│                    one byte for each 32 bytes of the span
//!   64 … 112   │                              │l0│  │        one for each 64; and so on, a row an octave of sizes
//!
//!   all rows   │ … │ 64 … 112 │    32 … 56    │           16 … 28           │        one array, each row at its own
//!            S/256 S/64      S/32            S/16                          S/8       length from the beginning
//! ```
//!
//! A class has its sizes' octave in common with three others; slots of one class are at least as far apart as the bytes
//! of that octave's row, so no two share one. The byte of a lent object tells its class and where in the byte's stretch
//! of the span it starts; every other byte is 0: what was never lent, what is free, whatever lies inside an object. So
//! one load and one comparison answer whether an object of this class starts here and is lent, with no look at a slab;
//! the array starts at zero and costs memory only where objects are.
//!
//! With `S` a power of two and no less than the span, the rows lie in one array as the levels of a tree do in a heap of
//! an array: the byte of octave `o` for an offset has the index `(S + offset) >> (o + 3)`. An address outside of the span
//! may lead into another octave's row, where no byte is ever what it would have to be.
//!
//! The byte of an object that is a *sample* is another one, so that whoever frees it by its class's byte finds it wrong and
//! looks twice. It tells the octave and not the class, for which there are not enough bytes: the slab knows it.
//!
//! For spans whose metadata is backed lazily: the array is a quarter of the span long. Elsewhere the marks stand in the
//! slabs' descriptors (`Slab::mark`), which takes three loads more.

use core::ops::Range;

use crate::carve::{Carver, Plan};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU8, AtomicUsize, Ordering, PublishSlice, const_fn};

/// The octaves of the classes' sizes: 8, 16, 32, …, 32768.
const OCTAVES: u32 = SizeClass::MAX_BYTES.ilog2() - FIRST_LOG2 + 1;
/// log2 of the first.
const FIRST_LOG2: u32 = 3;

/// From here on bytes say that an object is a sample; below, what else is lent.
const SAMPLES: u32 = 200;
const _: () = assert!(4 * (OCTAVES - 1) * 4 + 4 + 3 < SAMPLES && SAMPLES + OCTAVES * 4 <= 1 << u8::BITS);

/// The array, for a span that grows at its end.
pub(crate) struct Shadow<'m> {
    /// `S` bytes before the span, wrapping around: addresses count from here.
    origin: AtomicUsize,
    bytes: PublishSlice<'m, AtomicU8>,
}

impl<'m> Shadow<'m> {
    const_fn! {
        pub(crate) const fn empty() -> Self {
            Self { origin: AtomicUsize::new(0), bytes: PublishSlice::empty() }
        }
    }

    /// What a span of so many bytes needs.
    pub(crate) const fn plan(plan: Plan, span_bytes: usize) -> Plan {
        plan.and::<AtomicU8>(Self::bytes(span_bytes))
    }

    /// The bytes of the array.
    pub(crate) const fn bytes(span_bytes: usize) -> usize {
        match Self::scale(span_bytes).checked_add(span_bytes) {
            Some(end) => end >> FIRST_LOG2,
            None => usize::MAX,
        }
    }

    /// `S`.
    const fn scale(span_bytes: usize) -> usize {
        match span_bytes.checked_next_power_of_two() {
            Some(scale) => scale,
            None => usize::MAX,
        }
    }

    /// The bytes about a part of the span, row by row.
    pub(crate) fn ranges(span_bytes: usize, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let scale = Self::scale(span_bytes);
        (FIRST_LOG2..FIRST_LOG2 + OCTAVES)
            .map(move |log2| (scale + part.start) >> log2..((scale + part.end - 1) >> log2) + 1)
    }

    /// Shadows a span of so many bytes, whose first has the address `base`.
    pub(crate) fn init(&self, base: usize, span_bytes: usize, carver: &mut Carver<'m>) {
        self.origin.store(base.wrapping_sub(Self::scale(span_bytes)), Ordering::Relaxed);
        let bytes = carver.zeros(Self::bytes(span_bytes));
        if !bytes.is_empty() {
            self.bytes.set(bytes);
        }
    }

    /// Where the array begins.
    pub(crate) fn address(&self) -> usize {
        self.bytes.slice().as_ptr().addr()
    }

    /// The byte of an object at `address`, and what it is while the object is lent.
    ///
    /// Starts of the class are multiples of a quarter of its octave, so four places share a byte. An offset that is none
    /// of these has its low bits rotated to the top: the array is not that long.
    #[inline(always)]
    fn byte(&self, class: SizeClass, address: usize) -> Option<(&'m AtomicU8, u8)> {
        let place = address.wrapping_sub(self.origin.load(Ordering::Relaxed));
        let quarter = place.rotate_right(class.octave() as u32 + FIRST_LOG2 - 2);
        let byte = self.bytes.slice().get(quarter / 4)?;
        // Never 0, and different in each octave.
        Some((byte, ((quarter as u32 & 3) + class.number() * 4 + 4) as u8))
    }

    /// Marks an object of a slab as lent.
    #[inline(always)]
    pub(crate) fn lend(&self, class: SizeClass, address: usize) {
        if let Some((byte, lent)) = self.byte(class, address) {
            // Relaxed: ordered for the next owner by what hands the object over.
            byte.store(lent, Ordering::Relaxed);
        }
    }

    /// Whether an object of the class starts there and is lent; a sample, if so told.
    #[inline(always)]
    pub(crate) fn is_lent(&self, class: SizeClass, address: usize, sample: bool) -> bool {
        let found = if sample { self.sample_byte(class, address) } else { self.byte(class, address) };
        found.is_some_and(|(byte, lent)| byte.load(Ordering::Relaxed) == lent)
    }

    /// The byte of an object at `address`, and what it is while the object is a sample.
    fn sample_byte(&self, class: SizeClass, address: usize) -> Option<(&'m AtomicU8, u8)> {
        let (byte, lent) = self.byte(class, address)?;
        // What stands in a quarter of an octave is the same in both bytes, and so is the place of its row.
        let quarter = (u32::from(lent) - 4) & 3;
        Some((byte, (SAMPLES + class.octave() as u32 * 4 + quarter) as u8))
    }

    /// Marks an object of a slab as a sample.
    pub(crate) fn lend_sample(&self, class: SizeClass, address: usize) {
        if let Some((byte, sample)) = self.sample_byte(class, address) {
            // Relaxed: as `lend`.
            byte.store(sample, Ordering::Relaxed);
        }
    }

    /// Takes the mark off a lent object of the class; `false` if none starts there.
    #[inline(always)]
    pub(crate) fn take_back(&self, class: SizeClass, address: usize) -> bool {
        let Some((byte, lent)) = self.byte(class, address) else { return false };
        if byte.load(Ordering::Relaxed) != lent {
            return false;
        }
        byte.store(0, Ordering::Relaxed);
        true
    }

    /// As [`take_back`](Self::take_back), by an exchange: of several at the same moment one succeeds. Of a sample, if so
    /// told, of which the caller knows the class.
    pub(crate) fn take_back_once(&self, class: SizeClass, address: usize, sample: bool) -> bool {
        let found = if sample { self.sample_byte(class, address) } else { self.byte(class, address) };
        found.is_some_and(|(byte, lent)| byte.compare_exchange(lent, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::testing::bytes;

    /// Where the span is.
    const BASE: usize = 0x70_0000;
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
        shadow.init(BASE, span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        for class in classes() {
            let offset = 3 * class.bytes();
            shadow.lend(class, BASE + offset);
            for other in classes() {
                for near in offset.saturating_sub(16)..(offset + 17).min(span_bytes) {
                    assert_eq!(
                        shadow.is_lent(other, BASE + near, false),
                        other == class && near == offset,
                        "{near} {other:?}"
                    );
                }
            }
            assert!(shadow.take_back(class, BASE + offset) && !shadow.take_back(class, BASE + offset));
        }
    }

    #[test]
    fn neighbours_have_bytes_of_their_own() {
        let span_bytes = SPAN_BYTES;
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        for class in classes() {
            let shadow = Shadow::empty();
            shadow.init(BASE, span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
            let slots = span_bytes / class.bytes();
            (0..slots).for_each(|slot| shadow.lend(class, BASE + slot * class.bytes()));
            (0..slots).step_by(2).for_each(|slot| assert!(shadow.take_back(class, BASE + slot * class.bytes())));
            (0..slots)
                .for_each(|slot| assert_eq!(shadow.is_lent(class, BASE + slot * class.bytes(), false), slot % 2 == 1));
        }
    }

    #[test]
    fn a_sample_is_known_by_its_octave_and_its_start_and_is_no_other_object() {
        let needed = Shadow::plan(Plan::new(), SPAN_BYTES).bytes();
        let shadow = Shadow::empty();
        shadow.init(BASE, SPAN_BYTES, &mut Carver::new(bytes(needed), needed).unwrap());
        for class in classes() {
            let at = BASE + 3 * class.bytes();
            shadow.lend_sample(class, at);
            assert!(shadow.is_lent(class, at, true) && !shadow.take_back(class, at));
            for other in classes().filter(|other| other.octave() != class.octave()) {
                assert!(!shadow.is_lent(other, at, true) && !shadow.is_lent(other, at, false), "{other:?}");
            }
            for other in classes() {
                assert!(!shadow.is_lent(other, at, false) && !shadow.is_lent(other, at + 8, true), "{other:?}");
            }
            assert!(shadow.take_back_once(class, at, true) && !shadow.take_back_once(class, at, true));
        }
    }

    #[test]
    fn what_is_outside_is_not_lent() {
        let shadow = Shadow::empty();
        let class = SizeClass::new(0).unwrap();
        assert!(
            !shadow.is_lent(class, 0, false)
                && !shadow.is_lent(class, usize::MAX, true)
                && !shadow.take_back(class, 1 << 40)
        );
    }

    /// An address before the span, or behind it, leads into the row of another octave.
    #[test]
    fn no_byte_means_the_same_in_two_rows() {
        let span_bytes = 4 << 10;
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        let shadow = Shadow::empty();
        shadow.init(BASE, span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        let all = || SizeClass::all().filter(|class| class.bytes() <= 64);
        for class in all() {
            (0..span_bytes / class.bytes()).for_each(|slot| shadow.lend(class, BASE + slot * class.bytes()));
        }
        for class in all() {
            for outside in (BASE - (1 << 20)..BASE).chain(BASE + span_bytes..BASE + (1 << 20)).step_by(8) {
                assert!(!shadow.is_lent(class, outside, false), "{class:?} {outside:#x}");
            }
        }
    }

    #[test]
    fn what_is_about_a_part_is_in_its_ranges() {
        let span_bytes = 96 << 10;
        let shadow = Shadow::empty();
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        shadow.init(BASE, span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        let part = 32 << 10..64 << 10;
        let ranges: Vec<_> = Shadow::ranges(span_bytes, part.clone()).collect();
        for class in SizeClass::all() {
            for offset in [part.start, part.end - class.bytes()] {
                let Some((byte, _)) = shadow.byte(class, BASE + offset) else { continue };
                let at = core::ptr::from_ref(byte).addr() - shadow.address();
                assert!(ranges.iter().any(|range| range.contains(&at)), "{class:?} {offset}");
            }
        }
        assert!(ranges.windows(2).all(|rows| rows[1].end <= rows[0].start), "rows are apart");
    }
}
