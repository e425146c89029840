//! Which frames somebody has had, and what is done about those that nobody has now.
//!
//! ```text
//!   clean ──lent──► lent, clean ──freed──► free, dirty ──lent──► lent, dirty
//!     ▲                                        │  ▲                  │
//!     └─────────── reported, given back ◄──────┘  └──────freed───────┘
//! ```
//!
//! Where memory starts as zeros, a *clean* frame still reads so, and has perhaps no memory behind it yet. A frame
//! becomes dirty when it comes back to its tree, by whatever way, and clean again when a reporter has taken what is
//! behind it away. So whoever takes frames straight from a tree and finds none of them dirty knows that they are zero;
//! and the frames that are free and dirty are those that the owner of the memory could have back.
//!
//! What passes through a CPU's pool is noted only when it gets to the tree. Of frames from there nothing is said.

use core::ops::Range;

use super::{Access, Arena, Busy, State};
use crate::config::{Config, Geometry};
use crate::frame::Pfn;
use crate::order::Order;
use crate::pending::ROW_FRAMES;
use crate::platform::Platform;
use crate::sync::{AtomicU64, Ordering};

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// Notes that frames have come back to their trees. Only with the lock held.
    #[inline]
    pub(crate) fn note_return(&self, state: &mut State<'m, C>, start: u32, count: u32) {
        if C::FRESH_FRAMES_ARE_ZERO {
            self.rows(start, count).for_each(|(row, mask)| self.note_row(state, row, mask));
        }
    }

    /// As [`note_return`](Self::note_return), frames of one row.
    #[inline]
    pub(crate) fn note_row(&self, state: &mut State<'m, C>, row: u32, mask: u64) {
        if !C::FRESH_FRAMES_ARE_ZERO {
            return;
        }
        if let Some(dirty) = self.dirty_row(row) {
            // Relaxed, and no read-modify-write: ordered by the lock, under which alone it is written.
            dirty.store(dirty.load(Ordering::Relaxed) | mask, Ordering::Relaxed);
        }
        state.dirty_free += mask.count_ones();
    }

    /// Notes that frames were taken out of their trees. Only with the lock held.
    #[inline]
    pub(crate) fn note_taken(&self, state: &mut State<'m, C>, start: u32, count: u32) {
        if C::FRESH_FRAMES_ARE_ZERO {
            // Saturating: a wrong free at `Fast` may have been counted that the tree refused.
            state.dirty_free = state.dirty_free.saturating_sub(self.dirty_in(start, count));
        }
    }

    /// Whether frames that the caller has taken straight from their trees were never anybody else's, or are zero again.
    pub(crate) fn are_clean(&self, start: u32, count: u32) -> bool {
        // Of its row's other frames some may come back just now.
        C::FRESH_FRAMES_ARE_ZERO && self.dirty_in(start, count) == 0
    }

    /// How many frames of a range are dirty.
    pub(crate) fn dirty_in(&self, start: u32, count: u32) -> u32 {
        self.rows(start, count).map(|(row, mask)| (self.dirty_bits(row) & mask).count_ones()).sum()
    }

    fn is_dirty(&self, index: u32) -> bool {
        self.dirty_bits(index / ROW_FRAMES) >> (index % ROW_FRAMES) & 1 == 1
    }

    fn dirty_bits(&self, row: u32) -> u64 {
        self.dirty_row(row).map_or(0, |dirty| dirty.load(Ordering::Relaxed))
    }

    fn dirty_row(&self, row: u32) -> Option<&'m AtomicU64> {
        self.dirty.get((row - self.first_row()) as usize)
    }

    /// The rows that a range touches, with its part of each.
    fn rows(&self, start: u32, count: u32) -> impl Iterator<Item = (u32, u64)> + use<P, C> {
        let end = start + count;
        (start / ROW_FRAMES..end.div_ceil(ROW_FRAMES)).map(move |row| {
            let first = row * ROW_FRAMES;
            let (low, high) = (start.max(first) - first, end.min(first + ROW_FRAMES) - first);
            (row, (!0 >> (ROW_FRAMES - (high - low))) << low)
        })
    }

    /// Takes dirty frames out of their trees that are free blocks of 2^`least` frames or larger, in whole units of
    /// 2^`unit` frames, as far up as there are any below `below`: their first index, how many there are and how many of
    /// these are dirty. They are nobody's until they are [given back](Self::return_reported).
    pub(crate) fn take_dirty(
        &self,
        access: Access<'_, P>,
        [unit, least]: [Order; 2],
        below: u32,
    ) -> Result<Option<(u32, u32, u32)>, Busy> {
        self.with(access, |arena, state| {
            if state.dirty_free == 0 {
                return None;
            }
            let tree_frames = Geometry::<C>::TREE_FRAMES as u32;
            let trees = below.min(arena.end()).div_ceil(tree_frames);
            for tree in (arena.first() / tree_frames..trees).rev() {
                let window = arena.tree_window(tree * tree_frames);
                if arena.dirty_in(window.start, window.end - window.start) == 0 {
                    continue;
                }
                state.buddy.settle_all();
                if let Some((start, count)) = arena.dirty_run(state, window.start..window.end.min(below), [unit, least])
                {
                    let taken = state.buddy.take_at(start, count);
                    debug_assert!(taken.is_ok(), "the run is free");
                    arena.note_taken(state, start, count);
                    return Some((start, count, arena.dirty_in(start, count)));
                }
            }
            None
        })
    }

    /// The last run of units with dirty frames in a free block of 2^`least` frames or more in a tree; of a tree that is
    /// free as a whole all of it, since its owner may have put a huge page behind it when its first frame was touched.
    fn dirty_run(&self, state: &State<'m, C>, window: Range<u32>, [unit, least]: [Order; 2]) -> Option<(u32, u32)> {
        let unit = unit.frames() as u32;
        let mut last = None;
        let mut next = window.start;
        while let Some((start, count)) = state.buddy.next_free_chunk(next, window.end) {
            next = start + count;
            // A huge frame that is free but for a frame that is not spanned counts as one.
            let is_tree = count == window.end - window.start;
            let wide = count >= least.frames() as u32 || is_tree;
            let whole = start.next_multiple_of(unit)..next / unit * unit;
            if !wide || whole.is_empty() {
                continue;
            }
            let Some(first) = whole.clone().find(|&index| self.is_dirty(index)) else { continue };
            if is_tree {
                return Some((whole.start, whole.end - whole.start));
            }
            let end = (first..whole.end).rev().find(|&index| self.is_dirty(index))? + 1;
            let (first, end) = (first / unit * unit, end.next_multiple_of(unit));
            last = Some((first, end - first));
        }
        last
    }

    /// Takes frames back that were taken to be reported; they are clean now if the reporter has said so.
    pub(crate) fn return_reported(
        &self,
        access: Access<'_, P>,
        start: u32,
        count: u32,
        clean: bool,
    ) -> Result<(), Busy> {
        self.with(access, |arena, state| {
            if clean {
                for (row, mask) in arena.rows(start, count) {
                    if let Some(dirty) = arena.dirty_row(row) {
                        dirty.store(dirty.load(Ordering::Relaxed) & !mask, Ordering::Relaxed);
                    }
                }
            } else {
                state.dirty_free += arena.dirty_in(start, count);
            }
            let freed = state.buddy.free_range(start, count);
            debug_assert!(freed.is_ok(), "nobody else has had them");
        })
    }

    /// Whether as many frames are free and dirty as are counted; if not, its first frame.
    pub(crate) fn check_dirty(&self, state: &mut State<'m, C>) -> Result<(), Pfn> {
        if !C::FRESH_FRAMES_ARE_ZERO {
            return Ok(());
        }
        let free = (self.first()..self.end()).filter(|&index| self.is_dirty(index) && state.buddy.is_free(index));
        if free.count() as u32 == state.dirty_free { Ok(()) } else { Err(self.span().start()) }
    }

    fn end(&self) -> u32 {
        self.first() + self.span().count().get() as u32
    }
}
