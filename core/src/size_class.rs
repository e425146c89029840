//! Size classes: the sizes that small requests are rounded up to.
//!
//! ```text
//!   8 16 24 32 40 48 56 64 │ 80 96 112 128 │ 160 192 224 256 │ … │ 20 KiB 24 KiB 28 KiB 32 KiB
//!      steps of 8          │ four to a doubling: a request is at most a fifth too large, a tenth on average
//! ```
//!
//! Slots of a class stand side by side from an aligned start, so each is aligned to the largest power of two that
//! divides the size. That makes alignment a matter of size: a request is first rounded up to a multiple of its
//! alignment, and whatever class holds that is aligned well enough. Four classes a doubling is what jemalloc and
//! mimalloc found to be the balance between waste inside slots and slabs of too many kinds.

use core::alloc::Layout;

/// The size class of a small object: an index into one table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SizeClass(u8);

/// log2 of where steps of 8 end and four steps a doubling begin.
const LINEAR_LOG2: u32 = 6;
/// Classes of the linear part.
const LINEAR: usize = 1 << (LINEAR_LOG2 - 3);
/// log2 of the largest size.
const MAX_LOG2: u32 = 15;

/// The size of each class.
const SIZES: [u16; SizeClass::COUNT] = {
    let mut sizes = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < SizeClass::COUNT {
        sizes[class] = if class < LINEAR {
            (class as u16 + 1) * 8
        } else {
            let octave = LINEAR_LOG2 + ((class - LINEAR) / 4) as u32;
            (1 << octave) + ((class - LINEAR) % 4 + 1) as u16 * (1 << (octave - 2))
        };
        class += 1;
    }
    sizes
};

const _: () = {
    assert!(SIZES[SizeClass::COUNT - 1] as usize == SizeClass::MAX_BYTES);
    let mut class = 1;
    while class < SizeClass::COUNT {
        let (below, size) = (SIZES[class - 1] as usize, SIZES[class] as usize);
        assert!(below < size, "ascending");
        // The smallest request of a class wastes less than a fifth of its slot, or less than 8 bytes.
        assert!(size - (below + 1) < 8 || (size - (below + 1)) * 5 < size, "little waste");
        // Both ends of its range find the class.
        assert!(SizeClass::of_last(below).index() == class && SizeClass::of_last(size - 1).index() == class);
        class += 1;
    }
};

/// Sizes whose class is looked up, where it is not a constant: a load instead of a count of zeros and six steps more.
const TABLED: usize = 1024;

/// The class of each eight sizes.
const TABLE: [SizeClass; TABLED / 8] = {
    let mut table = [SizeClass(0); TABLED / 8];
    let mut eight = 0;
    while eight < table.len() {
        table[eight] = SizeClass::of_last(eight * 8 + 7);
        eight += 1;
    }
    table
};

impl SizeClass {
    /// How many classes there are.
    pub const COUNT: usize = LINEAR + 4 * (MAX_LOG2 - LINEAR_LOG2) as usize;
    /// The largest size of a small object.
    pub const MAX_BYTES: usize = 1 << MAX_LOG2;

    /// The class of a layout, or `None` if it is no small object: too large, too strictly aligned, or of no size.
    ///
    /// A constant where the layout is one.
    #[inline(always)]
    pub const fn of(layout: Layout) -> Option<Self> {
        let align = layout.align();
        // A layout's size rounded up to its alignment does not overflow. No size at all wraps around and is too large.
        let last = ((layout.size() + (align - 1)) & !(align - 1)).wrapping_sub(1);
        if last < TABLED {
            return Some(TABLE[last / 8]);
        }
        if last < Self::MAX_BYTES { Some(Self::of_last(last)) } else { None }
    }

    /// The class of a size from 1 to [`MAX_BYTES`](Self::MAX_BYTES), given as the offset of its last byte.
    #[inline(always)]
    const fn of_last(last: usize) -> Self {
        if last < 1 << LINEAR_LOG2 {
            return Self((last / 8) as u8);
        }
        let octave = last.ilog2();
        // The two bits below the leading one number the steps of the octave.
        let step = (last >> (octave - 2)) as u32 & 3;
        Self((LINEAR as u32 + (octave - LINEAR_LOG2) * 4 + step) as u8)
    }

    /// The class with this index.
    pub const fn new(index: usize) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index as u8)) } else { None }
    }

    /// Every class, smallest first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// The class as an index.
    #[inline(always)]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The bytes of a slot.
    #[inline(always)]
    pub const fn bytes(self) -> usize {
        SIZES[self.0 as usize] as usize
    }

    /// What every slot is aligned to.
    pub const fn align_bytes(self) -> usize {
        1 << self.bytes().trailing_zeros()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_layout_finds_the_smallest_class_that_holds_and_aligns_it() {
        for align in (0..=MAX_LOG2).map(|log2| 1 << log2) {
            for size in 1..=SizeClass::MAX_BYTES {
                let layout = Layout::from_size_align(size, align).unwrap();
                let fits = |class: &SizeClass| class.bytes() >= size && class.bytes().is_multiple_of(align);
                assert_eq!(SizeClass::of(layout), SizeClass::all().find(fits), "{layout:?}");
                if cfg!(miri) && size > 300 {
                    break;
                }
            }
        }
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
