//! The free units of one region: a few trees side by side.
//!
//! Plain data of whoever holds the region's lock. What splits and merges is the [`Tree`]; there are so few of them that
//! the way to the right one is to look at each.

use core::ops::Range;

use super::{TREE_UNITS, UNIT_BYTES, Units};
use crate::config::Config;
use crate::order::{AlignedBlocks, Order};
use crate::tree::{Counts, Tree, Used};

/// The order of a tree.
const TOP: u32 = Units::HUGE_ORDER;
/// Units of a row, which is 4 KiB: trees lie at multiples of it, so up to that size a block is aligned by its place.
const ROW: u32 = 64;

/// What is noted of a tree beside its bits.
pub(super) struct Note {
    counts: Counts<Units>,
    used: Used,
}

impl Note {
    pub(super) const NONE: Self = Self { counts: Counts::NONE, used: Used::NONE };
}

/// The trees of a region, their units numbered from the first tree's first.
///
/// `free_units` is the units of all free blocks; `notes[t]` has how many blocks of each level tree `t` has.
pub(super) struct Grove<'m> {
    trees: &'m mut [Tree],
    notes: &'m mut [Note],
    free_units: u32,
}

impl<'m> Grove<'m> {
    /// Nothing free. The trees are empty, and have a note each.
    pub(super) fn new(trees: &'m mut [Tree], notes: &'m mut [Note]) -> Self {
        Self { trees, notes, free_units: 0 }
    }

    pub(super) fn free_units(&self) -> u32 {
        self.free_units
    }

    /// Takes `count` units in a row whose address is a multiple of `align` units, a power of two; unit 0 is the
    /// `origin`th unit of the address space.
    ///
    /// They are the head of the smallest block that holds them, at the lowest address. Where no block does, of the
    /// smallest run of free units: so a request is refused only if its units are not there.
    pub(super) fn take(&mut self, count: u32, align: usize, origin: usize) -> Option<u32> {
        if count > self.free_units {
            return None;
        }
        let block = if align <= ROW as usize { self.smallest_block(count.max(align as u32)) } else { None };
        let start = block.or_else(|| self.smallest_run(count, align, origin))?;
        self.claim(start, count);
        Some(start)
    }

    /// The smallest free block of at least `units`, the first of its size.
    fn smallest_block(&self, units: u32) -> Option<u32> {
        let order = units.next_power_of_two().trailing_zeros();
        let fits = |note: &Note| (order..=TOP).find(|&level| note.counts.has(level));
        let found = self.notes.iter().enumerate().filter_map(|(tree, note)| Some((fits(note)?, tree)));
        let (level, tree) = found.min()?;
        let unit = self.trees[tree].first_of::<Units>(level, self.notes[tree].used);
        Some(tree as u32 * TREE_UNITS + unit)
    }

    /// The first aligned unit of the smallest run of free units that holds `count` from there on.
    #[cold]
    fn smallest_run(&self, count: u32, align: usize, origin: usize) -> Option<u32> {
        let mut best: Option<(u32, u32)> = None;
        self.runs(|run| {
            let first = (origin + run.start as usize).checked_next_multiple_of(align);
            let start = first.and_then(|first| u32::try_from(first - origin).ok());
            if let Some(start) = start
                && start < run.end
                && run.end - start >= count
                && best.is_none_or(|(length, _)| run.end - run.start < length)
            {
                best = Some((run.end - run.start, start));
            }
        });
        best.map(|(_, start)| start)
    }

    /// Calls `each` with every run of free units, whatever blocks it is made of.
    fn runs(&self, mut each: impl FnMut(Range<u32>)) {
        let mut run = 0..0;
        for (tree, words) in self.trees.iter().enumerate().filter(|&(tree, _)| !self.notes[tree].counts.is_none()) {
            for row in 0..TREE_UNITS / ROW {
                let mut free = words.row::<Units>(row);
                let mut unit = tree as u32 * TREE_UNITS + row * ROW;
                while free != 0 {
                    let gap = free.trailing_zeros();
                    let length = (free >> gap).trailing_ones();
                    unit += gap;
                    if run.end != unit {
                        each(run);
                        run = unit..unit;
                    }
                    run.end = unit + length;
                    unit = run.end;
                    // In two steps, since a shift by 64 is none.
                    free = free >> gap >> (length - 1) >> 1;
                }
            }
        }
        each(run);
    }

    /// The longest run of free units.
    pub(super) fn longest_run(&self) -> u32 {
        let mut longest = 0;
        self.runs(|run| longest = longest.max(run.end - run.start));
        longest
    }

    /// Takes `count` units from `start` on if all of them are free.
    pub(super) fn take_at(&mut self, start: u32, count: u32) -> bool {
        let free = blocks(start, count).all(|(tree, unit, order)| {
            // Units that are free together lie in one block: smaller ones would have merged.
            self.trees[tree].covering::<Units>(unit).is_some_and(|level| level >= order)
        });
        if free {
            self.claim(start, count);
        }
        free
    }

    /// Takes units that are free.
    fn claim(&mut self, start: u32, count: u32) {
        for (tree, unit, order) in blocks(start, count) {
            let Some(level) = self.trees[tree].covering::<Units>(unit) else { continue };
            let note = &mut self.notes[tree];
            self.trees[tree].split::<Units>(unit, order, level, &mut note.used);
            note.counts = note.counts.split(order, level);
        }
        self.free_units -= count;
    }

    /// Gives units back that are not free.
    pub(super) fn give(&mut self, start: u32, count: u32) {
        for (tree, unit, order) in blocks(start, count) {
            debug_assert!(!self.trees[tree].any_free::<Units>(unit, order), "the marks had them lent");
            let note = &mut self.notes[tree];
            let level = self.trees[tree].merge::<Units>(unit, order, &mut note.used);
            note.counts = note.counts.merged(order, level);
        }
        self.free_units += count;
    }

    /// Whether a unit is free.
    pub(super) fn is_free(&self, unit: u32) -> bool {
        self.trees[(unit / TREE_UNITS) as usize].covering::<Units>(unit % TREE_UNITS).is_some()
    }

    /// Checks all invariants.
    pub(super) fn validate(&self) -> Result<(), &'static str> {
        let mut free_units = 0;
        for (tree, note) in self.trees.iter().zip(self.notes.iter()) {
            let counts = tree.validate::<Units>(note.used, false)?;
            if counts != note.counts {
                return Err("the counts of a tree's free blocks are wrong");
            }
            free_units += counts.frames();
        }
        if free_units != self.free_units {
            return Err("the region's count of free units is wrong");
        }
        Ok(())
    }
}

/// The aligned blocks of a range, by tree, unit in the tree and order.
fn blocks(start: u32, count: u32) -> impl Iterator<Item = (usize, u32, u32)> {
    let largest = const { Order::new(TOP).unwrap() };
    let blocks = AlignedBlocks::new(start as usize, count as usize, largest);
    blocks.map(|(head, order)| (head / TREE_UNITS as usize, head as u32 % TREE_UNITS, order.index() as u32))
}

const _: () = assert!(ROW as usize * UNIT_BYTES == super::ORIGIN_BYTES);
