//! The shadow: for each place where an object could start, a byte that says whether one is lent there.
//!
//! ```text
//!   span       │ 48 │ 48 │ 48 │ 48 │ …        │ 64  │ 64  │ …
//!                ▼    ▼    ▼    ▼               ▼     ▼
//!   32 … 56    │l0│l4│  │l0│                    a row with one byte for each 32 bytes of the span
//!   64 … 120   │                              │l0│l0│       one for each 64; and so on, a row an octave of sizes
//! ```
//!
//! A class has its sizes' octave in common with seven others; slots of one class are at least as far apart as the bytes
//! of that octave's row, so no two share one. The byte of a lent object tells its class and where in the byte's stretch
//! of the span it starts; every other byte is 0: what was never lent, what is free, whatever lies inside an object. So
//! one load and one comparison answer whether an object of this class starts here and is lent, with no look at a slab;
//! the rows start at zero and cost memory only where objects are.
//!
//! The byte of an object that is a *sample* is another one, so that whoever frees it by its class's byte finds it wrong
//! and looks twice.
//!
//! For spans whose metadata is backed lazily: the rows are a quarter of the span long. Elsewhere the marks stand in the
//! slabs' descriptors (`Slab::mark`), which takes three loads more.

use core::ops::Range;

use crate::carve::{Carver, Plan};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU8, Ordering, PublishSlices, Reach, const_fn, place_of};

/// The octaves of the classes' sizes: 8, 16, 32, …, 32768.
const OCTAVES: usize = (SizeClass::MAX_BYTES.ilog2() - FIRST_LOG2 + 1) as usize;
/// log2 of the first.
const FIRST_LOG2: u32 = 3;
/// So many that an octave finds its row without a comparison.
const ROWS: usize = SizeClass::OCTAVES;

/// How many places of a byte's stretch an object may start at, and how many classes an octave has at most.
const PARTS: usize = 8;
const STEPS: usize = 8;
/// In the byte of what is lent and no sample.
const PLAIN: u8 = 1 << 7;
const _: () = assert!(PARTS * STEPS < PLAIN as usize, "a sample's byte is not 0, and none that is plain");
const _: () = assert!(SizeClass::PLACES / SizeClass::OCTAVES <= STEPS && OCTAVES <= ROWS);

/// The rows, for a span that grows at its end.
#[repr(C)]
pub(crate) struct Shadow<'m> {
    rows: PublishSlices<'m, AtomicU8, ROWS>,
}

impl<'m> Shadow<'m> {
    const_fn! {
        pub(crate) const fn empty() -> Self {
            Self { rows: PublishSlices::empty() }
        }
    }

    /// What a span of so many bytes needs.
    pub(crate) const fn plan(plan: Plan, span_bytes: usize) -> Plan {
        plan.and::<AtomicU8>(Self::bytes(span_bytes))
    }

    /// The bytes of all rows.
    pub(crate) const fn bytes(span_bytes: usize) -> usize {
        Self::before(OCTAVES, span_bytes)
    }

    /// The bytes of the rows before that of an octave.
    const fn before(octave: usize, span_bytes: usize) -> usize {
        let (mut bytes, mut row) = (0, 0);
        while row < octave {
            bytes += span_bytes.div_ceil(1 << FIRST_LOG2 << row);
            row += 1;
        }
        bytes
    }

    /// The bytes about a part of the span, row by row.
    pub(crate) fn ranges(span_bytes: usize, part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        (0..OCTAVES).map(move |octave| {
            let [row, log2] = [Self::before(octave, span_bytes), octave + FIRST_LOG2 as usize];
            row + (part.start >> log2)..row + ((part.end - 1) >> log2) + 1
        })
    }

    /// Shadows a span of so many bytes.
    pub(crate) fn init(&self, span_bytes: usize, carver: &mut Carver<'m>) {
        for octave in 0..OCTAVES {
            let bytes = carver.zeros(span_bytes.div_ceil(1 << FIRST_LOG2 << octave));
            if !bytes.is_empty() {
                self.rows.set(octave, bytes);
            }
        }
    }

    /// Where the rows begin.
    pub(crate) fn address(&self) -> usize {
        self.rows.slice(0).as_ptr().addr()
    }

    /// The row of a class.
    #[inline(always)]
    fn row(&self, class: SizeClass) -> &'m [AtomicU8] {
        self.rows.slice(class.octave())
    }

    /// Marks the object at `offset` from the span's start, a slab's, as lent.
    #[inline(always)]
    pub(crate) fn lend(&self, class: SizeClass, offset: usize, reach: Reach) {
        let octave = reach.octave(class);
        if let Some((byte, lent)) = byte(self.rows.settled(octave), class, octave, offset) {
            // Relaxed: ordered for the next owner by what hands the object over.
            byte.store(lent, Ordering::Relaxed);
        }
    }

    /// Whether an object of the class starts there and is lent; a sample, if so told.
    #[inline(always)]
    pub(crate) fn is_lent(&self, class: SizeClass, offset: usize, sample: bool) -> bool {
        let found = byte_of(self.row(class), class, offset, sample);
        found.is_some_and(|(byte, lent)| byte.load(Ordering::Relaxed) == lent)
    }

    /// Marks an object of a slab as a sample.
    pub(crate) fn lend_sample(&self, class: SizeClass, offset: usize) {
        if let Some((byte, sample)) = byte_of(self.row(class), class, offset, true) {
            // Relaxed: as `lend`.
            byte.store(sample, Ordering::Relaxed);
        }
    }

    /// Takes the mark off a lent object of the class; `false` if none starts there. For who has a pool of the heap.
    #[inline(always)]
    pub(crate) fn take_back(&self, class: SizeClass, offset: usize) -> bool {
        self.lent(class, offset, Reach::Folded).map(Found::take_back).is_some()
    }

    /// The mark of a lent object of the class; `None` if none starts there. For who has a pool of the heap.
    #[inline(always)]
    pub(crate) fn lent(&self, class: SizeClass, offset: usize, reach: Reach) -> Option<Found<'m>> {
        let octave = reach.octave(class);
        let (byte, lent) = byte(self.rows.settled(octave), class, octave, offset)?;
        (byte.load(Ordering::Relaxed) == lent).then_some(Found(byte))
    }

    /// As [`take_back`](Self::take_back), by an exchange: of several at the same moment one succeeds. Of a sample, if
    /// so told. For anybody.
    pub(crate) fn take_back_once(&self, class: SizeClass, offset: usize, sample: bool) -> bool {
        let found = byte_of(self.row(class), class, offset, sample);
        found.is_some_and(|(byte, lent)| byte.compare_exchange(lent, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok())
    }
}

/// The mark of an object that was lent when it was looked at.
pub(crate) struct Found<'m>(&'m AtomicU8);

impl Found<'_> {
    /// Takes it off.
    #[inline(always)]
    pub(crate) fn take_back(self) {
        // Relaxed: as `Shadow::lend`.
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The byte in the class's row of an object at `offset` from the span's start, and what it is while the object is lent.
///
/// Starts of the class are multiples of an eighth of its octave's bytes, so eight places share a byte. An offset that
/// is none of these has its low bits rotated to the top: no row is that long, nor does one reach to an address outside
/// of the span.
#[inline(always)]
fn byte(row: &[AtomicU8], class: SizeClass, octave: usize, offset: usize) -> Option<(&AtomicU8, u8)> {
    let place = offset.rotate_right(octave as u32);
    let byte = row.get(place / PARTS)?;
    // Never 0, and different for each start in the byte's stretch and each class of the octave: of all classes with the
    // same place, whatever the bits above the start's are, since there are no more than half of what they tell apart.
    Some((byte, place.wrapping_add(place_of(class) * PARTS) as u8 | PLAIN))
}

/// The same; if so told, what it is while the object is a sample.
fn byte_of(row: &[AtomicU8], class: SizeClass, offset: usize, sample: bool) -> Option<(&AtomicU8, u8)> {
    let (byte, lent) = byte(row, class, class.octave(), offset)?;
    let place = offset >> class.octave();
    let as_sample = (place % PARTS + class.step() * PARTS) as u8 + 1;
    Some((byte, if sample { as_sample } else { lent }))
}

#[cfg(all(test, not(any(loom, shuttle))))]
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
            shadow.lend(class, offset, Reach::Folded);
            for other in classes() {
                for near in offset.saturating_sub(16)..(offset + 17).min(span_bytes) {
                    assert_eq!(
                        shadow.is_lent(other, near, false),
                        other == class && near == offset,
                        "{near} {other:?}"
                    );
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
            (0..slots).for_each(|slot| shadow.lend(class, slot * class.bytes(), Reach::Folded));
            (0..slots).step_by(2).for_each(|slot| assert!(shadow.take_back(class, slot * class.bytes())));
            (0..slots).for_each(|slot| assert_eq!(shadow.is_lent(class, slot * class.bytes(), false), slot % 2 == 1));
        }
    }

    #[test]
    fn a_sample_is_known_by_its_class_and_its_start_and_is_no_other_object() {
        let needed = Shadow::plan(Plan::new(), SPAN_BYTES).bytes();
        let shadow = Shadow::empty();
        shadow.init(SPAN_BYTES, &mut Carver::new(bytes(needed), needed).unwrap());
        for class in classes() {
            let at = 3 * class.bytes();
            shadow.lend_sample(class, at);
            for other in classes() {
                assert!(!shadow.is_lent(other, at, false) && !shadow.take_back(other, at), "{other:?}");
                assert!(!shadow.is_lent(other, at + 8, true) && !shadow.is_lent(other, at - 8, true), "{other:?}");
                assert_eq!(shadow.is_lent(other, at, true), other == class, "{other:?}");
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

    #[test]
    fn no_address_outside_of_the_span_leads_to_a_byte() {
        let span_bytes = 4 << 10;
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        let shadow = Shadow::empty();
        shadow.init(span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        for class in SizeClass::all().filter(|class| class.bytes() <= 64) {
            (0..span_bytes / class.bytes()).for_each(|slot| shadow.lend(class, slot * class.bytes(), Reach::Folded));
        }
        for class in SizeClass::all() {
            let step = if cfg!(miri) { 8 * 5003 } else { 8 };
            for outside in (span_bytes..span_bytes + (1 << 20)).step_by(step) {
                let is_lent = |sample| {
                    shadow.is_lent(class, outside, sample) || shadow.is_lent(class, outside.wrapping_neg(), sample)
                };
                assert!(!is_lent(false) && !is_lent(true), "{class:?} {outside:#x}");
            }
        }
    }

    #[test]
    fn what_is_about_a_part_is_in_its_ranges() {
        let span_bytes = 96 << 10;
        let shadow = Shadow::empty();
        let needed = Shadow::plan(Plan::new(), span_bytes).bytes();
        shadow.init(span_bytes, &mut Carver::new(bytes(needed), needed).unwrap());
        let part = 32 << 10..64 << 10;
        let ranges: Vec<_> = Shadow::ranges(span_bytes, part.clone()).collect();
        for class in SizeClass::all() {
            for offset in [part.start, part.end - class.bytes()] {
                let Some((byte, _)) = byte(shadow.row(class), class, class.octave(), offset) else { continue };
                let at = core::ptr::from_ref(byte).addr() - shadow.address();
                assert!(ranges.iter().any(|range| range.contains(&at)), "{class:?} {offset}");
            }
        }
        assert!(ranges.windows(2).all(|rows| rows[0].end <= rows[1].start), "rows are apart");
    }
}
