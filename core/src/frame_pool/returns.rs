//! Freed frames on their way back to their trees, by rows of 64.

use crate::arena::{Access, Arena};
use crate::config::Config;
use crate::frame::Pfn;
use crate::frame_table::FrameWord;
use crate::order::Order;
use crate::pending::ROW_FRAMES;
use crate::platform::{Pinned, Platform};
use crate::sync::{OwnerU32, OwnerU64, OwnerUsize, Publish};

/// The rows that are collected before a lock is taken for them.
const ROWS: usize = 32;
/// No row has this number.
const NO_ROW: usize = usize::MAX;
/// Frames of a row, as frame numbers are counted.
const ROW: usize = ROW_FRAMES as usize;

struct Row<'m, P: Platform, C: Config> {
    /// Its number among all rows of the machine.
    number: OwnerUsize,
    frames: OwnerU64,
    arena: Publish<'m, Arena<'m, P, C>>,
}

/// Rows of freed frames. Neighbours that are freed one after the other share a row and go back in one step.
pub(super) struct ReturnBuffer<'m, P: Platform, C: Config> {
    len: OwnerU32,
    /// The row that the last frame went to, if there is any.
    last: OwnerUsize,
    rows: [Row<'m, P, C>; ROWS],
}

impl<'m, P: Platform, C: Config> ReturnBuffer<'m, P, C> {
    pub(super) fn new() -> Self {
        let row = |_| Row { number: OwnerUsize::new(0), frames: OwnerU64::new(0), arena: Publish::empty() };
        Self { len: OwnerU32::new(0), last: OwnerUsize::new(0), rows: core::array::from_fn(row) }
    }

    /// The frames it holds.
    pub(super) fn count(&self) -> usize {
        let rows = &self.rows[..self.len.get() as usize];
        rows.iter().map(|row| row.frames.get().count_ones() as usize).sum()
    }

    /// Adds a frame to the row that the last one went to; `false` if it belongs elsewhere, or is not lent.
    #[inline(always)]
    pub(super) fn join(&self, pfn: Pfn) -> bool {
        if self.last.get() != pfn.number() / ROW {
            return false;
        }
        let Some(row) = self.rows.get((self.len.get() as usize).wrapping_sub(1)) else { return false };
        let Some(arena) = row.arena.get() else { return false };
        let bit = 1 << (pfn.number() % ROW);
        if C::CHECKED {
            let Some(word) = arena.word(pfn) else { return false };
            if word.get() != FrameWord::lent(Order::ZERO) {
                return false;
            }
            word.set(FrameWord::RETURNING);
        } else if row.frames.get() & bit != 0 || !arena.span().contains(pfn) {
            return false;
        }
        row.frames.set(row.frames.get() | bit);
        true
    }

    /// Adds a frame of `arena`, in a row of its own.
    #[inline]
    pub(super) fn add(&self, pinned: &Pinned<P>, arena: &'m Arena<'m, P, C>, pfn: Pfn) {
        if self.len.get() as usize == ROWS {
            self.flush(pinned);
        }
        let len = self.len.get();
        let row = &self.rows[len as usize % ROWS];
        row.number.set(pfn.number() / ROW);
        row.frames.set(1 << (pfn.number() % ROW));
        row.arena.set(Some(arena));
        self.last.set(pfn.number() / ROW);
        self.len.set(len + 1);
    }

    /// Empties it into the trees: one stay under the lock of each arena.
    #[inline(never)]
    pub(super) fn flush(&self, pinned: &Pinned<P>) {
        let rows = &self.rows[..self.len.get() as usize];
        for (place, row) in rows.iter().enumerate() {
            let Some(arena) = row.arena.get().filter(|_| row.frames.get() != 0) else { continue };
            let flushed = arena.with(Access::Wait(pinned), |arena, state| {
                for row in &rows[place..] {
                    if row.arena.get().is_some_and(|home| core::ptr::eq(home, arena)) && row.frames.get() != 0 {
                        let first = Pfn::new(row.number.get() * ROW);
                        arena.free_row_in(state, arena.row(first), row.frames.get());
                        row.frames.set(0);
                    }
                }
            });
            debug_assert!(flushed.is_ok(), "a pinned caller waits");
        }
        self.len.set(0);
        self.last.set(NO_ROW);
    }
}
