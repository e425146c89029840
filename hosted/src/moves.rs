//! Moves of large blocks by page tables: `mremap` takes the pages from one place to another and copies nothing.
//!
//! ```text
//!   from ──► a place of the kernel's ──► to        from stays mapped, and reads as zeros
//! ```
//!
//! In two steps: the first changes nothing if the kernel refuses it, as it does where the source is not one mapping;
//! the second moves exactly one.
//!
//! Pages that were moved are a mapping of their own for ever, since the kernel remembers where they were first touched.
//! So a block that has moved is mapped afresh before its frames serve others, which makes it one with its neighbours
//! again; and no more than [`MOST_MOVED`] huge frames ever have such pages, which is far below the mappings that a
//! process may have (`vm.max_map_count`).
#![allow(unsafe_code, reason = "system calls on memory")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use pagemill::Relocation;

use crate::errno::keeping_errno;
use crate::reserve::{PAGE, system_page};

/// What is shorter is copied: two calls have their price, and each page's table entry is moved.
pub(crate) const LEAST_BYTES: usize = 1 << 20;
/// The most huge frames with pages that have moved there.
const MOST_MOVED: usize = 4096;
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
}

impl Moved {
    pub(crate) const fn new() -> Self {
        Self { huge_frames: [const { AtomicU64::new(0) }; WORDS], count: AtomicUsize::new(0) }
    }

    /// Moves `bytes` from one place to another, which lies `offset` bytes after the reservation's start.
    ///
    /// # Safety
    /// Both are whole pages of the reservation, readable and writable, and nobody uses either.
    pub(crate) unsafe fn relocate(&self, from: *mut u8, to: *mut u8, offset: usize, bytes: usize) -> Relocation {
        // Relaxed, here and below: a bound, and bits that whoever has the block set himself.
        // Where the system's pages are larger than frames, those at the ends are others', too.
        let room = system_page() == PAGE && self.count.load(Ordering::Relaxed) + bytes / HUGE_BYTES + 2 <= MOST_MOVED;
        // SAFETY: the caller's promise.
        if !room || !unsafe { may_move(from) } || !unsafe { may_move(to) } {
            return Relocation::Refused;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        // SAFETY: the caller's promise: what is at `from` may go, and it stays mapped.
        let between = keeping_errno(|| unsafe { libc::mremap(from.cast(), bytes, bytes, flags) });
        if between == libc::MAP_FAILED {
            return Relocation::Refused;
        }
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: as above: what is at `to` is lost; the place between is nobody else's.
        let moved = keeping_errno(|| unsafe { libc::mremap(between, bytes, bytes, flags, to.cast::<u8>()) });
        if moved == to.cast() {
            for (word, mask) in words(offset, bytes) {
                let before = self.huge_frames[word].fetch_or(mask, Ordering::Relaxed);
                self.count.fetch_add((mask & !before).count_ones() as usize, Ordering::Relaxed);
            }
            return Relocation::Done;
        }
        // SAFETY: both are so many bytes, mapped, and nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(between.cast::<u8>(), from, bytes) };
        // SAFETY: the place between is nobody's any more.
        keeping_errno(|| unsafe { libc::munmap(between, bytes) });
        // The target may be gone, and be somebody else's by now.
        // SAFETY: as above.
        if unsafe { map_afresh(to, bytes, libc::MAP_FIXED_NOREPLACE) } { Relocation::Refused } else { Relocation::Lost }
    }

    /// Bytes of huge frames with pages that have moved there.
    pub(crate) fn bytes(&self) -> usize {
        self.count.load(Ordering::Relaxed) * HUGE_BYTES
    }

    /// Makes pages `offset` bytes after the start like all others, if there are any that have moved there; answers
    /// whether they are mapped anew, and `None` if there is perhaps no memory there any more.
    ///
    /// # Safety
    /// Whole pages of the reservation, in which nothing is.
    pub(crate) unsafe fn settle(&self, pages: *mut u8, offset: usize, bytes: usize) -> Option<bool> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Some(false);
        }
        let is_moved = |(word, mask): (usize, u64)| self.huge_frames[word].load(Ordering::Relaxed) & mask != 0;
        if !words(offset, bytes).any(is_moved) {
            return Some(false);
        }
        // SAFETY: the caller's promise.
        if !unsafe { map_afresh(pages, bytes, libc::MAP_FIXED) } {
            return None;
        }
        // What shares a huge frame with others that have moved leaves its bit to them.
        let (first, last) = (offset.next_multiple_of(HUGE_BYTES), (offset + bytes) & !(HUGE_BYTES - 1));
        if first < last {
            for (word, mask) in words(first, last - first) {
                let before = self.huge_frames[word].fetch_and(!mask, Ordering::Relaxed);
                self.count.fetch_sub((mask & before).count_ones() as usize, Ordering::Relaxed);
            }
        }
        Some(true)
    }
}

/// Whether the mapping of a page is one that can be moved: neither locked, which a move would undo, nor of explicit
/// huge pages. A piece of advice tells, which changes nothing that counts and is refused to just these.
///
/// # Safety
/// A page of the reservation.
unsafe fn may_move(page: *mut u8) -> bool {
    // SAFETY: the caller's promise.
    keeping_errno(|| unsafe { libc::madvise(page.cast(), PAGE, libc::MADV_COLD) == 0 })
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
unsafe fn map_afresh(pages: *mut u8, bytes: usize, fixed: libc::c_int) -> bool {
    debug_assert!(pages.addr().is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed;
    // SAFETY: the caller's promise.
    let mapped = keeping_errno(|| unsafe { libc::mmap(pages.cast(), bytes, rights, flags, -1, 0) });
    // A kernel that does not know the flag takes the place as a wish; `EEXIST` of one that does is memory that is
    // there.
    mapped == pages.cast()
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
