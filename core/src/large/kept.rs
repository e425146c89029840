//! Freed large blocks that a heap keeps for the next request of their size: what costs a page fault a frame to get.

use core::ops::RangeInclusive;

use crate::arena::{Access, Busy};
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::platform::Platform;
use crate::sync::{AtomicUsize, Guard, Lock, Ordering, const_fn};

/// The most blocks that are kept.
pub(crate) const MAX_BLOCKS: usize = 64;

/// One block.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    frames: u32,
    node: u32,
}

/// Oldest first.
struct Blocks {
    list: [Block; MAX_BLOCKS],
    len: usize,
    frames: usize,
}

/// The blocks that are kept, behind a lock of their own: of each the frames are set aside, and it is nobody's.
pub(crate) struct KeptBlocks<P: Platform> {
    blocks: Lock<P, Blocks>,
    /// As the holder of the lock left it, for those who only look.
    frames: AtomicUsize,
}

/// What became of a block that was to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// It is not kept: it is too large, or there is no place for it.
    No,
    /// It is kept.
    Yes,
    /// It is kept, and now the oldest should go.
    TooMany,
}

impl Blocks {
    /// Whether the oldest should go: for its frames, or for its place.
    fn has_excess(&self, most_frames: usize) -> bool {
        self.frames > most_frames || self.len == MAX_BLOCKS
    }

    fn remove(&mut self, place: usize) -> FrameSpan {
        let block = self.list[place];
        self.list.copy_within(place + 1..self.len, place);
        self.len -= 1;
        self.frames -= block.frames as usize;
        span(block)
    }
}

fn span(block: Block) -> FrameSpan {
    match FrameSpan::new(Pfn::new(block.start), FrameCount::new(block.frames as usize)) {
        Ok(span) => span,
        // It was a span when it came.
        Err(_) => unreachable!(),
    }
}

impl<P: Platform> KeptBlocks<P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            let list = [Block { start: 0, frames: 0, node: 0 }; MAX_BLOCKS];
            Self { blocks: Lock::new(Blocks { list, len: 0, frames: 0 }), frames: AtomicUsize::new(0) }
        }
    }

    fn lock<'a>(&'a self, access: Access<'a, P>) -> Result<Guard<'a, P, Blocks>, Busy> {
        match access {
            Access::Wait(pinned) => Ok(self.blocks.lock(pinned)),
            Access::Try => self.blocks.try_lock().ok_or(Busy),
        }
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        each.one(&self.blocks);
    }

    /// The frames of all blocks. Advice.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed)
    }

    /// The smallest block of so many frames on `node`, and of these the one that came last, of those that `fits` says
    /// are well placed.
    pub(crate) fn take(
        &self,
        access: Access<'_, P>,
        sizes: RangeInclusive<FrameCount>,
        node: u32,
        fits: impl Fn(Pfn) -> bool,
    ) -> Result<Option<FrameSpan>, Busy> {
        // Relaxed: who misses the block that comes just now takes other frames.
        if self.frames() < sizes.start().get() {
            return Ok(None);
        }
        let mut blocks = self.lock(access)?;
        let is_right = |block: &Block| {
            let count = FrameCount::new(block.frames as usize);
            sizes.contains(&count) && block.node == node && fits(Pfn::new(block.start))
        };
        let right = blocks.list[..blocks.len].iter().enumerate().rev().filter(|(_, block)| is_right(block));
        let found = right.min_by_key(|(_, block)| block.frames).map(|(place, _)| place);
        let taken = found.map(|place| blocks.remove(place));
        self.frames.store(blocks.frames, Ordering::Relaxed);
        Ok(taken)
    }

    /// Keeps a block. None of more than `most_frames`.
    pub(crate) fn put(
        &self,
        access: Access<'_, P>,
        span: FrameSpan,
        node: u32,
        most_frames: usize,
    ) -> Result<Kept, Busy> {
        let count = span.count().get();
        let Some(frames) = u32::try_from(count).ok().filter(|_| count <= most_frames) else {
            return Ok(Kept::No);
        };
        let mut blocks = self.lock(access)?;
        let place = blocks.len;
        if place == MAX_BLOCKS {
            return Ok(Kept::No);
        }
        blocks.list[place] = Block { start: span.start().number(), frames, node };
        blocks.len += 1;
        blocks.frames += count;
        self.frames.store(blocks.frames, Ordering::Relaxed);
        Ok(if blocks.has_excess(most_frames) { Kept::TooMany } else { Kept::Yes })
    }

    /// The oldest block, if there are more frames than `most_frames` or no place is left.
    pub(crate) fn excess(&self, access: Access<'_, P>, most_frames: usize) -> Result<Option<FrameSpan>, Busy> {
        let mut blocks = self.lock(access)?;
        let oldest = blocks.has_excess(most_frames).then(|| blocks.remove(0));
        self.frames.store(blocks.frames, Ordering::Relaxed);
        Ok(oldest)
    }

    /// Checks that the blocks add up, and that each is there once and is one that nobody has, as `is_kept` says; the
    /// first frame of one that is not.
    pub(crate) fn validate(
        &self,
        access: Access<'_, P>,
        is_kept: impl Fn(FrameSpan) -> bool,
    ) -> Result<Result<(), Pfn>, Busy> {
        let blocks = self.lock(access)?;
        let mut frames = 0;
        for (place, &block) in blocks.list[..blocks.len].iter().enumerate() {
            let again = blocks.list[..place].iter().any(|other| other.start == block.start);
            if again || !is_kept(span(block)) {
                return Ok(Err(Pfn::new(block.start)));
            }
            frames += block.frames as usize;
        }
        let adds_up = frames == blocks.frames && frames == self.frames();
        Ok(if adds_up { Ok(()) } else { Err(Pfn::new(0)) })
    }

    /// The block that came last.
    pub(crate) fn pop(&self, access: Access<'_, P>) -> Result<Option<FrameSpan>, Busy> {
        let mut blocks = self.lock(access)?;
        let last = blocks.len.checked_sub(1).map(|place| blocks.remove(place));
        self.frames.store(blocks.frames, Ordering::Relaxed);
        Ok(last)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
impl<P: Platform> KeptBlocks<P> {
    /// Holds the lock, as what is interrupted may.
    pub(super) fn hold_for_test(&self) -> impl Drop + '_ {
        self.blocks.try_lock().unwrap()
    }
}
