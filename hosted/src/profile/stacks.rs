//! The stacks that samples came from, each once, with what they stand for.

use super::words::Words;

/// The most frames of a stack that are kept: what lies further out is cut off.
pub(super) const MOST_FRAMES: usize = 96;

/// Words of a record before its frames.
const HEAD: usize = 10;
const HASH: usize = 0;
const FRAMES: usize = 1;
/// Samples that are lent.
const SAMPLES: usize = 2;
/// Objects and bytes in all, of those that are lent, and of those that were when it was last looked at.
const ALL: usize = 3;
const LIVE: usize = 5;
const BASE: usize = 7;
/// Records begin here, so that 0 is none.
const FIRST: usize = 1;

/// Words at first, of records and of the index.
const LEAST: usize = 4096;
/// Words of records at most: 64 MiB, some 200,000 stacks.
const MOST: usize = 8 << 20;

/// Records one after the other, and a hash table of where they are.
pub(super) struct Stacks {
    records: Words,
    /// Words of records that are used.
    used: usize,
    index: Words,
    count: usize,
}

/// What a stack stands for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Record<'a> {
    pub(super) frames: &'a [u64],
    pub(super) samples: u64,
    /// Objects and bytes.
    pub(super) all: [f64; 2],
    pub(super) live: [f64; 2],
    /// Live ones when it was last looked at.
    pub(super) base: [f64; 2],
}

impl Stacks {
    pub(super) const fn new() -> Self {
        Self { records: Words::new(), used: FIRST, index: Words::new(), count: 0 }
    }

    /// The place of a stack, which is noted if it is new. Where there is no more room for it, the place of one that has
    /// no frames; 0 if there is none at all.
    pub(super) fn find(&mut self, frames: &[usize]) -> u32 {
        let hash = frames.iter().fold(frames.len() as u64, |hash, &frame| {
            (hash.rotate_left(5) ^ frame as u64).wrapping_mul(0x517c_c1b7_2722_0a95)
        });
        // The first record is the one of all that finds no room.
        if self.used == FIRST && !frames.is_empty() {
            self.find(&[]);
        }
        if (self.count + 1) * 2 > self.index.len() && !self.grow_index() {
            return if self.used == FIRST { 0 } else { FIRST as u32 };
        }
        let mut place = self.home(hash);
        while self.index[place] != 0 {
            let at = self.index[place] as usize;
            let record = &self.records[at..];
            if record[HASH] == hash && self.frames(at).iter().copied().eq(frames.iter().map(|&frame| frame as u64)) {
                return at as u32;
            }
            place = (place + 1) & (self.index.len() - 1);
        }
        let Some(at) = self.add(hash, frames) else { return if self.used == FIRST { 0 } else { FIRST as u32 } };
        self.index[place] = at as u64;
        self.count += 1;
        at as u32
    }

    fn home(&self, hash: u64) -> usize {
        (hash >> 20) as usize & (self.index.len() - 1)
    }

    fn frames(&self, at: usize) -> &[u64] {
        &self.records[at + HEAD..][..self.records[at + FRAMES] as usize]
    }

    fn add(&mut self, hash: u64, frames: &[usize]) -> Option<usize> {
        let end = self.used + HEAD + frames.len();
        if end > MOST {
            return None;
        }
        if end > self.records.len() && !self.records.grow((self.records.len() * 2).max(LEAST)) {
            return None;
        }
        let at = self.used;
        self.records[at + HASH] = hash;
        self.records[at + FRAMES] = frames.len() as u64;
        self.records[at + HEAD..end].iter_mut().zip(frames).for_each(|(to, &frame)| *to = frame as u64);
        self.used = end;
        Some(at)
    }

    fn grow_index(&mut self) -> bool {
        let Some(index) = Words::zeros((self.index.len() * 2).max(LEAST / 4)) else { return false };
        let before = std::mem::replace(&mut self.index, index);
        for &at in before.iter().filter(|&&at| at != 0) {
            let mut place = self.home(self.records[at as usize + HASH]);
            while self.index[place] != 0 {
                place = (place + 1) & (self.index.len() - 1);
            }
            self.index[place] = at;
        }
        true
    }

    fn count(&mut self, at: u32, which: usize, objects: f64, bytes: f64) {
        let words = &mut self.records[at as usize + which..][..2];
        for (word, more) in words.iter_mut().zip([objects, bytes]) {
            *word = (f64::from_bits(*word) + more).to_bits();
        }
    }

    /// A sample came from a stack.
    pub(super) fn lent(&mut self, at: u32, objects: f64, bytes: f64) {
        self.count(at, ALL, objects, bytes);
        self.count(at, LIVE, objects, bytes);
        self.records[at as usize + SAMPLES] += 1;
    }

    /// It was freed.
    pub(super) fn freed(&mut self, at: u32, objects: f64, bytes: f64) {
        self.records[at as usize + SAMPLES] -= 1;
        if self.records[at as usize + SAMPLES] == 0 {
            // Nothing is left of the numbers' rounding.
            self.records[at as usize + LIVE..][..2].fill(0);
        } else {
            self.count(at, LIVE, -objects, -bytes);
        }
    }

    /// The words that all records take.
    pub(super) fn words(&self) -> usize {
        self.used
    }

    /// Copies all records, if there is room for them, and answers how many words they are; from now on growth counts
    /// from here, if so told.
    pub(super) fn copy(&mut self, to: &mut [u64], rebase: bool) -> Option<usize> {
        if self.records.is_empty() {
            return Some(0);
        }
        if to.len() < self.used {
            return None;
        }
        to[..self.used].copy_from_slice(&self.records[..self.used]);
        let mut at = FIRST;
        while rebase && at < self.used {
            self.records.copy_within(at + LIVE..at + LIVE + 2, at + BASE);
            at += HEAD + self.records[at + FRAMES] as usize;
        }
        Some(self.used)
    }

    /// The records in a copy.
    pub(super) fn records(copy: &[u64]) -> impl Iterator<Item = Record<'_>> {
        let mut rest = copy.get(FIRST..).unwrap_or(&[]);
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_at_checked(HEAD)?;
            let (frames, behind) = behind.split_at_checked(head[FRAMES] as usize)?;
            rest = behind;
            let pair = |at: usize| [head[at], head[at + 1]].map(f64::from_bits);
            Some(Record { frames, samples: head[SAMPLES], all: pair(ALL), live: pair(LIVE), base: pair(BASE) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_is_noted_once_with_what_it_stands_for() {
        let mut stacks = Stacks::new();
        let stack = |number: usize| (0..number % 40).map(|frame| number * 1000 + frame).collect::<Vec<_>>();
        let places: Vec<_> = (0..3000).map(|number| stacks.find(&stack(number))).collect();
        for (number, &place) in places.iter().enumerate() {
            assert_eq!(stacks.find(&stack(number)), place);
            stacks.lent(place, 2.0, 20.5);
        }
        stacks.lent(places[7], 1.0, 1.0);
        stacks.freed(places[8], 2.0, 20.5);
        let mut copy = vec![0; stacks.words()];
        assert_eq!(stacks.copy(&mut copy[..10], true), None);
        assert_eq!(stacks.copy(&mut copy, true), Some(copy.len()));
        let records: Vec<_> = Stacks::records(&copy).collect();
        // Those whose length is 0 are one.
        assert_eq!(records.len(), 3000 - 74);
        let of = |number: usize| {
            let frames: Vec<_> = stack(number).iter().map(|&frame| frame as u64).collect();
            *records.iter().find(|record| record.frames == frames).unwrap()
        };
        assert_eq!((of(7).samples, of(7).all, of(7).live), (2, [3.0, 21.5], [3.0, 21.5]));
        assert_eq!((of(8).samples, of(8).all, of(8).live), (0, [2.0, 20.5], [0.0, 0.0]));
        assert_eq!((of(40).samples, of(7).base), (75, [0.0, 0.0]));
        stacks.freed(places[7], 1.0, 1.0);
        let mut again = vec![0; stacks.words()];
        stacks.copy(&mut again, false);
        let seven = Stacks::records(&again).find(|record| record.frames == of(7).frames).unwrap();
        assert_eq!((seven.live, seven.base), ([2.0, 20.5], [3.0, 21.5]));
    }
}
