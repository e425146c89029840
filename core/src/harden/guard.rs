//! Large blocks between two frames that nobody has.
//!
//! ```text
//!   guard │ what was asked for … │ slack │ guard
//!   ▲     ▲
//!   head  the user's address
//! ```
//!
//! The block that the heap's frames know of is all of it. Who writes past a guard's border is stopped at once where the
//! machine can make frames inaccessible, which a [`PageHook`] does; where it cannot, or will not any more, the guards
//! are filled as the slack is, and looked at when the block is freed. (Electric Fence, 1987; OpenBSD's `malloc` with
//! `G`; `hardened_malloc`.) What was asked for is written nowhere in memory but as a note in the head's frame word, so
//! that a block of whole frames ends right at its guard.
//!
//! Blocks of this level are neither kept for the next request nor grown into the frames behind them: both would meet a
//! guard. A request that is aligned to more than a frame takes as much more for a moment.

use super::{Ask, slot_class};
use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::frame::{FrameCount, FrameSpan};
use crate::heap::{Heap, Lent};
use crate::platform::Platform;
use crate::sync::Ordering;

use core::alloc::Layout;

/// What a machine can do to whole frames, for the level [`Hardened`](crate::Hardened): see
/// [`Heap::set_page_hook`]. The functions are called in every context in which objects are asked for or freed, with no
/// lock and no pin held, and must not use the heap.
#[derive(Clone, Copy, Debug)]
pub struct PageHook {
    /// Makes bytes inaccessible; `false` if that is not possible, or should not be done once more: nothing has changed
    /// then.
    ///
    /// The bytes are whole frames that are lent to the heap, and nobody touches them until they are opened.
    pub close: unsafe fn(*mut u8, usize) -> bool,
    /// Makes bytes accessible again that were made inaccessible together; `false` if that is not possible: nobody will
    /// have them any more.
    ///
    /// The bytes were closed, and not opened since.
    pub open: unsafe fn(*mut u8, usize) -> bool,
    /// Makes bytes zero in a better way than by writing them; `false` if there is none.
    ///
    /// The bytes are whole frames that are lent to the heap and hold nothing of anybody.
    pub erase: unsafe fn(*mut u8, usize) -> bool,
}

/// A large block that is lent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guarded {
    /// With both guards.
    span: FrameSpan,
    /// The bytes that were asked for, from the second frame on.
    pub(super) size: usize,
    /// Which guards are closed: before it, behind it.
    closed: [bool; 2],
}

/// Bits of the note: how much slack there is, all of a frame for no bytes at all, then which guards are closed.
const CLOSED_SHIFT: [u32; 2] = [17, 18];

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Has `hook` called for the frames around large blocks, and for freed ones, at level
    /// [`Hardened`](crate::Hardened). To be set once, at best before the first request.
    pub fn set_page_hook(&self, hook: &'m PageHook) {
        self.hardening.hook.set(Some(hook));
    }

    /// Frames for a large object and for its guards.
    pub(super) fn alloc_guarded(&self, ask: Ask) -> Result<usize, AllocError> {
        let (size, align) = (ask.layout.size(), ask.layout.align().max(C::FRAME_BYTES));
        // The guard is the last of the frames before the user's first, which is aligned.
        let lead = align / C::FRAME_BYTES;
        let data = Self::data_frames(size);
        let count = data.checked_add(lead + 1).ok_or(AllocError::Impossible)?;
        let bytes = count.checked_mul(C::FRAME_BYTES).ok_or(AllocError::Impossible)?;
        let all = Layout::from_size_align(bytes, align).map_err(|_| AllocError::Impossible)?;
        let taken = self.serve(all, ask.reclaim, || {
            if size > self.span_bytes.get() {
                return Err(AllocError::Impossible);
            }
            self.take_frames(FrameCount::new(count), align, ask.zeroed, None)
        })?;
        let head = taken.span.start() + FrameCount::new(lead - 1);
        if lead > 1 {
            let freed = self.frames.free_raw(taken.span.start(), FrameCount::new(lead - 1));
            debug_assert_eq!(freed, Ok(()));
        }
        let span = FrameSpan::new(head, FrameCount::new(data + 2)).map_err(|_| AllocError::Impossible)?;
        self.frames.hold_large(span);
        let mut block = Guarded { span, size, closed: [false; 2] };
        let address = self.data_of(&block);
        if ask.zeroed && !(taken.fresh && C::FRESH_FRAMES_ARE_ZERO) {
            self.fill(address, size, 0);
        }
        self.close_guards(&mut block);
        self.seal_guarded(&block);
        Ok(self.noticed(Lent::large(address, data * C::FRAME_BYTES)))
    }

    /// The frames for so many bytes: an object has one at least.
    fn data_frames(size: usize) -> usize {
        size.div_ceil(C::FRAME_BYTES).max(1)
    }

    /// Where the user's bytes begin.
    fn data_of(&self, block: &Guarded) -> usize {
        self.address_of(block.span) + C::FRAME_BYTES
    }

    fn slack_of(block: &Guarded) -> usize {
        Self::data_frames(block.size) * C::FRAME_BYTES - block.size
    }

    /// The addresses of a block's guards.
    fn guards_of(&self, block: &Guarded) -> [usize; 2] {
        let start = self.address_of(block.span);
        [start, start + (block.span.count().get() - 1) * C::FRAME_BYTES]
    }

    /// Writes the note and the slack of a block.
    fn seal_guarded(&self, block: &Guarded) {
        let (address, slack) = (self.data_of(block), Self::slack_of(block));
        self.fill(address + block.size, slack, self.key().filler(address));
        let closed = (0..2).fold(0, |bits, side| bits | u32::from(block.closed[side]) << CLOSED_SHIFT[side]);
        self.frames.note(block.span.start(), slack as u32 | closed);
    }

    /// The large block that the user has at `address`.
    pub(super) fn guarded(&self, address: usize) -> Option<Guarded> {
        let span = self.large_span(address.checked_sub(C::FRAME_BYTES)?)?;
        let note = self.frames.note_of(span.start());
        let slack = (note & ((1 << CLOSED_SHIFT[0]) - 1)) as usize;
        let size = (span.count().get().checked_sub(2)? * C::FRAME_BYTES).checked_sub(slack)?;
        Some(Guarded { span, size, closed: CLOSED_SHIFT.map(|shift| note >> shift & 1 != 0) })
    }

    fn close_guards(&self, block: &mut Guarded) {
        for (side, guard) in self.guards_of(block).into_iter().enumerate() {
            block.closed[side] = self.hardening.hook.get().is_some_and(|hook| {
                // SAFETY: a frame of the block that neither its user nor the heap touches.
                unsafe { (hook.close)(self.window.pointer(guard), C::FRAME_BYTES) }
            });
            if !block.closed[side] {
                self.fill(guard, C::FRAME_BYTES, self.key().filler(guard));
            }
        }
    }

    /// Makes the guards accessible; `false` if they are not all.
    fn open_guards(&self, block: &Guarded) -> bool {
        let mut open = true;
        for (side, guard) in self.guards_of(block).into_iter().enumerate() {
            if block.closed[side] {
                open &= self.hardening.hook.get().is_some_and(|hook| {
                    // SAFETY: closed by `close_guards`, and the block is the caller's alone, who opens it once.
                    unsafe { (hook.open)(self.window.pointer(guard), C::FRAME_BYTES) }
                });
            } else {
                // What a guard is filled with need not be known to the frame's next owner.
                self.fill(guard, C::FRAME_BYTES, 0);
            }
        }
        open
    }

    /// Whether slack, and guards that can be touched, are as they were written.
    fn is_untouched(&self, block: &Guarded) -> bool {
        let address = self.data_of(block);
        let slack = self.is_filled(address + block.size, Self::slack_of(block), self.key().filler(address));
        let mut guards = self.guards_of(block).into_iter().zip(block.closed);
        slack && guards.all(|(guard, closed)| closed || self.is_filled(guard, C::FRAME_BYTES, self.key().filler(guard)))
    }

    /// Takes back the large block at `address`.
    pub(super) fn free_guarded(&self, address: usize, layout: Option<Layout>) -> Result<(), BadFree> {
        let said = layout.and_then(slot_class);
        let Some(block) = self.guarded(address) else { return Err(self.refuse_hardened(address, said)) };
        if layout.is_some_and(|layout| layout.size() != block.size) {
            return Err(self.accuse_guarded(BadFreeKind::WrongSize, &block));
        }
        // Of two frees at the same moment one goes on.
        let head = block.span.start();
        if !self.frames.set_aside(head) {
            return Err(self.refuse_hardened(address, said));
        }
        if !self.is_untouched(&block) {
            self.frames.lend_again(block.span, block.span.count());
            return Err(self.accuse_guarded(BadFreeKind::Overrun, &block));
        }
        self.forget_large(address);
        self.erase(address, Self::data_frames(block.size) * C::FRAME_BYTES);
        if self.open_guards(&block) {
            self.release_large(block.span);
        } else if let Some(state) = self.hardening.state.get() {
            // It stays set aside for ever.
            let bytes = block.span.count().get() * C::FRAME_BYTES;
            state.stuck_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Leaves nothing of what stood in frames that nobody has any more.
    fn erase(&self, address: usize, bytes: usize) {
        let erased = self.hardening.hook.get().is_some_and(|hook| {
            // SAFETY: whole frames of a block that has been given up.
            unsafe { (hook.erase)(self.window.pointer(address), bytes) }
        });
        if !erased {
            self.fill(address, bytes, C::POISON);
        }
    }

    #[cold]
    fn accuse_guarded(&self, kind: BadFreeKind, block: &Guarded) -> BadFree {
        let address = self.data_of(block);
        let fault = BadFree { kind, address, object_bytes: block.size, block: address };
        self.report(fault);
        fault
    }

    /// The size of the large block that is lent at `address`, for a user who says it is for `layout`.
    pub(super) fn lent_guarded(&self, address: usize, layout: Option<Layout>) -> Result<Guarded, BadFree> {
        let Some(block) = self.guarded(address) else {
            return Err(self.refuse_hardened(address, layout.and_then(slot_class)));
        };
        if layout.is_some_and(|layout| layout.size() != block.size) {
            return Err(self.accuse_guarded(BadFreeKind::WrongSize, &block));
        }
        if !self.is_untouched(&block) {
            return Err(self.accuse_guarded(BadFreeKind::Overrun, &block));
        }
        Ok(block)
    }

    /// Makes a large block one for `new` if it needs as many frames.
    pub(super) fn resize_guarded(&self, address: usize, block: &Guarded, new: Layout) -> bool {
        let fits = slot_class(new).is_none()
            && address.is_multiple_of(new.align())
            && Self::data_frames(new.size()) == Self::data_frames(block.size);
        if fits {
            let grown = new.size().saturating_sub(block.size);
            // What the slack was filled with is nothing for the user.
            self.fill(address + block.size, grown, C::POISON);
            self.seal_guarded(&Guarded { size: new.size(), ..*block });
        }
        fits
    }
}
