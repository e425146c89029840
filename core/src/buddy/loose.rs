//! Single frames that were freed and are not merged yet.
//!
//! A single frame that comes home needs no more than its bit: what it makes together with its neighbours matters only
//! when somebody takes from the tree, or looks for a block of more than one frame. By then other frames of its row have
//! come home too, and pairs are merged 64 frames at a time.

use super::{Buddy, End, ROW_ORDER, TREES};
use crate::config::Config;

/// The trees that have loose frames, and what came to light about them.
pub(super) struct Loose {
    trees: [u64; TREES / 64],
    any: bool,
    fault: Option<u32>,
}

impl Loose {
    pub(super) const NONE: Self = Self { trees: [0; TREES / 64], any: false, fault: None };

    #[inline(always)]
    fn add(&mut self, tree: u32) {
        self.trees[tree as usize / 64 % self.trees.len()] |= 1 << (tree % 64);
        self.any = true;
    }

    #[inline(always)]
    pub(super) fn contains(&self, tree: u32) -> bool {
        self.trees[tree as usize / 64 % self.trees.len()] >> (tree % 64) & 1 != 0
    }

    #[inline(always)]
    fn remove(&mut self, tree: u32) {
        self.trees[tree as usize / 64 % self.trees.len()] &= !(1 << (tree % 64));
    }

    fn first(&self) -> Option<u32> {
        let word = self.trees.iter().position(|&trees| trees != 0)?;
        Some(word as u32 * 64 + self.trees[word].trailing_zeros())
    }
}

impl<C: Config> Buddy<'_, C> {
    /// Rows of a tree, where a tree is no smaller than a row.
    const ROWS: u32 = 1 << Self::TOP.saturating_sub(ROW_ORDER);

    /// Frees frames of a row without merging them; returns those that were free as single frames already.
    ///
    /// While a tree is loose its single frames are counted as frames, not as blocks.
    #[inline]
    pub(super) fn loosen(&mut self, row: u32, mask: u64) -> u64 {
        let (tree, row) = (row / Self::ROWS, row % Self::ROWS);
        if !self.loose.contains(tree) {
            self.loose.add(tree);
            self.summary.loosen(tree);
        }
        let place = (tree - self.first_tree) as usize;
        let refused = self.trees[place].loosen(row, mask, &mut self.used[tree as usize % TREES]);
        let freed = mask & !refused;
        // One or none is the common case, and not every processor counts bits at once.
        let more = if freed & freed.wrapping_sub(1) == 0 { u32::from(freed != 0) } else { freed.count_ones() };
        if self.count(tree, more as u16) >= Self::TREE_FRAMES {
            self.settle_tree(tree);
        }
        refused
    }

    /// Merges what must be merged before 2^order frames are taken that begin at or before `last`.
    #[inline]
    pub(super) fn settle_for(&mut self, order: u32, end: End, last: u32) {
        if !self.loose.any {
            return;
        }
        let next = match end {
            End::Bottom => self.summary.first(super::Summary::<C>::ANY),
            End::Top => self.summary.last(super::Summary::<C>::ANY),
        };
        match next {
            // A single frame comes from this tree, so what other trees could make does not matter.
            Some(tree) if order == 0 && (tree + 1) << Self::TOP <= last => {
                if self.loose.contains(tree) {
                    self.settle_tree(tree);
                }
            }
            _ => self.settle_all(),
        }
    }

    /// Merges everything.
    pub(crate) fn settle_all(&mut self) {
        while let Some(tree) = self.loose.first() {
            self.settle_tree(tree);
        }
        self.loose.any = false;
    }

    /// Merges the loose frames of a tree. A frame that lies in a larger free block was freed twice and is dropped.
    pub(super) fn settle_tree(&mut self, tree: u32) {
        self.loose.remove(tree);
        self.summary.tighten(tree);
        let mut twice = 0;
        for row in 0..Self::ROWS {
            let words = &mut self.trees[(tree - self.first_tree) as usize];
            let (used, summary) = (&mut self.used[tree as usize % TREES], &mut self.summary);
            let (singles, covered) = words.gather_loose::<C>(row, used);
            if singles == 0 {
                continue;
            }
            let freed = singles & !covered;
            if freed != 0 {
                words.merge_row::<C>(row, freed, used, |level, more| summary.change(tree, level, more));
            }
            if covered != 0 {
                self.loose.fault = Some(tree << Self::TOP | row << ROW_ORDER | covered.trailing_zeros());
                twice += covered.count_ones() as u16;
            }
        }
        self.settle(tree, twice.wrapping_neg());
    }

    /// A frame that merging found to be free twice, told once.
    #[inline]
    pub(crate) fn late_fault(&mut self) -> Option<u32> {
        self.loose.fault.take()
    }
}
