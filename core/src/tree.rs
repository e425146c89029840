//! The buddy of one huge frame: a bit for every block it could ever be cut into.

mod counts;

use core::marker::PhantomData;

use crate::config::Config;

pub(crate) use counts::Counts;

/// Words of a tree: the most a huge frame of order 9 needs, one bit short of all of them.
const WORDS: usize = 16;

/// Which of the blocks inside one huge frame are free and as large as they can be.
///
/// Level `k` has one bit for each aligned block of 2^k frames, all levels in one string of bits, smallest blocks first.
/// With 512 frames:
///
/// ```text
///  word   0 ─────────────── 7   8 ──── 11   12 ─ 13    14                   15
///       ┌────────────────────┬────────────┬────────┬────────┬────┬────┬────┬────┬──┬─┬─┐
///       │ level 0: 512 bits  │ 1: 256     │ 2: 128 │ 3: 64  │ 4  │ 5  │ 6  │ 7  │8 │9│ │
///       └────────────────────┴────────────┴────────┴────────┴────┴────┴────┴────┴──┴─┴─┘
///   bit 0                    512          768      896      960  992  1008 1016 1020 1022
/// ```
///
/// * Each free frame lies in exactly one block whose bit is set.
/// * No two buddies are both set: they would be one block of the next level. Single frames that were freed lately are
///   the exception, until somebody needs to know what they make together.
///
/// So a tree of zeroes has nothing free, and the lowest set bit is the smallest block at the lowest address. Plain
/// words: whoever holds the arena's lock is alone with them.
#[repr(C, align(128))]
#[derive(Clone)]
pub(crate) struct Tree([u64; WORDS]);

/// Which words of a tree are not zero: bit `i` for word `i`. So a block of a level is found without going through them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used(u16);

impl Used {
    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    fn note(&mut self, word: usize, bits: u64) {
        self.0 = self.0 & !(1 << word) | u16::from(bits != 0) << word;
    }
}

/// Positions in the string of bits, as constants of the geometry.
struct Shape<C>(PhantomData<C>);

impl<C: Config> Shape<C> {
    /// The level of the one bit that says that all is free.
    const TOP: u32 = C::HUGE_ORDER;
    /// Bits of all levels.
    const BITS: u32 = (2 << C::HUGE_ORDER) - 1;
    /// The lowest level of those that share the last word.
    const HIGH: u32 = C::HUGE_ORDER.saturating_sub(5);
    /// The last word.
    const LAST: usize = Self::offset(Self::HIGH) as usize / 64;
    /// The bits of the last word whose blocks a frame lies in, for each block of level `HIGH`.
    const PATHS: [u64; 32] = {
        let mut paths = [0; 32];
        let mut block = 0;
        while block < 1 << (Self::TOP - Self::HIGH) {
            let mut level = Self::HIGH;
            while level <= Self::TOP {
                paths[block as usize] |= 1 << (Self::high(level) + (block >> (level - Self::HIGH)));
                level += 1;
            }
            block += 1;
        }
        paths
    };
    /// For each order up to `HIGH`, and each level below that, the bits of the blocks inside an aligned block of the
    /// order, or of the one around it.
    const INSIDE: [[u16; 4]; 8] = {
        let mut inside = [[0; 4]; 8];
        let mut order = 0;
        while order <= 4 {
            let mut level = 0;
            while level < 4 {
                let blocks = if order > level { 1 << (order - level) } else { 1 };
                inside[order][level] = ((1u32 << blocks) - 1) as u16;
                level += 1;
            }
            order += 1;
        }
        inside
    };
    /// Rows are cut at 64 frames, or at the tree's end.
    const ROW_ORDER: u32 = if C::HUGE_ORDER < 6 { C::HUGE_ORDER } else { 6 };

    /// Where `level` begins. `level` may be one past the top.
    #[inline(always)]
    const fn offset(level: u32) -> u32 {
        (2 << C::HUGE_ORDER) - ((2 << C::HUGE_ORDER) >> level)
    }

    /// Where `level`, of those that share the last word, begins in it.
    #[inline(always)]
    const fn high(level: u32) -> u32 {
        Self::offset(level) - Self::LAST as u32 * 64
    }

    /// The bit of the block of `level` that `frame` lies in.
    #[inline(always)]
    const fn node(level: u32, frame: u32) -> u32 {
        Self::offset(level) + (frame >> level)
    }

    /// The level and the first frame of the block that `bit` stands for.
    #[inline(always)]
    const fn block(bit: u32) -> (u32, u32) {
        // Counted from the end, each level begins at a power of two.
        let level = C::HUGE_ORDER - (Self::BITS - bit).ilog2();
        (level, (bit - Self::offset(level)) << level)
    }
}

impl Tree {
    /// Nothing free.
    pub(crate) const EMPTY: Self = Self([0; WORDS]);

    #[inline(always)]
    fn has(&self, bit: u32) -> bool {
        self.0[bit as usize / 64 % WORDS] >> (bit % 64) & 1 != 0
    }

    #[inline(always)]
    fn flip(&mut self, bit: u32, used: &mut Used) {
        let word = bit as usize / 64 % WORDS;
        self.0[word] ^= 1 << (bit % 64);
        used.note(word, self.0[word]);
    }

    /// The first set bit of `from..end`.
    #[inline]
    fn first_in(&self, from: u32, end: u32) -> Option<u32> {
        let mut word = from / 64;
        let mut bits = self.0[word as usize % WORDS] & (!0 << (from % 64));
        while bits == 0 {
            word += 1;
            if word * 64 >= end {
                return None;
            }
            bits = self.0[word as usize % WORDS];
        }
        let bit = word * 64 + bits.trailing_zeros();
        (bit < end).then_some(bit)
    }

    /// The last set bit of `from..end`, which is not empty.
    #[inline]
    fn last_in(&self, from: u32, end: u32) -> Option<u32> {
        let last = end - 1;
        let mut word = last / 64;
        let mut bits = self.0[word as usize % WORDS] & (!0 >> (63 - last % 64));
        while bits == 0 {
            if word * 64 <= from {
                return None;
            }
            word -= 1;
            bits = self.0[word as usize % WORDS];
        }
        let bit = word * 64 + bits.ilog2();
        (bit >= from).then_some(bit)
    }

    /// The first frame of the lowest free block of `level`, which has one.
    #[inline(always)]
    pub(crate) fn first_of<C: Config>(&self, level: u32, used: Used) -> u32 {
        let from = Shape::<C>::offset(level);
        let word = (u32::from(used.0) & (!0 << (from / 64))).trailing_zeros();
        // Only the word in which the level begins can have bits of the levels before.
        let before = if word == from / 64 { from % 64 } else { 0 };
        let bits = self.0[word as usize % WORDS] >> before;
        (word * 64 + before + bits.trailing_zeros() - from) << level
    }

    /// The first frame of the highest free block of `level`, which has one.
    #[inline(always)]
    pub(crate) fn last_of<C: Config>(&self, level: u32, used: Used) -> u32 {
        let from = Shape::<C>::offset(level);
        let last = Shape::<C>::offset(level + 1) - 1;
        let word = 31 - (u32::from(used.0) & (!0 >> (31 - last / 64))).leading_zeros();
        let after = if word == last / 64 { 63 - last % 64 } else { 0 };
        let bits = self.0[word as usize % WORDS] << after;
        (word * 64 + 63 - after - bits.leading_zeros() - from) << level
    }

    /// The first frame of the lowest free block of exactly `level` that starts at or below `highest`.
    #[inline]
    pub(crate) fn lowest_of<C: Config>(&self, level: u32, highest: u32) -> Option<u32> {
        let from = Shape::<C>::offset(level);
        let bit = self.first_in(from, Shape::<C>::node(level, highest) + 1)?;
        Some((bit - from) << level)
    }

    /// The first frame of the highest free block of exactly `level` that starts at or below `highest`.
    #[inline]
    pub(crate) fn highest_of<C: Config>(&self, level: u32, highest: u32) -> Option<u32> {
        let from = Shape::<C>::offset(level);
        let bit = self.last_in(from, Shape::<C>::node(level, highest) + 1)?;
        Some((bit - from) << level)
    }

    /// The level of the free block that `frame` lies in, if it is free.
    #[inline]
    pub(crate) fn covering<C: Config>(&self, frame: u32) -> Option<u32> {
        (0..=Shape::<C>::TOP).find(|&level| self.has(Shape::<C>::node(level, frame)))
    }

    /// Takes 2^order frames at `frame` out of the free block of `level` that they lie in; what it leaves are the
    /// buddies on the way down.
    #[inline(always)]
    pub(crate) fn split<C: Config>(&mut self, frame: u32, order: u32, level: u32, used: &mut Used) {
        self.flip(Shape::<C>::node(level, frame), used);
        if order < level {
            self.leave::<C>(frame, order, level, used);
        }
    }

    /// Frees the buddies on the way down from a block of `level`.
    #[inline(always)]
    fn leave<C: Config>(&mut self, frame: u32, order: u32, level: u32, used: &mut Used) {
        // Each level begins at an even bit, so that a buddy is the other bit of a pair.
        for below in order..level.min(Shape::<C>::HIGH) {
            self.flip(Shape::<C>::node(below, frame) ^ 1, used);
        }
        if level > Shape::<C>::HIGH {
            // Those that share the last word, at once.
            let below = (1 << Shape::<C>::high(level)) - 1;
            self.flip_last::<C>(swap_pairs(Self::path::<C>(frame, order)) & below, used);
        }
    }

    /// Frees 2^order frames at `frame`, none of which is free. Returns the level of the block they are now part of.
    #[inline(always)]
    pub(crate) fn merge<C: Config>(&mut self, frame: u32, order: u32, used: &mut Used) -> u32 {
        let own = Shape::<C>::node(order, frame);
        if self.has(own ^ 1) {
            return self.absorb::<C>(frame, order, used);
        }
        self.flip(own, used);
        order
    }

    /// [`Tree::merge`] with a buddy that is free, or at the top.
    #[inline(always)]
    fn absorb<C: Config>(&mut self, frame: u32, order: u32, used: &mut Used) -> u32 {
        let mut level = order;
        while level < Shape::<C>::HIGH {
            let buddy = Shape::<C>::node(level, frame) ^ 1;
            if !self.has(buddy) {
                self.flip(buddy ^ 1, used);
                return level;
            }
            self.flip(buddy, used);
            level += 1;
        }
        let buddies = swap_pairs(Self::path::<C>(frame, level));
        // The lowest buddy that is not free ends it. The top's never is: it is no block.
        let lent = buddies & !self.0[Shape::<C>::LAST];
        let end = lent & lent.wrapping_neg();
        let own = swap_pairs(end);
        self.flip_last::<C>(buddies & (end - 1) | own, used);
        Shape::<C>::block(Shape::<C>::LAST as u32 * 64 + own.trailing_zeros()).0
    }

    #[inline(always)]
    fn flip_last<C: Config>(&mut self, bits: u64, used: &mut Used) {
        self.0[Shape::<C>::LAST] ^= bits;
        used.note(Shape::<C>::LAST, self.0[Shape::<C>::LAST]);
    }

    /// The bits of the last word for the blocks of at least 2^order frames that `frame` lies in.
    #[inline(always)]
    fn path<C: Config>(frame: u32, order: u32) -> u64 {
        let path = Shape::<C>::PATHS[(frame >> Shape::<C>::HIGH) as usize % 32];
        path & (!0 << Shape::<C>::high(order.max(Shape::<C>::HIGH)))
    }

    /// Whether any of the 2^order frames at `frame` is free.
    #[inline(always)]
    pub(crate) fn any_free<C: Config>(&self, frame: u32, order: u32) -> bool {
        if order > Shape::<C>::HIGH {
            return self.any_free_of_many::<C>(frame, order);
        }
        let mut free = self.0[Shape::<C>::LAST] & Self::path::<C>(frame, order);
        let inside = &Shape::<C>::INSIDE[order as usize % 8];
        for level in 0..Shape::<C>::HIGH {
            let bit = Shape::<C>::node(level, frame);
            free |= self.0[bit as usize / 64 % WORDS] >> (bit % 64) & u64::from(inside[level as usize]);
        }
        free != 0
    }

    /// [`Tree::any_free`] for a block with whole words of the lower levels inside it.
    fn any_free_of_many<C: Config>(&self, frame: u32, order: u32) -> bool {
        let mut free = self.0[Shape::<C>::LAST] & Self::path::<C>(frame, order);
        for level in 0..order {
            let from = Shape::<C>::node(level, frame);
            let (word, blocks) = (from as usize / 64, 1u32 << (order - level));
            if blocks < 64 {
                free |= self.0[word % WORDS] >> (from % 64) & ((1 << blocks) - 1);
            } else {
                free = (0..blocks as usize / 64).fold(free, |free, next| free | self.0[(word + next) % WORDS]);
            }
        }
        free != 0
    }

    /// The first frame of the 2^order at `frame` that is free: what `any_free` is tested against.
    #[cfg(all(test, not(miri)))]
    fn first_free<C: Config>(&self, frame: u32, order: u32) -> Option<u32> {
        for level in order..=Shape::<C>::TOP {
            if self.has(Shape::<C>::node(level, frame)) {
                return Some(frame);
            }
        }
        let mut first = None;
        for level in 0..order {
            let from = Shape::<C>::node(level, frame);
            if let Some(bit) = self.first_in(from, from + (1 << (order - level))) {
                let found = Shape::<C>::block(bit).1;
                first = Some(first.map_or(found, |lowest: u32| lowest.min(found)));
            }
        }
        first
    }

    /// The bits of `level` that belong to `row`, and where they begin.
    #[inline(always)]
    fn row_place<C: Config>(level: u32, row: u32) -> (usize, u32, u64) {
        let width = (1 << Shape::<C>::ROW_ORDER) >> level;
        // A row's bits are as many as the multiple they begin at, so they lie in one word.
        let from = Shape::<C>::offset(level) + row * width;
        (from as usize / 64 % WORDS, from % 64, !0 >> (64 - width))
    }

    /// Which of the frames of a row are free: 64 of them, or the whole of a smaller tree.
    pub(crate) fn row<C: Config>(&self, row: u32) -> u64 {
        let first = row << Shape::<C>::ROW_ORDER;
        let mut around = 0;
        for level in Shape::<C>::ROW_ORDER + 1..=Shape::<C>::TOP {
            around |= u64::from(self.has(Shape::<C>::node(level, first)));
        }
        let of_level = |level: u32| {
            let (word, shift, mask) = Self::row_place::<C>(level, row);
            self.0[word] >> shift & mask
        };
        // Rows that are freed into are mostly lent, or free in single frames.
        let larger = (1..=Shape::<C>::ROW_ORDER).fold(around, |larger, level| larger | of_level(level));
        if larger == 0 {
            return of_level(0);
        }
        let levels = (1..=Shape::<C>::ROW_ORDER).rev();
        levels.fold(around, |free, level| spread(free | of_level(level))) | of_level(0)
    }

    /// Frees the frames of `mask` in a row without merging them. Returns those that were free as single frames already.
    #[inline(always)]
    pub(crate) fn loosen(&mut self, row: u32, mask: u64, used: &mut Used) -> u64 {
        let word = row as usize % WORDS;
        let free = self.0[word];
        self.0[word] = free | mask;
        used.note(word, free | mask);
        free & mask
    }

    /// Takes the single free frames out of a row; returns them, and those of them that lie in larger free blocks too.
    #[inline]
    pub(crate) fn gather_loose<C: Config>(&mut self, row: u32, used: &mut Used) -> (u64, u64) {
        let word = row as usize % WORDS;
        let singles = core::mem::take(&mut self.0[word]);
        used.note(word, 0);
        (singles, if singles == 0 { 0 } else { singles & self.row::<C>(row) })
    }

    /// Frees the frames of `mask` in a row, none of which is free, merging all pairs of a level at once.
    ///
    /// `changed` is told how many more blocks of a level there are now.
    pub(crate) fn merge_row<C: Config>(
        &mut self,
        row: u32,
        mask: u64,
        used: &mut Used,
        mut changed: impl FnMut(u32, i32),
    ) {
        let mut freed = mask;
        for level in 0..Shape::<C>::ROW_ORDER {
            let (word, shift, bits) = Self::row_place::<C>(level, row);
            let free = self.0[word] >> shift & bits | freed;
            let pairs = free & free >> 1 & EVEN;
            let kept = free & !(pairs * 3);
            self.0[word] = self.0[word] & !(bits << shift) | kept << shift;
            used.note(word, self.0[word]);
            changed(level, freed.count_ones() as i32 - 2 * pairs.count_ones() as i32);
            if pairs == 0 {
                return;
            }
            freed = gather(pairs);
        }
        let first = row << Shape::<C>::ROW_ORDER;
        let level = self.merge::<C>(first, Shape::<C>::ROW_ORDER, used);
        (Shape::<C>::ROW_ORDER..level).for_each(|absorbed| changed(absorbed, -1));
        changed(level, 1);
    }

    /// The free blocks, if the invariants hold; single frames may be not merged yet if the tree is `loose`.
    pub(crate) fn validate<C: Config>(&self, used: Used, loose: bool) -> Result<Counts<C>, &'static str> {
        let mut counts = Counts::NONE;
        if (0..WORDS).any(|word| (self.0[word] != 0) != (used.0 >> word & 1 != 0)) {
            return Err("the note of the words in use is wrong");
        }
        for bit in (0..WORDS as u32 * 64).filter(|&bit| self.has(bit)) {
            if bit >= Shape::<C>::BITS {
                return Err("a bit past the last level is set");
            }
            let (level, frame) = Shape::<C>::block(bit);
            if level < Shape::<C>::TOP && self.has(bit ^ 1) && !(loose && level == 0) {
                return Err("two buddies are free and not merged");
            }
            if (level + 1..=Shape::<C>::TOP).any(|above| self.has(Shape::<C>::node(above, frame))) {
                return Err("a free block lies in a free block");
            }
            counts = counts.plus(level, 1);
        }
        Ok(counts)
    }
}

/// Exchanges each even bit with the odd one above it: a block with its buddy.
#[inline(always)]
const fn swap_pairs(bits: u64) -> u64 {
    (bits & EVEN) << 1 | bits >> 1 & EVEN
}

/// Every second bit.
const EVEN: u64 = 0x5555_5555_5555_5555;

/// Moves bit `i` to bit `2i` and doubles it: the blocks of a level as blocks of the level below.
#[inline]
const fn spread(bits: u64) -> u64 {
    let mut x = bits & 0xffff_ffff;
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x << 2) & 0x3333_3333_3333_3333;
    x = (x | x << 1) & EVEN;
    x * 3
}

/// Moves bit `2i` to bit `i`: the pairs of a level as blocks of the level above. Odd bits must be clear.
#[inline]
const fn gather(pairs: u64) -> u64 {
    let mut x = pairs;
    x = (x | x >> 1) & 0x3333_3333_3333_3333;
    x = (x | x >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) & 0xffff_ffff
}

// Plain data and no unsafe code: Miri has nothing to find here that a faster run does not.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    macro_rules! every_height {
        ($($test:ident)*) => { every_height! { @one $($test)*; [H1 = 1; H2 = 2; H3 = 3; H4 = 4; H5 = 5; H6 = 6; H7 = 7; H8 = 8; H9 = 9;] } };
        (@one $($test:ident)*; $heights:tt) => { $(every_height! { @run $test $heights })* };
        (@run $test:ident [$($name:ident = $order:literal;)*]) => {
            #[test]
            fn $test() {
                $(
                    struct $name;
                    impl Config for $name {
                        const HUGE_ORDER: u32 = $order;
                        const ARENA_ORDER: u32 = $order;
                    }
                    cases::$test::<$name>();
                )*
            }
        };
    }
    every_height! {
        levels_tile_the_bits
        every_block_splits_off_and_merges_back
        a_row_merges_as_its_frames_would
        blocks_are_found_from_both_ends
    }

    mod cases {
        use super::*;

        fn full<C: Config>() -> (Tree, Used) {
            let (mut tree, mut used) = (Tree::EMPTY, Used::NONE);
            tree.merge::<C>(0, C::HUGE_ORDER, &mut used);
            (tree, used)
        }

        fn blocks<C: Config>() -> impl Iterator<Item = (u32, u32)> {
            let frames = 1u32 << C::HUGE_ORDER;
            (0..=C::HUGE_ORDER).flat_map(move |level| (0..frames >> level).map(move |at| (level, at << level)))
        }

        pub(super) fn levels_tile_the_bits<C: Config>() {
            for (bit, (level, frame)) in blocks::<C>().enumerate() {
                assert_eq!(Shape::<C>::node(level, frame), bit as u32);
                assert_eq!(Shape::<C>::block(bit as u32), (level, frame));
            }
            assert_eq!(blocks::<C>().count() as u32, Shape::<C>::BITS);
        }

        pub(super) fn every_block_splits_off_and_merges_back<C: Config>() {
            for (level, frame) in blocks::<C>() {
                let (mut tree, mut used) = full::<C>();
                let whole = tree.validate::<C>(used, false).unwrap();
                tree.split::<C>(frame, level, C::HUGE_ORDER, &mut used);
                let counts = tree.validate::<C>(used, false).unwrap();
                assert_eq!(counts, whole.split(level, C::HUGE_ORDER));
                assert!(!tree.any_free::<C>(frame, level));
                // A buddy at each level on the way down.
                assert!(counts.levels().eq(level..C::HUGE_ORDER));
                assert_eq!(counts.frames(), (1 << C::HUGE_ORDER) - (1 << level));
                assert_eq!(tree.merge::<C>(frame, level, &mut used), C::HUGE_ORDER);
                assert_eq!(counts.merged(level, C::HUGE_ORDER), whole);
                assert_eq!(tree.validate::<C>(used, false), Ok(whole));
                assert_eq!(tree.first_free::<C>(frame, level), Some(frame));
            }
        }

        pub(super) fn a_row_merges_as_its_frames_would<C: Config>() {
            let row_frames = 1 << Shape::<C>::ROW_ORDER;
            let all = !0 >> (64 - row_frames);
            let (mut lent, mut by_row, mut by_frame) = (!0, Tree::EMPTY, Tree::EMPTY);
            let mut counts = Counts::NONE;
            let (mut used, mut by_frame_used) = (Used::NONE, Used::NONE);
            let mut draw = 0x9e37_79b9_7f4a_7c15u64;
            for _ in 0..40 {
                draw = draw.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ draw >> 29;
                let mask = draw & lent & all;
                lent &= !mask;
                by_row.merge_row::<C>(0, mask, &mut used, |level, more| counts = counts.plus(level, more));
                assert_eq!(by_row.validate::<C>(used, false), Ok(counts));
                (0..row_frames).filter(|bit| mask >> bit & 1 != 0).for_each(|bit| {
                    by_frame.merge::<C>(bit, 0, &mut by_frame_used);
                });
                assert!(by_row.0 == by_frame.0 && by_row.row::<C>(0) == !lent & all);
                if lent & all == 0 {
                    (lent, by_row, by_frame, counts) = (!0, Tree::EMPTY, Tree::EMPTY, Counts::NONE);
                    (used, by_frame_used) = (Used::NONE, Used::NONE);
                }
            }
        }

        pub(super) fn blocks_are_found_from_both_ends<C: Config>() {
            let last = (1 << C::HUGE_ORDER) - 1;
            for (level, frame) in blocks::<C>() {
                let (mut tree, mut used) = (Tree::EMPTY, Used::NONE);
                tree.merge::<C>(frame, level, &mut used);
                assert_eq!((tree.first_of::<C>(level, used), tree.last_of::<C>(level, used)), (frame, frame));
                assert_eq!(tree.lowest_of::<C>(level, last), Some(frame));
                assert_eq!(tree.highest_of::<C>(level, frame), Some(frame));
                if frame > 0 {
                    assert_eq!(tree.lowest_of::<C>(level, frame - 1), None);
                    assert_eq!(tree.highest_of::<C>(level, frame - 1), None);
                }
                assert_eq!(tree.covering::<C>(frame + (1 << level) - 1), Some(level));
                // With another block of each level and end around it.
                for (other, place) in blocks::<C>().filter(|&(other, _)| other != level && C::HUGE_ORDER < 8) {
                    if !tree.any_free::<C>(place, other) {
                        let (mut tree, mut used) = (tree.clone(), used);
                        tree.merge::<C>(place, other, &mut used);
                        if tree.validate::<C>(used, false) == Ok(Counts::NONE.plus(level, 1).plus(other, 1)) {
                            assert_eq!(
                                (tree.first_of::<C>(level, used), tree.last_of::<C>(level, used)),
                                (frame, frame)
                            );
                        }
                    }
                }
            }
        }
    }
}
