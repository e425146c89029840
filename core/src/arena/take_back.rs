//! The way back into an arena: what is checked of a free that has the lock.

use super::{Access, Arena, State, bits, trees_marked};
use crate::config::Config;
use crate::error::{FreeError, Place};
use crate::frame_table::{FrameWord, Kind, NotLent};
use crate::order::Order;
use crate::pending::ROW_FRAMES;
use crate::platform::{Pinned, Platform};
use crate::sync::mutant;

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// Takes back any part of what is lent, all of it or nothing. Only with the lock held.
    pub(crate) fn free_in(&self, state: &mut State<'m, C>, start: u32, count: u32) -> Result<(), FreeError> {
        if let Some(order) = self.whole_block(state, start, count) {
            let freed = state.buddy.free(start, order);
            return match freed {
                Ok(()) => {
                    self.note_return(state, start, count);
                    // Before the unlock: after it the frames may be lent again, and the word be the next owner's.
                    if C::CHECKED && !mutant("word_after_unlock") {
                        self.table.set(start, FrameWord::FREE_AGAIN);
                    }
                    Ok(())
                }
                Err(index) => Err(self.explain(state, index, self.table.get(index))),
            };
        }
        self.check_in(state, start, count)?;
        if C::CHECKED {
            self.table.free_lent(start, count);
        }
        self.note_return(state, start, count);
        let freed = state.buddy.free_range(start, count);
        debug_assert!(freed.is_ok(), "checked to be lent");
        Ok(())
    }

    /// The order of a range that is one naturally aligned block and needs no look at its single frames.
    fn whole_block(&self, state: &State<'m, C>, start: u32, count: u32) -> Option<Order> {
        if !count.is_power_of_two() || start & (count - 1) != 0 {
            return None;
        }
        let order = Order::new(count.trailing_zeros())?;
        let plain = if C::CHECKED {
            self.table.get(start) == FrameWord::lent(order)
        } else {
            !state.any_special || !trees_marked::<C>(&state.special, &(start..start + count))
        };
        plain.then_some(order)
    }

    /// Whether every frame of the range is lent, and if not, what the first is instead.
    pub(crate) fn check_in(&self, state: &State<'m, C>, start: u32, count: u32) -> Result<(), FreeError> {
        if let Some(index) = state.buddy.first_free_in(start, count) {
            return Err(self.explain(state, index, self.table.get(index)));
        }
        if C::CHECKED {
            self.table.check_lent(start, count).map_err(|NotLent { index, word }| self.explain(state, index, word))
        } else {
            self.check_special(state, start, count)
        }
    }

    /// Without words for what is lent, reserved and offline frames still have theirs.
    fn check_special(&self, state: &State<'m, C>, start: u32, count: u32) -> Result<(), FreeError> {
        if !state.any_special || !trees_marked::<C>(&state.special, &(start..start + count)) {
            return Ok(());
        }
        for index in start..start + count {
            let word = self.table.get(index);
            if matches!(word.kind(), Kind::Reserved | Kind::Offline) {
                return Err(self.explain(state, index, word));
            }
        }
        Ok(())
    }

    /// Says what a frame is that is not lent.
    fn explain(&self, state: &State<'m, C>, index: u32, word: FrameWord) -> FreeError {
        let pfn = self.pfn(index);
        match word.kind() {
            Kind::Reserved => return FreeError::Reserved(pfn),
            Kind::Offline => return FreeError::Offline(pfn),
            Kind::Slab | Kind::LargeHead | Kind::LargeTail | Kind::LargeKept | Kind::LargeReady => {
                return FreeError::InUse(pfn);
            }
            _ => {}
        }
        let row = index / ROW_FRAMES - self.first_row();
        if self.pending.holds(row, 1 << (index % ROW_FRAMES)) {
            return FreeError::AlreadyFree(pfn, Place::Pending);
        }
        if let Some(place) = word.place() {
            return FreeError::AlreadyFree(pfn, place);
        }
        if !state.buddy.is_free(index) {
            // Out of its tree and yet not lent: a magazine has it, or a block that a pool keeps.
            return FreeError::AlreadyFree(pfn, Place::Pool);
        }
        let fresh = C::CHECKED && !word.used() && !trees_marked::<C>(&state.lent_blocks, &(index..index + 1));
        if fresh { FreeError::NeverLent(pfn) } else { FreeError::AlreadyFree(pfn, Place::Tree) }
    }

    /// Takes single frames back from a pool: a frame that is free already is dropped and noted.
    ///
    /// Frames of one row that follow one another go back together.
    pub(crate) fn free_frames(&self, pinned: &Pinned<P>, mut next: impl FnMut() -> Option<u32>) {
        let freed = self.with(Access::Wait(pinned), |arena, state| {
            let Some(mut first) = next() else { return };
            let mut mask = 1 << (first % ROW_FRAMES);
            while let Some(index) = next() {
                let bit = 1 << (index % ROW_FRAMES);
                // The same frame twice is for the tree to refuse.
                if index / ROW_FRAMES == first / ROW_FRAMES && mask & bit == 0 {
                    mask |= bit;
                    continue;
                }
                arena.free_row_in(state, first / ROW_FRAMES, mask);
                (first, mask) = (index, bit);
            }
            arena.free_row_in(state, first / ROW_FRAMES, mask);
        });
        debug_assert!(freed.is_ok(), "a pinned caller waits");
    }

    /// Takes up to 64 frames of one row back, from a return buffer or the pending map. Only with the lock held.
    pub(crate) fn free_row_in(&self, state: &mut State<'m, C>, row: u32, mut mask: u64) {
        let first = row * ROW_FRAMES;
        if C::CHECKED {
            for bit in bits(mask) {
                self.table.set(first + bit, FrameWord::FREE_AGAIN);
            }
        } else if state.any_special && trees_marked::<C>(&state.special, &(first..first + ROW_FRAMES)) {
            for bit in bits(mask) {
                if self.check_special(state, first + bit, 1).is_err() {
                    mask &= !(1 << bit);
                    self.ledger.note_late_fault(self.pfn(first + bit));
                }
            }
        }
        let refused = state.buddy.free_row(row, mask);
        self.note_row(state, row, mask & !refused);
        for bit in bits(refused) {
            self.ledger.note_late_fault(self.pfn(first + bit));
        }
    }

    /// Takes blocks back from a pool.
    pub(crate) fn free_blocks(&self, pinned: &Pinned<P>, order: Order, mut next: impl FnMut() -> Option<u32>) {
        let freed = self.with(Access::Wait(pinned), |arena, state| {
            while let Some(index) = next() {
                arena.free_block_in(state, index, order);
            }
        });
        debug_assert!(freed.is_ok(), "a pinned caller waits");
    }

    fn free_block_in(&self, state: &mut State<'m, C>, index: u32, order: Order) {
        if C::CHECKED {
            self.table.set(index, FrameWord::FREE_AGAIN);
        } else if self.check_special(state, index, order.frames() as u32).is_err() {
            return self.ledger.note_late_fault(self.pfn(index));
        }
        match state.buddy.free(index, order) {
            Ok(()) => self.note_return(state, index, order.frames() as u32),
            Err(_) => self.ledger.note_late_fault(self.pfn(index)),
        }
    }
}
