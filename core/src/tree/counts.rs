//! How many free blocks of each level a tree has, in one word.

use core::fmt;
use core::marker::PhantomData;

use crate::config::Config;

/// The free blocks of each level of one tree.
///
/// A field for each level, level 0 lowest, with one more bit than it needs: the most blocks of a level that are free
/// and not merged is one of each pair. With 512 frames the fields end at bit 56:
///
/// ```text
///   level   0      1      2     3     4    5    6   7   8  9
///   most    256    128    64    32    16   8    4   2   1  1
///   bits    10     9      8     7     6    5    4   3   2  2
/// ```
///
/// So what a split or a merge does to all levels is one addition, and which levels have a block is one more.
pub(crate) struct Counts<C> {
    word: u64,
    config: PhantomData<fn() -> C>,
}

impl<C> Clone for Counts<C> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<C> Copy for Counts<C> {}
impl<C> PartialEq for Counts<C> {
    fn eq(&self, other: &Self) -> bool {
        self.word == other.word
    }
}
impl<C: Config> fmt::Debug for Counts<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries((0..=C::HUGE_ORDER).map(|level| self.of_level(level))).finish()
    }
}

impl<C: Config> Counts<C> {
    pub(crate) const NONE: Self = Self::of(0);
    const TOP: u32 = C::HUGE_ORDER;

    /// Where the field of `level` begins. `level` may be one past the top.
    const fn field(level: u32) -> u32 {
        let mut begin = 0;
        let mut below = 0;
        while below < level {
            begin += if below < Self::TOP { Self::TOP - below + 1 } else { 2 };
            below += 1;
        }
        begin
    }

    /// The highest bit of each field.
    const SPARE: u64 = {
        let mut bits = 0;
        let mut level = 0;
        while level <= Self::TOP {
            bits |= 1 << (Self::field(level + 1) - 1);
            level += 1;
        }
        bits
    };
    /// All other bits of each field: added to a count, they reach the spare bit if it is not zero.
    const FULL: u64 = ((1u64 << Self::field(Self::TOP + 1)) - 1) ^ Self::SPARE;

    /// The level of each spare bit.
    const LEVEL_OF: [u8; 64] = {
        let mut levels = [0; 64];
        let mut level = 0;
        while level <= Self::TOP {
            levels[Self::field(level + 1) as usize - 1] = level as u8;
            level += 1;
        }
        levels
    };

    /// One block of each level.
    const UNIT: [u64; 16] = {
        let mut units = [0; 16];
        let mut level = 0;
        while level <= Self::TOP {
            units[level as usize] = 1 << Self::field(level);
            level += 1;
        }
        units
    };
    /// The units of all levels below.
    const BELOW: [u64; 16] = {
        let mut sums = [0; 16];
        let mut level = 1;
        while level < 16 {
            sums[level] = sums[level - 1] + Self::UNIT[level - 1];
            level += 1;
        }
        sums
    };
    /// The bits of each field.
    const FIELD: [u64; 16] = {
        let mut fields = [0; 16];
        let mut level = 0;
        while level <= Self::TOP {
            fields[level as usize] = (1 << Self::field(level + 1)) - (1 << Self::field(level));
            level += 1;
        }
        fields
    };

    const fn of(word: u64) -> Self {
        Self { word, config: PhantomData }
    }

    /// One block of `level` more for each of `more`, which may be negative.
    #[inline(always)]
    pub(crate) fn plus(self, level: u32, more: i32) -> Self {
        Self::of(self.word.wrapping_add(Self::UNIT[level as usize % 16].wrapping_mul(more as i64 as u64)))
    }

    /// One block of `level` more.
    #[inline(always)]
    pub(crate) fn plus_one(self, level: u32) -> Self {
        Self::of(self.word.wrapping_add(Self::UNIT[level as usize % 16]))
    }

    /// One block of `level` fewer.
    #[inline(always)]
    pub(crate) fn less_one(self, level: u32) -> Self {
        Self::of(self.word.wrapping_sub(Self::UNIT[level as usize % 16]))
    }

    /// A block of `order` was freed, and became one of `level` with a buddy of each level on the way.
    #[inline(always)]
    pub(crate) fn merged(self, order: u32, level: u32) -> Self {
        Self::of(self.word.wrapping_add(Self::grown(order, level)))
    }

    /// A block of `order` was taken out of one of `level`.
    #[inline(always)]
    pub(crate) fn split(self, order: u32, level: u32) -> Self {
        Self::of(self.word.wrapping_sub(Self::grown(order, level)))
    }

    #[inline(always)]
    fn grown(order: u32, level: u32) -> u64 {
        let buddies = Self::BELOW[level as usize % 16].wrapping_sub(Self::BELOW[order as usize % 16]);
        Self::UNIT[level as usize % 16].wrapping_sub(buddies)
    }

    /// Whether there is a block of `level`.
    #[inline(always)]
    pub(crate) fn has(self, level: u32) -> bool {
        self.word & Self::FIELD[level as usize % 16] != 0
    }

    /// The blocks of `level`.
    pub(crate) fn of_level(self, level: u32) -> u32 {
        let width = Self::field(level + 1) - Self::field(level);
        (self.word >> Self::field(level)) as u32 & ((1 << width) - 1)
    }

    /// The frames of all blocks.
    pub(crate) fn frames(self) -> u32 {
        (0..=Self::TOP).map(|level| self.of_level(level) << level).sum()
    }

    #[inline(always)]
    pub(crate) fn is_none(self) -> bool {
        self.word == 0
    }

    /// The levels that have a block.
    #[inline(always)]
    pub(crate) fn levels(self) -> Levels<C> {
        Levels { spare: (self.word + Self::FULL) & Self::SPARE, config: PhantomData }
    }
}

/// A set of levels, as the spare bits of [`Counts`].
pub(crate) struct Levels<C> {
    spare: u64,
    config: PhantomData<fn() -> C>,
}

impl<C: Config> Levels<C> {
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.spare == 0
    }

    /// The lowest level, of a set that is not empty.
    #[inline(always)]
    pub(crate) fn lowest(&self) -> u32 {
        u32::from(Counts::<C>::LEVEL_OF[self.spare.trailing_zeros() as usize % 64])
    }
}

impl<C: Config> Iterator for Levels<C> {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let level = self.lowest();
        self.spare &= self.spare - 1;
        Some(level)
    }
}
