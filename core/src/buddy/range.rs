//! What is asked of an arena by range: runs, named frames, any split of what is lent.

use core::ops::Range;

use super::summary::Summary;
use super::{Broken, Buddy, End, ROW_ORDER};
use crate::config::{Config, Geometry};
use crate::order::{AlignedBlocks, Order};
use crate::tree::Counts;

/// From so many trees on a run begins where a tree does: what is left of its last is little beside it, and huge pages
/// move as a whole from tree to tree.
pub(super) const MANY_TREES: u32 = 4;

impl<C: Config> Buddy<'_, C> {
    /// Takes `count` contiguous frames that begin at a multiple of 2^align, wholly below `below` if given.
    ///
    /// Up to half a tree they are the head of the smallest block that holds them. From the bottom of the arena more are
    /// the first free frames in a row that are as many, wherever trees begin; of many trees, and at the top, they are
    /// the head of the smallest block or of a run of wholly free trees. The rest stays free.
    pub(crate) fn take_run(&mut self, count: u32, align: u32, end: End, below: Option<u32>) -> Option<u32> {
        let last = below.unwrap_or(Self::ARENA_FRAMES).min(Self::ARENA_FRAMES).checked_sub(count)?;
        if count == 0 || align > C::ARENA_ORDER {
            return None;
        }
        self.settle_all();
        if end == End::Bottom && count > Self::TREE_FRAMES / 2 && count < MANY_TREES << Self::TOP {
            let start = self.first_run(count, 1 << align, last)?;
            let taken = self.take_at(start, count);
            debug_assert_eq!(taken, Ok(()), "all of it is free");
            return Some(start);
        }
        let order = count.next_power_of_two().trailing_zeros().max(align);
        let (start, taken) = if order <= Self::TOP {
            (self.take_block(order, end, last)?, 1 << order)
        } else {
            let trees = count.div_ceil(Self::TREE_FRAMES);
            let spacing = 1 << align.saturating_sub(Self::TOP);
            (self.take_trees(trees, spacing, end, last >> Self::TOP)?, trees << Self::TOP)
        };
        self.give(start + count, taken - count);
        Some(start)
    }

    /// The first `count` free frames in a row that begin at a multiple of `spacing`, at or before `last`. They are more
    /// than half a tree.
    fn first_run(&self, count: u32, spacing: u32, last: u32) -> Option<u32> {
        let fits = |run: Range<u32>| {
            let start = run.start.next_multiple_of(spacing);
            (start + count <= run.end).then_some(start)
        };
        let trees = self.summary.set(Summary::<C>::ANY);
        // The free frames in a row that end at the last one looked at.
        let mut run = 0..0;
        let mut next = trees.first_from(0);
        while let Some(tree) = next {
            let start = tree << Self::TOP;
            if run.end != start {
                run = start..start;
            }
            if run.start > last {
                return None;
            }
            // Of free frames inside a tree that are more than half of it, one is in the middle.
            for place in [start, start + Self::TREE_FRAMES / 2] {
                if run.end < place {
                    run = self.free_to(place)..place;
                }
                run.end = self.free_from(place);
                if let Some(start) = fits(run.clone()) {
                    return Some(start).filter(|&start| start <= last);
                }
            }
            if run.end != start + Self::TREE_FRAMES {
                run = self.free_to(start + Self::TREE_FRAMES)..start + Self::TREE_FRAMES;
            }
            next = trees.first_from(tree + 1);
        }
        fits(run).filter(|&start| start <= last)
    }

    /// Where the free frames in a row end that begin at `frame`, at the latest where its tree does.
    fn free_from(&self, frame: u32) -> u32 {
        let (tree, mut next) = (frame >> Self::TOP, frame % Self::TREE_FRAMES);
        while next < Self::TREE_FRAMES
            && let Some(level) = self.tree(tree).covering::<C>(next)
        {
            next = ((next >> level) + 1) << level;
        }
        (tree << Self::TOP) + next
    }

    /// Where the free frames in a row begin that end before `frame`, at the earliest where its tree does.
    fn free_to(&self, frame: u32) -> u32 {
        let tree = (frame - 1) >> Self::TOP;
        let mut first = frame - (tree << Self::TOP);
        while let Some(last) = first.checked_sub(1)
            && let Some(level) = self.tree(tree).covering::<C>(last)
        {
            first = last >> level << level;
        }
        (tree << Self::TOP) + first
    }

    /// Takes exactly these frames.
    ///
    /// # Errors
    /// The first of them that is not free; nothing is taken then.
    pub(crate) fn take_at(&mut self, start: u32, count: u32) -> Result<(), u32> {
        self.settle_all();
        let mut next = start;
        while next < start + count {
            match self.next_free_chunk(next, start + count) {
                Some((found, frames)) if found == next => next += frames,
                _ => return Err(next),
            }
        }
        for (head, order) in Self::blocks(start, count) {
            let (tree, frame) = (head >> Self::TOP, head % Self::TREE_FRAMES);
            // A block that is free whole lies in one free block: smaller ones in it would have merged.
            if let Some(level) = self.tree(tree).covering::<C>(frame) {
                self.split(tree, frame, order, level);
                self.settle(tree, (1u16 << order).wrapping_neg());
            }
        }
        Ok(())
    }

    /// Frees any `count` frames that are not free.
    ///
    /// # Errors
    /// The first of them that is free already; nothing is freed then.
    pub(crate) fn free_range(&mut self, start: u32, count: u32) -> Result<(), u32> {
        match self.first_free_in(start, count) {
            Some(found) => Err(found),
            None => {
                self.give(start, count);
                Ok(())
            }
        }
    }

    /// Frees frames of which none is free.
    fn give(&mut self, start: u32, count: u32) {
        for (head, order) in Self::blocks(start, count) {
            if order == 0 && Self::TOP >= ROW_ORDER {
                self.loosen(head / 64, 1 << (head % 64));
            } else {
                self.give_block(head >> Self::TOP, head % Self::TREE_FRAMES, order);
            }
        }
    }

    /// The aligned blocks of a range, none larger than a tree.
    fn blocks(start: u32, count: u32) -> impl Iterator<Item = (u32, u32)> {
        let largest = const { Order::new(C::HUGE_ORDER).unwrap() };
        let blocks = AlignedBlocks::new(start as usize, count as usize, largest);
        blocks.map(|(head, order)| (head as u32, order.index() as u32))
    }

    /// Whether a frame is free.
    pub(crate) fn is_free(&self, index: u32) -> bool {
        self.spans(index >> Self::TOP)
            && self.tree(index >> Self::TOP).covering::<C>(index % Self::TREE_FRAMES).is_some()
    }

    /// The first frame of a range that is free.
    pub(crate) fn first_free_in(&self, start: u32, count: u32) -> Option<u32> {
        self.next_free_chunk(start, start + count).map(|(found, _)| found)
    }

    /// The first free frame of `from..end`, and how many from there are free and lie in the range and in one free
    /// block.
    pub(crate) fn next_free_chunk(&self, from: u32, end: u32) -> Option<(u32, u32)> {
        let mut next = from;
        let trees = self.summary.set(Summary::<C>::ANY);
        while next < end {
            let tree = trees.first_from(next >> Self::TOP)?;
            next = next.max(tree << Self::TOP);
            let tree_end = (tree + 1) << Self::TOP;
            while next < end.min(tree_end) {
                let frame = next % Self::TREE_FRAMES;
                let row = self.tree(tree).row::<C>(frame / 64) >> (frame % 64);
                if row == 0 {
                    next = ((next / 64 + 1) * 64).min(tree_end);
                    continue;
                }
                next += row.trailing_zeros();
                if next >= end {
                    return None;
                }
                let level = self.tree(tree).covering::<C>(next % Self::TREE_FRAMES)?;
                let block_end = ((next >> level) + 1) << level;
                return Some((next, block_end.min(end) - next));
            }
        }
        None
    }

    fn spans(&self, tree: u32) -> bool {
        tree >= self.first_tree && ((tree - self.first_tree) as usize) < self.trees.len()
    }

    /// Takes a run of `count` wholly free trees that begins at a multiple of `spacing`, at or before tree `last`.
    #[inline(never)]
    pub(super) fn take_trees(&mut self, count: u32, spacing: u32, end: End, last: u32) -> Option<u32> {
        let first = match end {
            End::Bottom => self.summary.first(Self::TOP),
            End::Top => self.summary.last(Self::TOP),
        };
        let start = match first? {
            first if count == 1 && spacing == 1 && first <= last => first,
            _ => {
                let starts = self.summary.set(Self::TOP).runs(count).aligned(spacing);
                let start = match end {
                    End::Bottom => starts.first_from(0),
                    End::Top => starts.last_to(last),
                };
                start.filter(|&start| start <= last)?
            }
        };
        for tree in start..start + count {
            self.split(tree, 0, Self::TOP, Self::TOP);
            self.settle(tree, (Self::TREE_FRAMES as u16).wrapping_neg());
        }
        Some(start << Self::TOP)
    }

    /// Frees whole trees.
    #[inline(never)]
    pub(super) fn free_trees(&mut self, first: u32, count: u32) -> Result<(), u32> {
        if let Some(tree) = (first..first + count).find(|&tree| self.free_in(tree) != 0) {
            return Err(self.first_free_in(tree << Self::TOP, Self::TREE_FRAMES).unwrap_or(tree << Self::TOP));
        }
        for tree in first..first + count {
            self.give_block(tree, 0, Self::TOP);
        }
        Ok(())
    }

    /// Adds the free blocks of each order to `into`; wholly free trees are counted as the largest aligned blocks that
    /// runs of them make.
    pub(crate) fn count_chunks(&mut self, into: &mut [usize; Order::COUNT]) {
        self.settle_all();
        for tree in 0..Geometry::<C>::ARENA_TREES as u32 {
            let counts = self.summary.counts(tree);
            (0..Self::TOP).for_each(|level| into[level as usize] += counts.of_level(level) as usize);
        }
        let whole = self.summary.set(Self::TOP);
        let mut next = 0;
        while let Some(start) = whole.first_from(next) {
            next = whole.first_gap_from(start);
            for (_, order) in AlignedBlocks::new(start as usize, (next - start) as usize, Order::MAX) {
                into[order.index() + C::HUGE_ORDER as usize] += 1;
            }
        }
    }

    /// Checks all invariants.
    ///
    /// # Errors
    /// The first that does not hold.
    pub(crate) fn validate(&self) -> Result<(), Broken> {
        let mut free_frames = 0;
        let mut orders = 0;
        for tree in 0..Geometry::<C>::ARENA_TREES as u32 {
            let broken = |what| Broken { what, tree };
            let counts = if self.spans(tree) {
                self.tree(tree).validate::<C>(self.used[tree as usize], self.loose.contains(tree)).map_err(broken)?
            } else {
                Counts::NONE
            };
            if self.spans(tree) && counts.frames() != self.free_in(tree) {
                return Err(broken("the tree's count of free frames is wrong"));
            }
            orders |= self.summary.validate(tree, counts, self.loose.contains(tree)).map_err(broken)?;
            free_frames += counts.frames();
        }
        let tree = 0;
        if !self.summary.is_consistent(orders) {
            return Err(Broken { what: "the summary of the sets is wrong", tree });
        }
        if free_frames != self.free_frames {
            return Err(Broken { what: "the arena's count of free frames is wrong", tree });
        }
        Ok(())
    }
}
