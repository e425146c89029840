//! Size classes: the sizes that small requests are rounded up to.
//!
//! ```text
//!   8 │ 16 24 │ 32 40 48 56 │ 64 72 80 88 96 104 112 120 │ 128 144 160 176 192 … │ 256 … │ 16 KiB 18 20 … 30 │ 32 KiB
//!     eight to a doubling, of these the multiples of 8: a request is at most a ninth too large, a twenty-third on average
//! ```
//!
//! Slots of a class stand side by side from an aligned start, so each is aligned to the largest power of two that
//! divides the size. That makes alignment a matter of size: a request is first rounded up to a multiple of its
//! alignment, and whatever class holds that is aligned well enough. Four classes a doubling, as jemalloc and mimalloc
//! have, take less for stacks and half-filled slabs, and more for what is lent.

use core::alloc::Layout;

/// The size class of a small object.
///
/// ```text
///  7      3   2   0
/// ┌────────┬──────┐
/// │ octave │ step │   size = (8 + step) * 2^octave bytes
/// └────────┴──────┘
/// ```
///
/// Everything about a class follows from its number by shifts, so that it folds away where the class is a constant, and
/// needs no table where it is not. The first three octaves have gaps, where a size would be no multiple of 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SizeClass(usize);

/// log2 of the largest size. Models have fewer classes, since a pool of all of them does not fit their threads' stacks.
const MAX_LOG2: u32 = if cfg!(any(loom, shuttle)) { 10 } else { 15 };

/// log2 of the classes in a doubling. Fewer under the checkers, where each class of each pool takes a while to look at.
const STEPS_LOG2: u32 = if cfg!(any(loom, shuttle, miri)) { 2 } else { 3 };

/// The number of the last class.
const LAST: u32 = (MAX_LOG2 - 3) << STEPS_LOG2;

const _: () = {
    let mut below = 0;
    let mut index = 0;
    while index < SizeClass::COUNT {
        if let Some(class) = SizeClass::new(index) {
            let size = class.bytes();
            assert!(below < size && size % 8 == 0, "ascending multiples of 8");
            // The smallest request of a class wastes less than 1 in 9 (of four steps, 1 in 5) of its slot, or less than
            // 8 bytes.
            assert!(size - (below + 1) < 8 || (size - (below + 1)) * (1 + (1 << STEPS_LOG2)) < size, "little waste");
            // Both ends of its range find the class.
            let ends = [SizeClass::of_double(2 * below), SizeClass::of_double(2 * (size - 1))];
            assert!(ends[0].index() == index && ends[1].index() == index);
            below = size;
        }
        index += 1;
    }
    assert!(below == SizeClass::MAX_BYTES);
};

impl SizeClass {
    /// Where the indexes of classes end. Not every index below it is a class: there are 80.
    pub const COUNT: usize = LAST as usize + 1;
    /// The same as a power of two, for arrays that a class finds its place in without a comparison.
    pub(crate) const PLACES: usize = Self::COUNT.next_power_of_two();
    /// Where [octaves](Self::octave) end, for such arrays.
    pub(crate) const OCTAVES: usize = Self::PLACES >> STEPS_LOG2;
    /// The largest size of a small object.
    pub const MAX_BYTES: usize = 1 << MAX_LOG2;

    /// The class of a layout, or `None` if it is no small object: too large, too strictly aligned, or of no size.
    ///
    /// A constant where the layout is one.
    #[inline(always)]
    pub const fn of(layout: Layout) -> Option<Self> {
        // Twice the last byte of the size rounded up to its alignment. No size at all wraps around and is too large,
        // and none is so large that its double wraps around.
        let last = layout.size().wrapping_sub(1).wrapping_mul(2) | ((layout.align() - 1) * 2);
        if last < 2 * Self::MAX_BYTES { Some(Self::of_double(last)) } else { None }
    }

    /// The class of a size from 1 to [`MAX_BYTES`](Self::MAX_BYTES), given as twice the offset of its last byte.
    ///
    /// The last byte of a multiple of 8. The bits below its leading one number the step before; it is doubled since 7
    /// has too few. A float has both side by side, and the conversion is half of what looking for the leading bit costs
    /// on many x86 CPUs, where it is to be had: in a kernel it mostly is not.
    #[inline(always)]
    const fn of_double(last: usize) -> Self {
        const FIRST: u32 = (4 << STEPS_LOG2) - 1;
        let last = last | 15;
        if cfg!(all(target_arch = "x86_64", target_feature = "sse2")) {
            // Exact: an offset has fewer bits than a float's fraction.
            let bits = (last as i32 as f32).to_bits();
            let number = (bits >> (f32::MANTISSA_DIGITS - 1 - STEPS_LOG2)).wrapping_sub((127 << STEPS_LOG2) + FIRST);
            return Self(number as usize);
        }
        let log2 = last.ilog2();
        let step = (last >> (log2 - STEPS_LOG2)) as u32 & ((1 << STEPS_LOG2) - 1);
        Self(((log2 << STEPS_LOG2) + step - FIRST) as usize)
    }

    /// The class of a size alone, at a multiple of 16 as the C ABI has it; `None` if it is too large. No size at all is
    /// served as one byte.
    ///
    /// By a table: shorter for sizes that are not known before the program runs.
    #[inline(always)]
    pub fn of_size(size: usize) -> Option<Self> {
        if size > Self::MAX_BYTES {
            return None;
        }
        Some(Self(usize::from(OF_SIXTEENS[size.div_ceil(16)])))
    }

    /// The class with this index.
    pub const fn new(index: usize) -> Option<Self> {
        let class = Self(index);
        if index <= LAST as usize && class.bytes().is_multiple_of(8) { Some(class) } else { None }
    }

    /// The class whose number somebody has kept; `None` for what is beyond all of them, as a mark for none is. The
    /// number of a class in a gap is never kept.
    #[inline(always)]
    pub(crate) const fn kept(number: u32) -> Option<Self> {
        if number <= LAST { Some(Self(number as usize)) } else { None }
    }

    /// The class whose number somebody has kept in the low bits of a word that tells that it is one.
    #[inline(always)]
    pub(crate) const fn from_low_bits(word: u32) -> Self {
        Self(word as usize % Self::PLACES)
    }

    /// Every class, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::COUNT).filter_map(Self::new)
    }

    /// The class as an index, below [`COUNT`](Self::COUNT).
    #[inline(always)]
    pub const fn index(self) -> usize {
        // Nothing where the compiler knows that it is one of the places.
        self.0 & (Self::PLACES - 1)
    }

    /// The same without a mask.
    #[inline(always)]
    pub(crate) const fn number(self) -> usize {
        self.0
    }

    /// The bytes of a slot.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        ((1 << STEPS_LOG2) + self.step()) << self.octave() << (3 - STEPS_LOG2)
    }

    /// Whether it has few objects to a slab, so that each that is idle keeps much from going home.
    pub(crate) const fn is_larger(self) -> bool {
        self.bytes() > 128
    }

    /// Which doubling of 8 bytes it belongs to.
    #[inline(always)]
    pub(crate) const fn octave(self) -> usize {
        Self::octave_of_place(self.index())
    }

    /// The octave of the class at a place.
    #[inline(always)]
    pub(crate) const fn octave_of_place(place: usize) -> usize {
        place >> STEPS_LOG2
    }

    /// Which part of its octave it is.
    #[inline(always)]
    pub(crate) const fn step(self) -> usize {
        self.index() % (1 << STEPS_LOG2)
    }

    /// What every slot is aligned to.
    pub const fn align_bytes(self) -> usize {
        1 << self.bytes().trailing_zeros()
    }
}

/// The number of the class of so many sixteens of bytes.
static OF_SIXTEENS: [u8; SizeClass::MAX_BYTES / 16 + 1] = {
    let mut table = [0; SizeClass::MAX_BYTES / 16 + 1];
    let mut sixteens = 0;
    while sixteens < table.len() {
        let size = if sixteens == 0 { 16 } else { sixteens * 16 };
        table[sixteens] = SizeClass::of_double(2 * (size - 1)).0 as u8;
        sixteens += 1;
    }
    table
};

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn every_layout_finds_the_smallest_class_that_holds_and_aligns_it() {
        // Under Miri around the borders of classes, and of these not all.
        let is_tried = |size: usize| !cfg!(miri) || SizeClass::all().any(|class| class.bytes().abs_diff(size) <= 1);
        let last = if cfg!(miri) { 100 } else { SizeClass::MAX_BYTES };
        let sizes: std::vec::Vec<_> = (1..=last).filter(|&size| is_tried(size)).collect();
        for align in (0..=MAX_LOG2).step_by(if cfg!(miri) { 5 } else { 1 }).map(|log2| 1 << log2) {
            for &size in &sizes {
                let layout = Layout::from_size_align(size, align).unwrap();
                let fits = |class: &SizeClass| class.bytes() >= size && class.bytes().is_multiple_of(align);
                assert_eq!(SizeClass::of(layout), SizeClass::all().find(fits), "{layout:?}");
            }
        }
    }

    #[test]
    fn a_size_alone_has_the_class_of_its_layout() {
        let last = if cfg!(miri) { 200 } else { SizeClass::MAX_BYTES - 1 };
        for size in (0..=last).chain([SizeClass::MAX_BYTES, SizeClass::MAX_BYTES + 1]) {
            let layout = Layout::from_size_align(size.max(1), 16).unwrap();
            assert_eq!(SizeClass::of_size(size), SizeClass::of(layout), "{size}");
        }
        assert_eq!(SizeClass::of_size(usize::MAX), None);
    }

    #[test]
    fn what_is_larger_has_no_class() {
        let none = |size, align| SizeClass::of(Layout::from_size_align(size, align).unwrap()).is_none();
        assert!(none(SizeClass::MAX_BYTES + 1, 1));
        assert!(none(1, 2 * SizeClass::MAX_BYTES));
        assert!(none(isize::MAX as usize, 1));
        assert!(none(0, 1) && none(0, 64));
    }
}
