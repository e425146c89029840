//! Frames that enter and leave service: reserving by name, offlining, and the ways back.

use core::ops::Range;

use crate::arena::{Access, Arena, Busy, State};
use crate::config::Config;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frame_table::{FrameWord, Kind};
use crate::platform::Platform;

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// Takes free frames by name for good.
    pub(crate) fn reserve(&self, access: Access<'_, P>, part: Range<u32>) -> Result<Result<(), Pfn>, Busy> {
        self.with(access, |arena, state| {
            let count = part.end - part.start;
            state.buddy.take_at(part.start, count).map_err(|index| arena.pfn(index))?;
            arena.note_taken(state, part.start, count);
            arena.mark_reserved(state, part);
            Ok(())
        })
    }

    /// The first frame of `part` whose word is not of `kind`.
    pub(crate) fn first_other(&self, part: Range<u32>, kind: Kind) -> Option<Pfn> {
        part.into_iter().find(|&index| self.table.get(index).kind() != kind).map(|index| self.pfn(index))
    }

    /// Brings reserved frames into service. The caller has checked that all of them are.
    pub(crate) fn release(&self, access: Access<'_, P>, part: Range<u32>) -> Result<(), Busy> {
        self.with(access, |arena, state| {
            let count = part.end - part.start;
            arena.table.fill(part.start, count, FrameWord::new());
            arena.ledger().book_reserved(-(count as isize));
            arena.note_return(state, part.start, count);
            let freed = state.buddy.free_range(part.start, count);
            debug_assert!(freed.is_ok(), "a reserved frame is not free");
        })
    }

    /// The range that is leaving, if it is another than `part`.
    pub(crate) fn leaving_besides(&self, access: Access<'_, P>, part: &Range<u32>) -> Result<Option<FrameSpan>, Busy> {
        self.with(access, |arena, state| {
            let other = state.leaving.as_ref().filter(|leaving| *leaving != part);
            other.map(|leaving| arena.span_of(leaving))
        })
    }

    /// Starts or continues to take `part` out of service: what is free goes now, the rest when it is freed. The caller
    /// has seen that no other range is leaving.
    ///
    /// Answers how many frames are still in use.
    pub(crate) fn retire(&self, access: Access<'_, P>, part: Range<u32>) -> Result<u32, Busy> {
        self.with(access, |arena, state| {
            state.leaving = Some(part.clone());
            arena.sweep_leaving(state);
            let in_use = |&index: &u32| !matches!(arena.table.get(index).kind(), Kind::Reserved | Kind::Offline);
            let left = part.clone().filter(in_use).count() as u32;
            if left == 0 {
                state.leaving = None;
            }
            arena.set_draining(left != 0);
            left
        })
    }

    /// Brings the offline frames of `part` back and ends its leaving. Answers how many came back.
    pub(crate) fn bring_back(&self, access: Access<'_, P>, part: Range<u32>) -> Result<u32, Busy> {
        self.with(access, |arena, state| {
            if state.leaving.as_ref().is_some_and(|leaving| leaving.start < part.end && part.start < leaving.end) {
                state.leaving = None;
                arena.set_draining(false);
            }
            let mut back = 0;
            for index in part {
                if arena.table.get(index).kind() == Kind::Offline {
                    arena.table.set(index, FrameWord::new());
                    arena.note_return(state, index, 1);
                    let freed = state.buddy.free(index, crate::order::Order::ZERO);
                    debug_assert!(freed.is_ok(), "an offline frame is not free");
                    back += 1;
                }
            }
            arena.ledger().book_offline(-(back as isize));
            back
        })
    }

    /// Moves the leaving frames that are free now out of the trees.
    pub(crate) fn sweep_leaving(&self, state: &mut State<'m, C>) {
        let Some(leaving) = state.leaving.clone() else { return };
        let mut from = leaving.start;
        while let Some((start, count)) = state.buddy.next_free_chunk(from, leaving.end) {
            let taken = state.buddy.take_at(start, count);
            debug_assert!(taken.is_ok(), "the chunk is free");
            self.note_taken(state, start, count);
            self.mark_offline(state, start..start + count);
            from = start + count;
        }
    }

    fn span_of(&self, part: &Range<u32>) -> FrameSpan {
        FrameSpan::new(self.pfn(part.start), FrameCount::new((part.end - part.start) as usize))
            .unwrap_or_else(|_| self.span())
    }
}
