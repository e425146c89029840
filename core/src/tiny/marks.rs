//! Where each allocation begins and where it ends: two bits a unit, so that a free is checked against what was lent.

use crate::sync::{AtomicU64, Ordering};

/// Units of a word.
const ROW: u32 = u64::BITS;

/// The extents of what is lent.
///
/// An allocation of units `u..u + n` has the head bit of `u` and the end bit of `u + n - 1`, and no other bit of either
/// kind; a free unit has none. Written only by the holder of the region's lock. Whoever has been lent units may read
/// their bits without it, for they stay as they are until he gives the units back: so a free that finds the lock held
/// is checked all the same.
pub(super) struct Marks<'m> {
    heads: &'m [AtomicU64],
    ends: &'m [AtomicU64],
}

impl<'m> Marks<'m> {
    /// Nothing lent. The words are zero, and as many of each.
    pub(super) fn new(heads: &'m [AtomicU64], ends: &'m [AtomicU64]) -> Self {
        Self { heads, ends }
    }

    /// Units `start..start + count` become an allocation, or cease to be one.
    pub(super) fn flip(&self, start: u32, count: u32) {
        flip(self.heads, start);
        flip(self.ends, start + count - 1);
    }

    /// The allocation that begins at `start` becomes one of `to` units where it had `from`.
    pub(super) fn resize(&self, start: u32, from: u32, to: u32) {
        flip(self.ends, start + from - 1);
        flip(self.ends, start + to - 1);
    }

    /// How many units are lent from `start` on, if an allocation begins there.
    pub(super) fn lent_from(&self, start: u32) -> Option<u32> {
        if load(self.heads, start / ROW) >> (start % ROW) & 1 == 0 {
            return None;
        }
        let mut row = start / ROW;
        let mut ends = load(self.ends, row) & (!0 << (start % ROW));
        while ends == 0 {
            row += 1;
            // The rows end: only where the caller was lent nothing and somebody else's bits change as he looks.
            self.ends.get(row as usize)?;
            ends = load(self.ends, row);
        }
        Some(row * ROW + ends.trailing_zeros() + 1 - start)
    }

    /// The allocation that `unit` lies in, at its head or inside: its first unit and how many it has.
    pub(super) fn around(&self, unit: u32) -> Option<(u32, u32)> {
        let mut row = unit / ROW;
        let mut heads = load(self.heads, row) & (!0 >> (ROW - 1 - unit % ROW));
        while heads == 0 {
            row = row.checked_sub(1)?;
            heads = load(self.heads, row);
        }
        let head = row * ROW + heads.ilog2();
        let count = self.lent_from(head).filter(|&count| unit - head < count)?;
        Some((head, count))
    }

    /// The allocation that begins first at or after `unit`: its first unit and how many it has.
    pub(super) fn next(&self, unit: u32) -> Option<(u32, u32)> {
        let mut row = unit / ROW;
        self.heads.get(row as usize)?;
        let mut heads = load(self.heads, row) & (!0 << (unit % ROW));
        while heads == 0 {
            row += 1;
            self.heads.get(row as usize)?;
            heads = load(self.heads, row);
        }
        let head = row * ROW + heads.trailing_zeros();
        Some((head, self.lent_from(head)?))
    }

    /// How many bits of each kind there are.
    pub(super) fn count(&self) -> (u32, u32) {
        let of = |rows: &[AtomicU64]| (0..rows.len() as u32).map(|row| load(rows, row).count_ones()).sum();
        (of(self.heads), of(self.ends))
    }
}

fn load(rows: &[AtomicU64], row: u32) -> u64 {
    // Relaxed: under the lock, which orders its holders; without it for bits that were set before their reader was lent
    // the units, and whatever brought him their address brought him the bits.
    rows[row as usize].load(Ordering::Relaxed)
}

fn flip(rows: &[AtomicU64], unit: u32) {
    let word = &rows[(unit / ROW) as usize];
    // Relaxed, and no read-modify-write: only the holder of the lock writes.
    word.store(word.load(Ordering::Relaxed) ^ 1 << (unit % ROW), Ordering::Relaxed);
}
