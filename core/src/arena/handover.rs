//! Frees that find the lock held, on the arena's side: who leaves frames, who takes them over, and how a request learns
//! of those on their way. The protocol is told in [`pending`](crate::pending).

use super::{Access, Arena, Busy, State, bits};
use crate::config::Config;
use crate::error::{FreeError, Place};
use crate::frame_table::{FrameWord, Kind, NotLent};
use crate::pending::ROW_FRAMES;
use crate::platform::Platform;
use crate::sync::{Ordering, fence, mutant};

/// Bit of [`Arena::free`]: the holder has emptied the pending map and not yet published what came of it.
const UNSETTLED: u32 = 1 << 31;

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// Free frames when the lock was last released, and whether others are on their way from the pending map.
    ///
    /// Of all frees that happened before the call, each is in the one or the other.
    pub(crate) fn glance(&self) -> (u32, bool) {
        let dirty = self.pending.is_dirty();
        if !mutant("glance_unordered") {
            // Pairs with the Release of `PendingMap::take`: who sees the map emptied sees that the count is not
            // settled, or what it has become.
            fence(Ordering::Acquire);
        }
        let free = self.free.load(Ordering::Relaxed);
        (free & !UNSETTLED, dirty || free & UNSETTLED != 0)
    }

    /// Waits until no free that happened before the call is on its way; `false` if there was none.
    pub(crate) fn catch_up(&self, access: Access<'_, P>) -> Result<bool, Busy> {
        let (_, moving) = self.glance();
        if moving {
            self.with(access, |_, _| ())?;
        }
        Ok(moving)
    }

    /// Takes the lock again for as long as somebody left a frame while it was held.
    #[inline]
    pub(super) fn settle(&self) {
        while self.pending.left_behind() {
            // Whoever holds it now will look after its own unlock.
            let Some(mut state) = self.state.try_lock() else { return };
            self.absorb(&mut state);
            self.publish(&mut state);
        }
    }

    #[cold]
    pub(super) fn absorb(&self, state: &mut State<'m, C>) {
        if !mutant("absorbed_unseen") {
            // Before the map is emptied, see `glance`. Relaxed: the Release of `take` carries it.
            self.free.store(self.free.load(Ordering::Relaxed) | UNSETTLED, Ordering::Relaxed);
        }
        self.pending.take(|row, mask| {
            let row = row + self.first_row();
            let mask = if C::CHECKED { self.cut_pending(row, mask) } else { mask };
            self.free_row_in(state, row, mask);
        });
    }

    /// Cuts blocks of which a part was posted, and answers which frames may go on to the tree.
    fn cut_pending(&self, row: u32, mask: u64) -> u64 {
        let mut good = mask;
        for bit in bits(mask) {
            let index = row * ROW_FRAMES + bit;
            match self.table.block_of(index).map(|(_, word)| word.kind()) {
                Some(Kind::Lent) => self.table.free_lent(index, 1),
                // Inside a block whose head was claimed; that may have gone before it.
                Some(Kind::Pending) | None => {}
                // Its other half was wrongly freed into a pool with the whole block, which has it now.
                Some(_) => {
                    good &= !(1 << bit);
                    self.ledger.note_late_fault(self.pfn(index));
                }
            }
        }
        good
    }

    /// As [`check_in`](Self::check_in) without the lock, by the words alone.
    pub(crate) fn check_words(&self, start: u32, count: u32) -> Result<(), FreeError> {
        let found = if C::CHECKED {
            self.table.check_lent_unlocked(start, count).err()
        } else {
            let mut words = (start..start + count).map(|index| NotLent { index, word: self.table.get(index) });
            words.find(|found| matches!(found.word.kind(), Kind::Reserved | Kind::Offline))
        };
        let Some(NotLent { index, word }) = found else { return Ok(()) };
        let pfn = self.pfn(index);
        Err(match word.kind() {
            Kind::Reserved => FreeError::Reserved(pfn),
            Kind::Offline => FreeError::Offline(pfn),
            Kind::Slab | Kind::LargeHead | Kind::LargeTail | Kind::LargeKept | Kind::LargeReady => {
                FreeError::InUse(pfn)
            }
            Kind::Free | Kind::Lent if !word.used() => FreeError::NeverLent(pfn),
            _ => FreeError::AlreadyFree(pfn, word.place().unwrap_or(Place::Tree)),
        })
    }

    /// Leaves frames for the holder of the lock, from a context that could not take it.
    pub(crate) fn post(&self, start: u32, count: u32) -> Result<(), FreeError> {
        if C::CHECKED {
            self.claim(start, count)?;
        }
        let mut index = start;
        let mut result = Ok(());
        while index < start + count {
            let bit = index % ROW_FRAMES;
            let fits = (ROW_FRAMES - bit).min(start + count - index);
            let mask = (!0 >> (ROW_FRAMES - fits)) << bit;
            let twice = self.pending.post(index / ROW_FRAMES - self.first_row(), mask);
            if twice != 0 {
                result = Err(FreeError::AlreadyFree(self.pfn(index - bit + twice.trailing_zeros()), Place::Pending));
            }
            index += fits;
        }
        self.settle_if_free();
        result
    }

    /// Claims the blocks that lie wholly in a range which is lent, all or none of them.
    ///
    /// A block that the range cuts has other owners too, so its word is left to the holder of the lock.
    fn claim(&self, start: u32, count: u32) -> Result<(), FreeError> {
        let end = start + count;
        let mut next = start;
        while next < end {
            let refused = match self.table.block_of(next) {
                Some((head, word)) if word.kind() == Kind::Lent => {
                    let block_end = head + word.order().frames() as u32;
                    let whole = head >= start && block_end <= end;
                    if !whole || self.table.claim(head, word.order()) {
                        next = block_end;
                        continue;
                    }
                    self.check_words(head, 1).err()
                }
                // Cut by its other owner since it was checked, or freed by a wrong free.
                _ => match self.check_words(next, 1) {
                    Ok(()) => continue,
                    Err(error) => Some(error),
                },
            };
            self.unclaim(start, next);
            return Err(refused.unwrap_or(FreeError::AlreadyFree(self.pfn(next), Place::Pending)));
        }
        Ok(())
    }

    /// Takes the claims on blocks in `start..end` back.
    fn unclaim(&self, start: u32, end: u32) {
        for index in start..end {
            let word = self.table.get(index);
            if word.kind() == Kind::Pending {
                self.table.set(index, FrameWord::lent(word.order()));
            }
        }
    }

    /// The freer's half of the hand-over: `post` has fenced, now the lock is tried.
    fn settle_if_free(&self) {
        let Some(mut state) = self.state.try_lock() else { return };
        self.absorb(&mut state);
        self.publish(&mut state);
        drop(state);
        self.settle();
    }
}
