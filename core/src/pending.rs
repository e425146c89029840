//! Frees that cannot take the lock: a bit a frame, set by whoever finds the lock held.
//!
//! An interrupt may have stopped the very CPU that holds an arena's lock, so it cannot wait. It leaves the frame here
//! and the holder takes it along. The hand-over is Dekker's: each side writes its own word, then reads the other's.
//!
//! ```text
//!   freer                                   holder
//!   rows[r] |= frame      (Release)         lock = 0              (Release)
//!   dirty   |= group      (Release)         fence(SeqCst)
//!   fence(SeqCst)                           dirty != 0 ?  → lock again and take
//!   lock == 0 ?  → lock and take
//! ```
//!
//! With both fences at least one of them sees the other's word, so no frame stays behind; with either fence missing
//! both may read the old value, and the frame waits for a next holder who may never come.

use crate::sync::{AtomicU64, Ordering, const_fn, fence, mutant};

/// Frames of a row: the bits of a word.
pub(crate) const ROW_FRAMES: u32 = 64;

/// The pending map of one arena.
pub(crate) struct PendingMap<'m> {
    rows: &'m [AtomicU64],
    /// Bit g: some row of group g is not empty.
    dirty: AtomicU64,
    rows_per_group: u32,
}

impl<'m> PendingMap<'m> {
    const_fn! {
        /// An empty map over `rows`, which are zero.
        pub(crate) const fn new(rows: &'m [AtomicU64]) -> Self {
            let groups = u64::BITS as usize;
            Self { rows, dirty: AtomicU64::new(0), rows_per_group: rows.len().div_ceil(groups) as u32 }
        }
    }

    /// Leaves the frames of `mask` in `row` and answers which of them lay there already.
    ///
    /// The caller must then try the lock, and take if it gets it.
    pub(crate) fn post(&self, row: u32, mask: u64) -> u64 {
        // Release: the freer's last use of the frames comes before their next use; pairs with Acquire in `take`.
        let before = if mutant("posted_without_rmw") || mutant("twice_unguarded") {
            let before = self.rows[row as usize].load(Ordering::Relaxed);
            self.rows[row as usize].store(before | mask, Ordering::Release);
            before
        } else {
            self.rows[row as usize].fetch_or(mask, Ordering::Release)
        };
        // Release: who sees the group sees the row; pairs with Acquire in `take`.
        self.dirty.fetch_or(1 << (row / self.rows_per_group), Ordering::Release);
        if !mutant("freer_fence") {
            // Pairs with the fence in `left_behind`: either the lock is seen free here or the group is seen there.
            fence(Ordering::SeqCst);
        }
        before & mask
    }

    /// Whether the holder that has just unlocked must lock again: asked after every unlock.
    #[inline]
    pub(crate) fn left_behind(&self) -> bool {
        if !mutant("holder_fence") {
            // Pairs with the fence in `post`.
            fence(Ordering::SeqCst);
        }
        self.is_dirty()
    }

    /// Whether anything waits. Advice only without a fence before it.
    #[inline]
    pub(crate) fn is_dirty(&self) -> bool {
        // Relaxed: the fence before it, or the lock after it, does the ordering.
        self.dirty.load(Ordering::Relaxed) != 0
    }

    /// Whether this frame waits here.
    pub(crate) fn holds(&self, row: u32, mask: u64) -> bool {
        // Relaxed: used to explain a wrong free, which has no order with anything.
        self.rows[row as usize].load(Ordering::Relaxed) & mask != 0
    }

    /// Empties the map into `each(row, mask)`. Only for the holder of the arena's lock.
    pub(crate) fn take(&self, mut each: impl FnMut(u32, u64)) {
        // Acquire: pairs with the Release on the group in `post`, so the rows behind it are seen. Release: who sees the
        // map clean sees what the holder said before it emptied it.
        let mut groups = self.dirty.swap(0, Ordering::AcqRel);
        while groups != 0 {
            let group = groups.trailing_zeros();
            groups &= groups - 1;
            let first = group * self.rows_per_group;
            let end = (first + self.rows_per_group).min(self.rows.len() as u32);
            for row in first..end {
                // Relaxed: an empty row needs no order; a bit that comes later brings its group again.
                if self.rows[row as usize].load(Ordering::Relaxed) == 0 {
                    continue;
                }
                // Acquire: pairs with the Release on the row in `post`.
                let mask = self.rows[row as usize].swap(0, Ordering::Acquire);
                if mask != 0 {
                    each(row, mask);
                }
            }
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_posted_is_taken_once() {
        let rows = [const { AtomicU64::new(0) }; 130];
        let map = PendingMap::new(&rows);
        assert!(!map.left_behind());
        assert_eq!(map.post(129, 0b110), 0);
        assert_eq!(map.post(129, 0b010), 0b010);
        assert_eq!(map.post(0, 1), 0);
        assert!(map.left_behind() && map.holds(129, 4));
        let mut taken = std::vec::Vec::new();
        map.take(|row, mask| taken.push((row, mask)));
        assert_eq!(taken, [(0, 1), (129, 0b110)]);
        assert!(!map.left_behind());
    }
}
