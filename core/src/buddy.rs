//! The frames of one arena: its trees, and the summaries that find the right one.
//!
//! Plain data of whoever holds the arena's lock. Frames are numbered inside the naturally aligned arena, whether or not
//! all of it is spanned, so that alignment is arithmetic on the number.

mod loose;
mod range;
mod set;
mod summary;
// Plain data and no unsafe code: Miri has nothing to find here that a faster run does not.
#[cfg(all(test, not(miri)))]
mod tests;
#[cfg(all(test, not(miri)))]
mod twin;

use core::hint::select_unpredictable;

use crate::config::{Config, Geometry};
use crate::order::Order;
use crate::sync::{AtomicU16, Ordering};
use crate::tree::{Tree, Used};
use loose::Loose;
use summary::Summary;

/// Which end of an arena a request takes from, so that what cannot move and what can meet in the middle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The lowest addresses: unmovable.
    Bottom,
    /// The highest: movable.
    Top,
}

/// An invariant that does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Broken {
    /// Which one.
    pub(crate) what: &'static str,
    /// In which tree of the arena.
    pub(crate) tree: u32,
}

/// The most trees an arena has.
const TREES: usize = 512;
/// The order of a row: the frames of a word.
const ROW_ORDER: u32 = 6;
/// The bit of [`Buddy::orders_free`] that says that the whole arena is free.
pub(crate) const WHOLE_ARENA: u32 = 1 << 31;

/// The free frames of an arena.
///
/// `free_in_tree[t]` is the frames of the free blocks of tree `t`, and `free_frames` the sum over all trees. Trees are
/// numbered inside the arena; those that are not spanned have nothing free, ever. `used[t]` is the words of tree `t`
/// that are not zero.
pub(crate) struct Buddy<'m, C: Config> {
    trees: &'m mut [Tree],
    /// Read by pools, as advice, while the lock is held by others.
    free_in_tree: &'m [AtomicU16],
    first_tree: u32,
    free_frames: u32,
    summary: Summary<C>,
    used: [Used; TREES],
    loose: Loose,
}

impl<'m, C: Config> Buddy<'m, C> {
    /// The order of a tree.
    const TOP: u32 = C::HUGE_ORDER;
    const TREE_FRAMES: u32 = Geometry::<C>::TREE_FRAMES as u32;
    const ARENA_FRAMES: u32 = Geometry::<C>::ARENA_FRAMES as u32;

    /// An arena with nothing free, of which `trees` from number `first_tree` on are spanned.
    ///
    /// All trees are empty, and `free_in_tree` is as many zeroes.
    pub(crate) fn new(trees: &'m mut [Tree], free_in_tree: &'m [AtomicU16], first_tree: u32) -> Self {
        const { Geometry::<C>::VALID };
        assert!(trees.len() == free_in_tree.len(), "a count for each tree");
        assert!(first_tree as usize + trees.len() <= Geometry::<C>::ARENA_TREES, "the trees lie in the arena");
        Self {
            trees,
            free_in_tree,
            first_tree,
            free_frames: 0,
            summary: Summary::EMPTY,
            used: [Used::NONE; TREES],
            loose: Loose::NONE,
        }
    }

    /// How many frames are free.
    #[inline]
    pub(crate) fn free_frames(&self) -> u32 {
        self.free_frames
    }

    /// Bit `k`, up to the order of a tree: some tree has a free block of that order, as large as it can be.
    /// [`WHOLE_ARENA`] too if all the frames there could be in an arena are free.
    #[inline]
    pub(crate) fn orders_free(&self) -> u32 {
        let whole = if self.free_frames == Self::ARENA_FRAMES { WHOLE_ARENA } else { 0 };
        self.summary.orders() | whole
    }

    /// Takes 2^order aligned frames, wholly below `below` if given.
    ///
    /// A single frame comes from the first tree, seen from `end`, that has any: its smallest block, so that trees are
    /// emptied one by one. Larger blocks up to a tree come from the smallest block there is, at the first address.
    #[inline]
    pub(crate) fn take(&mut self, order: Order, end: End, below: Option<u32>) -> Option<u32> {
        let order = order.index() as u32;
        if order > C::ARENA_ORDER {
            return None;
        }
        let last = below.unwrap_or(Self::ARENA_FRAMES).min(Self::ARENA_FRAMES).checked_sub(1 << order)?;
        self.settle_for(order, end, last);
        self.take_block(order, end, last)
    }

    /// Takes 2^order aligned frames that begin at or before `last`.
    #[inline]
    fn take_block(&mut self, order: u32, end: End, last: u32) -> Option<u32> {
        if order >= Self::TOP {
            let trees = 1 << (order - Self::TOP);
            return self.take_trees(trees, trees, end, last >> Self::TOP);
        }
        let (tree, level, block) = self.find(order, end, last)?;
        let frame = Self::part(end, block, level, order, last - (tree << Self::TOP).min(last));
        self.split(tree, frame, order, level);
        self.settle(tree, (1u16 << order).wrapping_neg());
        Some(tree << Self::TOP | frame)
    }

    /// The first of 2^order frames inside a block of `level` to take, at or before `last`.
    #[inline(always)]
    fn part(end: End, block: u32, level: u32, order: u32, last: u32) -> u32 {
        match end {
            End::Bottom => block,
            End::Top => (block + (1 << level) - (1 << order)).min(last & !((1 << order) - 1)),
        }
    }

    /// The block to take 2^order frames from that begin at or before `last`: tree, level and place in the tree.
    #[inline(always)]
    fn find(&self, order: u32, end: End, last: u32) -> Option<(u32, u32, u32)> {
        let set = self.summary.first_set(order)?;
        let tree = match end {
            End::Bottom => self.summary.first(set)?,
            End::Top => self.summary.last(set)?,
        };
        let tree_end = (tree + 1) << Self::TOP;
        if tree_end - (1 << order) > last {
            return self.find_before(order, end, last);
        }
        let smallest = self.summary.counts(tree).levels().lowest();
        let level = select_unpredictable(order == 0, smallest, set);
        let block = match end {
            End::Bottom => self.tree(tree).first_of::<C>(level, self.used[tree as usize % TREES]),
            End::Top => self.tree(tree).last_of::<C>(level, self.used[tree as usize % TREES]),
        };
        Some((tree, level, block))
    }

    /// [`Buddy::find`] where the end of the tree that comes first lies past the limit.
    #[cold]
    fn find_before(&self, order: u32, end: End, last: u32) -> Option<(u32, u32, u32)> {
        if order > 0 {
            let mut levels = (order..=Self::TOP).filter(|level| self.summary.orders() >> level & 1 != 0);
            return levels.find_map(|level| {
                self.trees_before(level, end, last)
                    .find_map(|tree| Some((tree, level, self.block_in(tree, level, end, last)?)))
            });
        }
        self.trees_before(Summary::<C>::ANY, end, last).find_map(|tree| self.smallest_in(tree, end, last))
    }

    /// The trees of a set that begin at or before frame `last`, seen from `end`.
    fn trees_before(&self, set: u32, end: End, last: u32) -> impl Iterator<Item = u32> {
        let trees = self.summary.set(set);
        let last = last >> Self::TOP;
        let first = match end {
            End::Bottom => trees.first_from(0).filter(|&tree| tree <= last),
            End::Top => trees.last_to(last),
        };
        core::iter::successors(first, move |&tree| match end {
            End::Bottom => trees.first_from(tree + 1).filter(|&tree| tree <= last),
            End::Top => trees.last_to(tree.checked_sub(1)?),
        })
    }

    /// The smallest free block of `tree` that begins at or before `last`, the first seen from `end`.
    fn smallest_in(&self, tree: u32, end: End, last: u32) -> Option<(u32, u32, u32)> {
        let mut levels = self.summary.counts(tree).levels();
        levels.find_map(|level| Some((tree, level, self.block_in(tree, level, end, last)?)))
    }

    /// The first free block of `level` in `tree`, seen from `end`, that begins at or before `last`.
    #[inline]
    fn block_in(&self, tree: u32, level: u32, end: End, last: u32) -> Option<u32> {
        let last = last.checked_sub(tree << Self::TOP)?.min(Self::TREE_FRAMES - 1);
        match end {
            End::Bottom => self.tree(tree).lowest_of::<C>(level, last),
            End::Top => self.tree(tree).highest_of::<C>(level, last),
        }
    }

    /// Takes up to `want` single frames of one tree, the one that [`Buddy::take`] would take a frame from, and calls
    /// `out` with the start and the count of each piece. Returns how many it took.
    #[inline]
    pub(crate) fn take_frames(
        &mut self,
        want: u32,
        end: End,
        below: Option<u32>,
        mut out: impl FnMut(u32, u32),
    ) -> u32 {
        let limit = below.unwrap_or(Self::ARENA_FRAMES).min(Self::ARENA_FRAMES);
        let Some(last) = limit.checked_sub(1) else { return 0 };
        self.settle_for(0, end, last);
        let Some((tree, mut level, mut block)) = self.find(0, end, last) else { return 0 };
        let base = tree << Self::TOP;
        let mut taken = 0;
        while taken < want {
            let mut order = level.min((want - taken).ilog2());
            if base + block + (1 << level) > limit {
                order = match end {
                    End::Bottom => order.min((limit - base - block).ilog2()),
                    End::Top => 0,
                };
            }
            let frame = Self::part(end, block, level, order, last - base);
            self.split(tree, frame, order, level);
            out(base + frame, 1 << order);
            taken += 1 << order;
            let mut levels = self.summary.counts(tree).levels();
            let next = levels.find_map(|level| Some((level, self.block_in(tree, level, end, last)?)));
            let Some(next) = next else { break };
            (level, block) = next;
        }
        self.settle(tree, (taken as u16).wrapping_neg());
        taken
    }

    /// Frees 2^order aligned frames.
    ///
    /// # Errors
    /// The number of a frame of them that is free already; nothing is freed then.
    #[inline]
    pub(crate) fn free(&mut self, index: u32, order: Order) -> Result<(), u32> {
        let order = order.index() as u32;
        debug_assert!(index & ((1 << order) - 1) == 0, "a block is aligned");
        if order >= Self::TOP {
            return self.free_trees(index >> Self::TOP, 1 << (order - Self::TOP));
        }
        let (tree, frame) = (index >> Self::TOP, index % Self::TREE_FRAMES);
        if self.tree(tree).any_free::<C>(frame, order) {
            return self.refuse(index, order);
        }
        if order == 0 && Self::TOP >= ROW_ORDER {
            self.loosen(index / 64, 1 << (index % 64));
        } else {
            self.give_block(tree, frame, order);
        }
        Ok(())
    }

    /// Says which of 2^order frames is free already.
    #[cold]
    fn refuse(&self, index: u32, order: u32) -> Result<(), u32> {
        Err(self.first_free_in(index, 1 << order).unwrap_or(index))
    }

    /// Frees 2^order aligned frames of a tree, none of which is free.
    #[inline(always)]
    fn give_block(&mut self, tree: u32, frame: u32, order: u32) {
        let level = self.trees[(tree - self.first_tree) as usize].merge::<C>(
            frame,
            order,
            &mut self.used[tree as usize % TREES],
        );
        self.summary.merged(tree, order, level);
        self.settle(tree, 1 << order);
        if self.loose.contains(tree) && self.free_in(tree) >= Self::TREE_FRAMES {
            self.settle_tree(tree);
        }
    }

    /// Frees the frames of `mask` in the aligned row of 64 frames of number `row`.
    ///
    /// Returns those of them that were free already: they stay as they are, the others are freed. Frames of trees of a
    /// row and more are merged later, when it matters what they make together; a frame that turns out then to be free
    /// twice is told by [`Buddy::late_fault`].
    pub(crate) fn free_row(&mut self, row: u32, mask: u64) -> u64 {
        if Self::TOP >= ROW_ORDER {
            return self.loosen(row, mask);
        }
        if mask & mask.wrapping_sub(1) == 0 {
            let Some(bit) = mask.checked_ilog2() else { return 0 };
            return if self.free(row * 64 + bit, Order::ZERO).is_ok() { 0 } else { mask };
        }
        let trees = 64u32 >> Self::TOP;
        let frames = 64 / trees;
        let mut refused = 0;
        for part in 0..trees {
            let mine = mask >> (part * frames) & (!0 >> (64 - frames));
            if mine == 0 {
                continue;
            }
            let first = row * 64 + part * frames;
            let tree = first >> Self::TOP;
            let tree_row = first % Self::TREE_FRAMES / 64;
            let free = self.tree(tree).row::<C>(tree_row) & mine;
            refused |= free << (part * frames);
            let (words, summary) = (&mut self.trees[(tree - self.first_tree) as usize], &mut self.summary);
            words.merge_row::<C>(tree_row, mine & !free, &mut self.used[tree as usize % TREES], |level, more| {
                summary.change(tree, level, more)
            });
            self.settle(tree, (mine & !free).count_ones() as u16);
        }
        refused
    }

    #[inline(always)]
    fn tree(&self, tree: u32) -> &Tree {
        &self.trees[(tree - self.first_tree) as usize]
    }

    /// The free frames of a tree.
    #[inline(always)]
    fn free_in(&self, tree: u32) -> u32 {
        // Relaxed: only the holder of the lock writes it.
        u32::from(self.free_in_tree[(tree - self.first_tree) as usize].load(Ordering::Relaxed))
    }

    /// Takes 2^order frames at `frame` out of the free block of `level` in `tree`.
    #[inline(always)]
    fn split(&mut self, tree: u32, frame: u32, order: u32, level: u32) {
        self.trees[(tree - self.first_tree) as usize].split::<C>(
            frame,
            order,
            level,
            &mut self.used[tree as usize % TREES],
        );
        self.summary.split(tree, order, level);
    }

    /// Counts `more` free frames in `tree`, modulo 2^16, and tells whether it has any.
    #[inline(always)]
    fn settle(&mut self, tree: u32, more: u16) {
        self.count(tree, more);
        self.summary.settle(tree);
    }

    /// Counts `more` free frames in `tree`, modulo 2^16; returns how many there are.
    #[inline(always)]
    fn count(&mut self, tree: u32, more: u16) -> u32 {
        let count = &self.free_in_tree[(tree - self.first_tree) as usize];
        // Relaxed: the lock orders its holders, and pools read it as advice.
        let now = count.load(Ordering::Relaxed).wrapping_add(more);
        count.store(now, Ordering::Relaxed);
        self.free_frames = self.free_frames.wrapping_add_signed(i32::from(more as i16));
        u32::from(now)
    }
}
