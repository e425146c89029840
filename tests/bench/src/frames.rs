//! What an allocator must offer to be measured, and how blocks are remembered.

/// An allocator of page frames `0..frames`, shared by the CPUs that use it.
///
/// A block of order `o` is `2^o` frames at a multiple of `2^o`.
pub trait Frames: Sync + Sized {
    /// The most frames it can manage.
    const MAX_FRAMES: usize = usize::MAX;

    /// Can one thread act as several CPUs?
    const SIMULATES_CPUS: bool = true;

    /// One CPU's way in; for most peers a plain reference.
    type Cpu<'a>: Cpu
    where
        Self: 'a;

    /// Manages `frames` frames, all free, for at most `cpus` CPUs at once.
    fn new(frames: usize, cpus: usize) -> Self;

    /// The way in of CPU `index`, used by one thread at a time.
    fn cpu(&self, index: usize) -> Self::Cpu<'_>;

    /// Bytes of metadata, where the allocator can tell.
    fn metadata_bytes(&self) -> Option<usize> {
        None
    }

    /// Locks taken by the calling thread so far, where that is counted.
    fn locks_taken(&self) -> Option<u64> {
        None
    }

    /// Panics if the allocator finds itself in disorder, where it can tell.
    fn verify(&self) {}
}

/// The two operations that are measured.
pub trait Cpu {
    /// From here on, until another is entered, this is the CPU that the thread runs on.
    fn enter(&mut self) {}

    /// Takes a block of `2^order` frames and returns its first frame.
    fn alloc(&mut self, order: usize) -> Option<usize>;

    /// Gives back a block that [`alloc`](Self::alloc) returned for the same order.
    fn free(&mut self, frame: usize, order: usize);
}

/// Frames in a 2 MiB frame.
pub const HUGE: usize = 512;

/// Highest order that the workloads ask for: one 2 MiB frame.
pub const HUGE_ORDER: usize = 9;

/// A live block in four bytes, so that the list of live blocks stays small beside the allocators' own metadata.
#[derive(Clone, Copy)]
pub struct Live(u32);

impl Live {
    /// A block; frame numbers have 28 bits, which is 1 TiB.
    #[inline(always)]
    pub fn new(frame: usize, order: usize) -> Self {
        debug_assert!(frame < 1 << 28 && order < 16);
        Self((frame as u32) << 4 | order as u32)
    }

    /// First frame.
    #[inline(always)]
    pub fn frame(self) -> usize {
        (self.0 >> 4) as usize
    }

    /// Order.
    #[inline(always)]
    pub fn order(self) -> usize {
        (self.0 & 15) as usize
    }
}

/// Counts the 2 MiB frames of `0..frames` in which no live block lies.
///
/// Counted from the live blocks alone: what an allocator keeps in its caches is free for everybody.
pub fn free_huge(frames: usize, live: impl IntoIterator<Item = Live>) -> usize {
    let mut used = vec![false; frames / HUGE];
    for block in live {
        let first = block.frame() / HUGE;
        let last = (block.frame() + (1 << block.order()) - 1) / HUGE;
        used[first..=last].fill(true);
    }
    used.iter().filter(|&&used| !used).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_remembered() {
        let block = Live::new((1 << 28) - 512, 9);
        assert_eq!((block.frame(), block.order()), ((1 << 28) - 512, 9));
    }

    #[test]
    fn huge_frames_with_one_live_frame_are_not_free() {
        assert_eq!(free_huge(2048, []), 4);
        assert_eq!(free_huge(2048, [Live::new(511, 0), Live::new(1024, 9)]), 2);
    }
}
