//! Moves of large blocks by page tables: `mremap` takes the pages from one place to another and copies nothing.
//!
//! Pages that were moved are a mapping of their own for ever, since the kernel remembers where they were first touched. So
//! a block that has moved is mapped afresh before its frames serve others, which makes it one with its neighbours again;
//! and there are never more than [`MOST_MOVED`] such blocks, far below what the system allows (`vm.max_map_count`).
#![allow(unsafe_code, reason = "system calls on memory")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pagemill::Relocation;

use crate::errno::keeping_errno;
use crate::reserve::PAGE;

/// What is shorter is copied: a call costs as much as a copy of some hundred KiB, and each page's table entry is moved.
pub(crate) const LEAST_BYTES: usize = 1 << 20;
/// The most blocks that may have moved and still be in use.
const MOST_MOVED: usize = 2048;
/// What one bit stands for.
const HUGE_BYTES: usize = 2 << 20;
/// Bits for all that may be reserved.
const WORDS: usize = (1 << 40) / HUGE_BYTES / u64::BITS as usize;

/// Where in a reservation there are pages that have moved there.
pub(crate) struct Moved {
    /// Bit n of word w: somewhere in huge frame 64·w + n.
    huge_frames: [AtomicU64; WORDS],
    /// How many bits are set.
    count: AtomicUsize,
    /// Blocks that have moved, a few less if some shared a huge frame.
    blocks: AtomicUsize,
}

impl Moved {
    pub(crate) const fn new() -> Self {
        Self {
            huge_frames: [const { AtomicU64::new(0) }; WORDS],
            count: AtomicUsize::new(0),
            blocks: AtomicUsize::new(0),
        }
    }

    /// Moves `bytes` from one place to another, which lies `offset` bytes after the reservation's start.
    ///
    /// # Safety
    /// Both are whole pages of the reservation, readable and writable, and nobody uses either.
    pub(crate) unsafe fn relocate(&self, from: *mut u8, to: *mut u8, offset: usize, bytes: usize) -> Relocation {
        // Relaxed, here and below: a bound, and bits that whoever has the block set himself.
        if self.blocks.fetch_add(1, Ordering::Relaxed) >= MOST_MOVED {
            self.blocks.fetch_sub(1, Ordering::Relaxed);
            return Relocation::Refused;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        // SAFETY: the caller's promise: what is at `to` is lost, what is at `from` goes there, and both stay mapped.
        let moved = keeping_errno(|| unsafe { libc::mremap(from.cast(), bytes, bytes, flags, to.cast::<u8>()) });
        if moved == to.cast() {
            for (word, mask) in words(offset, bytes) {
                let before = self.huge_frames[word].fetch_or(mask, Ordering::Relaxed);
                self.count.fetch_add((mask & !before).count_ones() as usize, Ordering::Relaxed);
            }
            return Relocation::Done;
        }
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        // A kernel that refuses may have unmapped the target before.
        // SAFETY: as above.
        if unsafe { map_afresh(to, bytes) } { Relocation::Refused } else { Relocation::Lost }
    }

    /// Blocks that have moved and are in use.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks.load(Ordering::Relaxed)
    }

    /// Makes pages `offset` bytes after the start like all others, if there are any that have moved there; answers whether
    /// they are mapped anew.
    ///
    /// # Safety
    /// Whole pages of the reservation, in which nothing is.
    pub(crate) unsafe fn settle(&self, pages: *mut u8, offset: usize, bytes: usize) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let is_moved = |(word, mask): (usize, u64)| self.huge_frames[word].load(Ordering::Relaxed) & mask != 0;
        if !words(offset, bytes).any(is_moved) {
            return false;
        }
        // SAFETY: the caller's promise.
        if !unsafe { map_afresh(pages, bytes) } {
            // They serve as they are, and count for ever.
            return false;
        }
        // What shares a huge frame with others that have moved leaves its bit to them.
        let (first, last) = (offset.next_multiple_of(HUGE_BYTES), (offset + bytes) & !(HUGE_BYTES - 1));
        if first < last {
            for (word, mask) in words(first, last - first) {
                let before = self.huge_frames[word].fetch_and(!mask, Ordering::Relaxed);
                self.count.fetch_sub((mask & before).count_ones() as usize, Ordering::Relaxed);
            }
        }
        let _ = self.blocks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |blocks| blocks.checked_sub(1));
        true
    }
}

/// The words and masks of the huge frames that a range touches.
fn words(offset: usize, bytes: usize) -> impl Iterator<Item = (usize, u64)> {
    let frames: Range<usize> = offset / HUGE_BYTES..(offset + bytes).div_ceil(HUGE_BYTES);
    let bits = u64::BITS as usize;
    (frames.start / bits..frames.end.div_ceil(bits)).map(move |word| {
        let (low, high) =
            (frames.start.max(word * bits) - word * bits, frames.end.min((word + 1) * bits) - word * bits);
        (word, (!0 >> (bits - (high - low))) << low)
    })
}

/// Maps pages anew, which read as zeros then; `false` if the system does not.
///
/// # Safety
/// Whole pages of the reservation, in which nothing is.
unsafe fn map_afresh(pages: *mut u8, bytes: usize) -> bool {
    debug_assert!(pages.addr().is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: the caller's promise.
    keeping_errno(|| unsafe { libc::mmap(pages.cast(), bytes, rights, flags, -1, 0) }) != libc::MAP_FAILED
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn ranges_touch_the_bits_of_their_huge_frames() {
        let of = |offset, bytes| words(offset, bytes).collect::<Vec<_>>();
        assert_eq!(of(0, 1), [(0, 1)]);
        assert_eq!(of(HUGE_BYTES - 1, 2), [(0, 0b11)]);
        assert_eq!(of(62 * HUGE_BYTES, 3 * HUGE_BYTES), [(0, 3 << 62), (1, 1)]);
        assert_eq!(of(64 * HUGE_BYTES, 64 * HUGE_BYTES), [(1, !0)]);
    }
}
