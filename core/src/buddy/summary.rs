//! Which trees of an arena have a free block of which size.

use core::hint::select_unpredictable;

use super::set::TreeSet;
use crate::config::Config;
use crate::tree::Counts;

/// The most trees an arena has.
const TREES: usize = 512;
/// A set for each level of a tree, and [`Summary::ANY`]; a power of two, for the index.
const SETS: usize = 16;

/// The way from an order to a tree.
///
/// * `counts[t]` is how many free blocks of each level tree `t` has;
/// * `sets[k]` holds the trees that have a block of level `k`, and `sets[ANY]` those that have any;
/// * bit `k` of `orders` is set if and only if `sets[k]` is not empty.
///
/// Whether a tree enters or leaves a set cannot be predicted, so its bit is written without asking; whether a word of
/// the set becomes empty can, and a guess lets the next request begin before this one has ended.
pub(super) struct Summary<C: Config> {
    orders: u32,
    counts: [Counts<C>; TREES],
    sets: [TreeSet; SETS],
}

impl<C: Config> Summary<C> {
    pub(super) const EMPTY: Self = Self { orders: 0, counts: [Counts::NONE; TREES], sets: [TreeSet::EMPTY; SETS] };
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

    #[inline(always)]
    pub(super) fn set(&self, level: u32) -> &TreeSet {
        &self.sets[level as usize % SETS]
    }

    /// How many free blocks `tree` has.
    #[inline(always)]
    pub(super) fn counts(&self, tree: u32) -> Counts<C> {
        self.counts[tree as usize % TREES]
    }

    /// `tree` has `more` blocks of `level`, or fewer.
    #[inline(always)]
    pub(super) fn change(&mut self, tree: u32, level: u32, more: i32) {
        let counts = &mut self.counts[tree as usize % TREES];
        *counts = counts.plus(level, more);
        let has = counts.has(level);
        self.put(level, tree, has);
    }

    /// `tree` has something free, or has not.
    #[inline(always)]
    pub(super) fn settle(&mut self, tree: u32) {
        let any = !self.counts(tree).is_none();
        if any != self.set(Self::ANY).contains(tree) {
            self.put(Self::ANY, tree, any);
        }
    }

    #[inline(always)]
    fn put(&mut self, level: u32, tree: u32, present: bool) {
        if self.sets[level as usize % SETS].put(tree, present) {
            self.orders ^= 1 << level;
        }
    }

    /// Checks what is noted of `tree`, which has `counts`; returns the levels it has.
    pub(super) fn validate(&self, tree: u32, counts: Counts<C>) -> Result<u32, &'static str> {
        if counts != self.counts(tree) {
            return Err("the counts of the tree's free blocks are wrong");
        }
        let any = u32::from(!counts.is_none()) << Self::ANY;
        let levels = counts.levels().fold(any, |levels, level| levels | 1 << level);
        if (0..=Self::ANY).any(|set| self.set(set).contains(tree) != (levels >> set & 1 != 0)) {
            return Err("a set does not agree with the tree");
        }
        Ok(levels)
    }

    /// Whether the sets agree with what lies above them, for trees that have `levels` between them.
    pub(super) fn is_consistent(&self, levels: u32) -> bool {
        levels == self.orders && self.sets.iter().all(TreeSet::is_consistent)
    }
}
