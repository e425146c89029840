//! What the arenas of a zone tell their zone: how much is free, where to look, what went wrong.
//!
//! Arenas change behind many locks; the zone's decisions want one number and one place to look. Both are advice that
//! may lag: exactness comes from the arenas themselves and is asked for only when the advice says that nothing is left.

use crate::frame::Pfn;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, const_fn, mutant};

/// The counts of one zone.
///
/// `free` is folded: an arena adds the difference since its last fold once it has grown to the arena's threshold, so
/// the count is off by less than the sum of the thresholds, and is written once in many operations.
pub(crate) struct Ledger {
    free: AtomicUsize,
    present: AtomicUsize,
    reserved: AtomicUsize,
    offline: AtomicUsize,
    dirty: AtomicUsize,
    late_faults: AtomicU64,
    last_fault: AtomicUsize,
}

impl Ledger {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                free: AtomicUsize::new(0),
                present: AtomicUsize::new(0),
                reserved: AtomicUsize::new(0),
                offline: AtomicUsize::new(0),
                dirty: AtomicUsize::new(0),
                late_faults: AtomicU64::new(0),
                last_fault: AtomicUsize::new(0),
            }
        }
    }

    /// Adds an arena's difference; negative differences wrap, as two's complement does.
    pub(crate) fn fold(&self, difference: isize) {
        if mutant("fold_without_rmw") {
            let free = self.free.load(Ordering::Relaxed);
            self.free.store(free.wrapping_add_signed(difference), Ordering::Relaxed);
            return;
        }
        // Relaxed: a count orders nothing. A read-modify-write, because arenas fold at the same time.
        self.free.fetch_add(difference as usize, Ordering::Relaxed);
    }

    /// As [`fold`](Self::fold), of frames that are free and dirty.
    pub(crate) fn fold_dirty(&self, difference: isize) {
        self.dirty.fetch_add(difference as usize, Ordering::Relaxed);
    }

    /// Frames that are free and dirty, as folded.
    pub(crate) fn dirty_frames(&self) -> usize {
        (self.dirty.load(Ordering::Relaxed) as isize).max(0) as usize
    }

    /// The folded count, never below zero.
    #[inline]
    pub(crate) fn free_frames(&self) -> usize {
        // Folds of different arenas may be seen in any order, so the sum may dip below zero for a moment.
        (self.free.load(Ordering::Relaxed) as isize).max(0) as usize
    }

    /// Books frames that came to the zone.
    pub(crate) fn book_present(&self, frames: usize, reserved: usize) {
        self.present.fetch_add(frames, Ordering::Relaxed);
        self.reserved.fetch_add(reserved, Ordering::Relaxed);
    }

    /// Books a change of the reserved frames.
    pub(crate) fn book_reserved(&self, difference: isize) {
        self.reserved.fetch_add(difference as usize, Ordering::Relaxed);
    }

    /// Books a change of the frames that are offline.
    pub(crate) fn book_offline(&self, difference: isize) {
        self.offline.fetch_add(difference as usize, Ordering::Relaxed);
    }

    /// Frames that exist.
    pub(crate) fn present_frames(&self) -> usize {
        self.present.load(Ordering::Relaxed)
    }

    /// Frames that exist but are not the allocator's.
    pub(crate) fn reserved_frames(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Frames out of service.
    pub(crate) fn offline_frames(&self) -> usize {
        self.offline.load(Ordering::Relaxed)
    }

    /// Frames that are the allocator's to lend.
    pub(crate) fn managed_frames(&self) -> usize {
        self.present_frames().saturating_sub(self.reserved_frames()).saturating_sub(self.offline_frames())
    }

    /// Notes a wrong free that was found only when the frame reached its tree.
    pub(crate) fn note_late_fault(&self, pfn: Pfn) {
        self.last_fault.store(pfn.number(), Ordering::Relaxed);
        self.late_faults.fetch_add(1, Ordering::Relaxed);
    }

    /// How many wrong frees were found late, and the frame of the last.
    pub(crate) fn late_faults(&self) -> (u64, Pfn) {
        (self.late_faults.load(Ordering::Relaxed), Pfn::new(self.last_fault.load(Ordering::Relaxed)))
    }
}

/// Where to look first: for each order a bitmap over the arenas of a stretch of memory.
///
/// Bit a of order k: arena a had a free chunk of order k when its lock was last released.
pub(crate) struct Hints<'m> {
    bits: &'m [AtomicU64],
    words_per_order: usize,
}

/// The kinds of chunk that hints tell apart: orders 0 to 9.
pub(crate) const HINT_KINDS: usize = 10;
/// All of them: any chunk will do.
pub(crate) const EVERY_KIND: u32 = (1 << HINT_KINDS) - 1;

impl<'m> Hints<'m> {
    /// The words that hints over `arenas` arenas need.
    pub(crate) const fn words(arenas: usize) -> usize {
        HINT_KINDS * arenas.div_ceil(u64::BITS as usize)
    }

    /// Hints in `bits`, which are zero.
    pub(crate) const fn new(bits: &'m [AtomicU64]) -> Self {
        Self { bits, words_per_order: bits.len() / HINT_KINDS }
    }

    /// Sets or clears what `changed` names of arena `arena`. Only for the holder of that arena's lock.
    pub(crate) fn flip(&self, arena: usize, mut changed: u32, now: u32) {
        let (word, bit) = (arena / u64::BITS as usize, 1 << (arena % u64::BITS as usize));
        while changed != 0 {
            let kind = changed.trailing_zeros();
            changed &= changed - 1;
            let word = &self.bits[kind as usize * self.words_per_order + word];
            // Relaxed: advice. A read-modify-write, because the arenas of a word have different holders.
            if now >> kind & 1 == 1 {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }

    /// The nearest arena at or after `from` that may have a chunk of one of `kinds`.
    pub(crate) fn first(&self, kinds: u32, from: usize) -> Option<usize> {
        let mut keep = !0 << (from % u64::BITS as usize);
        for word in from / u64::BITS as usize..self.words_per_order {
            let found = self.word(kinds, word) & keep;
            if found != 0 {
                return Some(word * u64::BITS as usize + found.trailing_zeros() as usize);
            }
            keep = !0;
        }
        None
    }

    /// The nearest arena before `before` that may have a chunk of one of `kinds`.
    pub(crate) fn last(&self, kinds: u32, before: usize) -> Option<usize> {
        let bits = u64::BITS as usize;
        let mut keep = !(!0u64).checked_shl((before % bits) as u32).unwrap_or(0);
        for word in (0..before.div_ceil(bits).min(self.words_per_order)).rev() {
            if word < before / bits {
                keep = !0;
            }
            let found = self.word(kinds, word) & keep;
            if found != 0 {
                return Some(word * bits + bits - 1 - found.leading_zeros() as usize);
            }
        }
        None
    }

    fn word(&self, mut kinds: u32, word: usize) -> u64 {
        let mut any = 0;
        while kinds != 0 {
            let kind = kinds.trailing_zeros() as usize;
            kinds &= kinds - 1;
            any |= self.bits[kind * self.words_per_order + word].load(Ordering::Relaxed);
        }
        any
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn folds_add_up_and_never_show_less_than_nothing() {
        let ledger = Ledger::new();
        ledger.fold(-3);
        assert_eq!(ledger.free_frames(), 0);
        ledger.fold(10);
        assert_eq!(ledger.free_frames(), 7);
        ledger.book_present(100, 5);
        ledger.book_offline(7);
        assert_eq!(ledger.managed_frames(), 88);
    }

    #[test]
    fn hints_find_the_nearest_arena_from_either_end() {
        let bits = [const { AtomicU64::new(0) }; Hints::words(130)];
        let hints = Hints::new(&bits);
        hints.flip(3, 0b10, 0b10);
        hints.flip(128, 0b1, 0b1);
        assert_eq!(hints.first(0b11, 0), Some(3));
        assert_eq!(hints.first(0b11, 4), Some(128));
        assert_eq!(hints.first(0b10, 4), None);
        assert_eq!(hints.last(0b11, 130), Some(128));
        assert_eq!(hints.last(0b11, 128), Some(3));
        assert_eq!(hints.last(0b11, 3), None);
        hints.flip(3, 0b10, 0);
        assert_eq!(hints.first(0b10, 0), None);
    }
}
