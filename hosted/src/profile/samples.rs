//! The samples that are lent: a hash table by address.

use super::words::Words;

/// A sample that is lent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Live {
    /// Where it was asked for: a place among the stacks.
    pub(super) stack: u32,
    /// log2 of the weight that it has beside its likelihood.
    pub(super) shift: u8,
    /// How many objects it stands for, and their bytes.
    pub(super) objects: f64,
    pub(super) bytes: f64,
}

/// Words of an entry: the address, 0 if there is none; stack and shift; objects; bytes.
const ENTRY: usize = 4;
/// Entries at first.
const LEAST: usize = 512;

/// Open addressing, one entry after the other; no more than half full.
pub(super) struct Samples {
    entries: Words,
    count: usize,
}

impl Samples {
    pub(super) const fn new() -> Self {
        Self { entries: Words::new(), count: 0 }
    }

    fn capacity(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// Where an address should be.
    fn home(&self, address: u64) -> usize {
        // Fibonacci hashing: the upper half of the product, as far as there are entries.
        let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash as usize & (self.capacity() - 1)
    }

    /// The place of an address: that where it is, or the free one where it would be.
    fn place(&self, address: u64) -> usize {
        let mut place = self.home(address);
        while self.entries[place * ENTRY] != 0 && self.entries[place * ENTRY] != address {
            place = (place + 1) & (self.capacity() - 1);
        }
        place
    }

    fn read(&self, place: usize) -> Live {
        let words = &self.entries[place * ENTRY..][..ENTRY];
        let [objects, bytes] = [words[2], words[3]].map(f64::from_bits);
        Live { stack: words[1] as u32, shift: (words[1] >> 32) as u8, objects, bytes }
    }

    /// Notes a sample, in place of one that was at the same address, which is answered. `Err` if there is no more
    /// memory.
    pub(super) fn insert(&mut self, address: usize, live: Live) -> Result<Option<Live>, ()> {
        if (self.count + 1) * 2 > self.capacity() && !self.grow() {
            return Err(());
        }
        let place = self.place(address as u64);
        let before = (self.entries[place * ENTRY] != 0).then(|| self.read(place));
        self.count += usize::from(before.is_none());
        let head = u64::from(live.stack) | u64::from(live.shift) << 32;
        let words = [address as u64, head, live.objects.to_bits(), live.bytes.to_bits()];
        self.entries[place * ENTRY..][..ENTRY].copy_from_slice(&words);
        Ok(before)
    }

    /// Takes a sample out.
    pub(super) fn remove(&mut self, address: usize) -> Option<Live> {
        if self.count == 0 {
            return None;
        }
        let mut hole = self.place(address as u64);
        if self.entries[hole * ENTRY] == 0 {
            return None;
        }
        let live = self.read(hole);
        self.count -= 1;
        // Whatever follows moves up, unless it would come before its home.
        let mask = self.capacity() - 1;
        let mut next = (hole + 1) & mask;
        while self.entries[next * ENTRY] != 0 {
            let home = self.home(self.entries[next * ENTRY]);
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.entries.copy_within(next * ENTRY..(next + 1) * ENTRY, hole * ENTRY);
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.entries[hole * ENTRY] = 0;
        Some(live)
    }

    fn grow(&mut self) -> bool {
        let capacity = (self.capacity() * 2).max(LEAST);
        let Some(entries) = Words::zeros(capacity * ENTRY) else { return false };
        let before = std::mem::replace(&mut self.entries, entries);
        for entry in before.chunks_exact(ENTRY).filter(|entry| entry[0] != 0) {
            let place = self.place(entry[0]);
            self.entries[place * ENTRY..][..ENTRY].copy_from_slice(entry);
        }
        true
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn it_agrees_with_a_map() {
        let (mut samples, mut twin) = (Samples::new(), HashMap::new());
        assert_eq!(samples.remove(8), None);
        let mut random = 1u64;
        for turn in 0..60_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Few addresses, close together, so that they meet; more with time.
            let address = 16 * (1 + (random >> 33) as usize % (1 + turn as usize / 8));
            if random >> 62 == 0 {
                assert_eq!(samples.remove(address), twin.remove(&address));
            } else {
                let live = Live { stack: turn, shift: turn as u8, objects: f64::from(turn), bytes: 0.5 };
                assert_eq!(samples.insert(address, live), Ok(twin.insert(address, live)));
            }
            assert_eq!(samples.len(), twin.len());
        }
        for (address, live) in twin.drain() {
            assert_eq!(samples.remove(address), Some(live));
        }
        assert!(samples.len() == 0 && samples.entries.iter().step_by(ENTRY).all(|&address| address == 0));
    }
}
