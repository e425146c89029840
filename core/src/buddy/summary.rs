//! Which trees of an arena have a free block of which size.

use core::hint::select_unpredictable;

use super::set::TreeSet;
use crate::config::Config;
use crate::tree::Counts;

/// The most trees an arena has.
const TREES: usize = 512;
/// Words of a set of them.
const WORDS: usize = TREES / 64;
/// A set for each level of a tree, and [`Summary::ANY`]; a power of two, for the index.
const SETS: usize = 16;

/// The way from an order to a tree.
///
/// * `counts[t]` is how many free blocks of each level tree `t` has;
/// * set `k` holds the trees that have a block of level `k`, and set `ANY` those that have any;
/// * bit `i` of `used[k]` is set if and only if set `k` has any of the trees from 64 i on;
/// * bit `k` of `orders` is set if and only if set `k` has any tree.
///
/// The words for the same trees lie side by side for all levels, since a split or a merge changes several.
/// Whether a tree enters or leaves a set cannot be predicted (most trees are full but for a few holes), so its bit is
/// written without asking. Whether a word of the set becomes empty can.
pub(super) struct Summary<C: Config> {
    orders: u32,
    counts: [Counts<C>; TREES],
    sets: [[u64; SETS]; WORDS],
    used: [u32; SETS],
}

impl<C: Config> Summary<C> {
    pub(super) const EMPTY: Self =
        Self { orders: 0, counts: [Counts::NONE; TREES], sets: [[0; SETS]; WORDS], used: [0; SETS] };
    /// The set of trees that have anything free.
    pub(super) const ANY: u32 = C::HUGE_ORDER + 1;
    /// The bits of the levels in `orders`.
    const LEVELS: u32 = (1 << Self::ANY) - 1;

    /// Bit `k`: some tree has a block of level `k`.
    #[inline(always)]
    pub(super) fn orders(&self) -> u32 {
        self.orders & Self::LEVELS
    }

    /// The set of trees to take a block of `order` from: those that have anything for a single frame, else those of the
    /// lowest level that is large enough.
    #[inline(always)]
    pub(super) fn first_set(&self, order: u32) -> Option<u32> {
        let large = Self::LEVELS & (!0 << order);
        let sets = self.orders & select_unpredictable(order == 0, 1 << Self::ANY, large);
        if sets == 0 { None } else { Some(sets.trailing_zeros()) }
    }

    /// The first tree of a set.
    #[inline(always)]
    pub(super) fn first(&self, set: u32) -> Option<u32> {
        let used = self.used[set as usize % SETS];
        if used == 0 {
            return None;
        }
        let word = used.trailing_zeros();
        Some(word * 64 + self.sets[word as usize % WORDS][set as usize % SETS].trailing_zeros())
    }

    /// The last tree of a set.
    #[inline(always)]
    pub(super) fn last(&self, set: u32) -> Option<u32> {
        let word = self.used[set as usize % SETS].checked_ilog2()?;
        Some(word * 64 + 63 - self.sets[word as usize % WORDS][set as usize % SETS].leading_zeros())
    }

    /// A set, to look at as a whole.
    pub(super) fn set(&self, set: u32) -> TreeSet {
        TreeSet::of(self.sets.map(|words| words[set as usize % SETS]))
    }

    /// How many free blocks `tree` has.
    #[inline(always)]
    pub(super) fn counts(&self, tree: u32) -> Counts<C> {
        self.counts[tree as usize % TREES]
    }

    /// `tree` has `more` blocks of `level`, or fewer.
    #[inline(always)]
    pub(super) fn change(&mut self, tree: u32, level: u32, more: i32) {
        let counts = self.counts(tree).plus(level, more);
        self.counts[tree as usize % TREES] = counts;
        self.put(level, tree, counts.has(level));
    }

    /// `tree` has single frames that are not counted as blocks; at least it has some.
    #[cold]
    pub(super) fn loosen(&mut self, tree: u32) {
        self.put(0, tree, true);
        self.put(Self::ANY, tree, true);
    }

    /// The single frames of `tree` are about to be counted again, from none.
    pub(super) fn tighten(&mut self, tree: u32) {
        let counts = self.counts(tree);
        self.counts[tree as usize % TREES] = counts.plus(0, -(counts.of_level(0) as i32));
        self.put(0, tree, false);
    }

    /// A block of `order` was freed in `tree` and became one of `level`.
    #[inline(always)]
    pub(super) fn merged(&mut self, tree: u32, order: u32, level: u32) {
        let mut counts = self.counts(tree).plus_one(level);
        if order < level {
            counts = self.counts(tree).merged(order, level);
            self.put_levels(tree, order, level, counts);
        }
        self.counts[tree as usize % TREES] = counts;
        self.put(level, tree, true);
    }

    /// A block of `order` was taken out of one of `level` in `tree`.
    #[inline(always)]
    pub(super) fn split(&mut self, tree: u32, order: u32, level: u32) {
        let mut counts = self.counts(tree).less_one(level);
        if order < level {
            counts = self.counts(tree).split(order, level);
            self.put_levels(tree, order, level, counts);
        }
        self.counts[tree as usize % TREES] = counts;
        self.put(level, tree, counts.has(level));
    }

    /// Puts `tree` into the sets of levels `from..end` or out of them.
    #[inline(always)]
    fn put_levels(&mut self, tree: u32, from: u32, end: u32, counts: Counts<C>) {
        for level in from..end {
            self.put(level, tree, counts.has(level));
        }
    }

    /// Notes whether `tree` has anything free.
    #[inline(always)]
    pub(super) fn settle(&mut self, tree: u32) {
        self.put(Self::ANY, tree, !self.counts(tree).is_none());
    }

    #[inline(always)]
    fn contains(&self, set: u32, tree: u32) -> bool {
        self.sets[tree as usize / 64 % WORDS][set as usize % SETS] >> (tree % 64) & 1 != 0
    }

    /// Puts `tree` into a set, or out.
    #[inline(always)]
    fn put(&mut self, set: u32, tree: u32, present: bool) {
        let word = &mut self.sets[tree as usize / 64 % WORDS][set as usize % SETS];
        let before = *word;
        *word = before & !(1 << (tree % 64)) | u64::from(present) << (tree % 64);
        if (before == 0) != (*word == 0) {
            self.put_word(set, tree / 64);
        }
    }

    /// A word of a set has become empty, or is no longer.
    #[inline(always)]
    fn put_word(&mut self, set: u32, word: u32) {
        let used = &mut self.used[set as usize % SETS];
        *used ^= 1 << word;
        self.orders = self.orders & !(1 << set) | u32::from(*used != 0) << set;
    }

    /// Checks what is noted of `tree`, which has `counts`; returns the levels it has. The single frames of a `loose`
    /// tree are not counted.
    pub(super) fn validate(&self, tree: u32, counts: Counts<C>, loose: bool) -> Result<u32, &'static str> {
        let noted = self.counts(tree);
        let blocks = |counts: Counts<C>| counts.plus(0, -(counts.of_level(0) as i32));
        if (!loose && counts != noted) || blocks(counts) != blocks(noted) {
            return Err("the counts of the tree's free blocks are wrong");
        }
        let any = u32::from(!counts.is_none()) << Self::ANY;
        let levels = counts.levels().fold(any, |levels, level| levels | 1 << level);
        if (0..=Self::ANY).any(|set| self.contains(set, tree) != (levels >> set & 1 != 0)) {
            return Err("a set does not agree with the tree");
        }
        Ok(levels)
    }

    /// Whether the sets agree with what lies above them, for trees that have `levels` between them.
    pub(super) fn is_consistent(&self, levels: u32) -> bool {
        let used = |set: usize| (0..WORDS).fold(0, |used, at| used | u32::from(self.sets[at][set] != 0) << at);
        levels == self.orders && (0..SETS).all(|set| used(set) == self.used[set])
    }
}
