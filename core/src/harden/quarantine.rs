//! The quarantine: where freed objects lie for a while before they may be lent again.
//!
//! ```text
//!   one CPU's     bytes │ random │ place │ place │ place │ …
//!                                    ▲
//!                  freed ──► a random one ──► what was there is really freed
//! ```
//!
//! A stale pointer that is freed, or written through, meets an object that is nobody's for as long as it lies here, and
//! which free brings it back to the pool is not to be foreseen. Each CPU has one of its own, used by whoever has the
//! CPU pinned; others only count.

use crate::platform::{Pinned, Platform};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU64, Ordering};

use super::canary::next_random;

const BYTES: usize = 0;
const RANDOM: usize = 1;
const FIRST: usize = 2;

/// What one CPU's quarantine is made of, words: those above, then a place for each object.
#[derive(Clone, Copy)]
pub(crate) struct Quarantine<'m>(&'m [AtomicU64]);

/// An object that lies in quarantine: how far into the span, and its class. 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) offset: usize,
    pub(crate) class: SizeClass,
}

impl Held {
    fn word(self) -> u64 {
        (self.offset as u64) << 8 | (self.class.index() as u64 + 1)
    }

    fn of(word: u64) -> Option<Self> {
        let class = SizeClass::new(((word & 0xff) as usize).checked_sub(1)?)?;
        Some(Self { offset: (word >> 8) as usize, class })
    }
}

impl<'m> Quarantine<'m> {
    /// Words for so many places.
    pub(crate) const fn words(places: usize) -> usize {
        FIRST + places
    }

    /// The quarantine of the CPU with this number among `all`.
    pub(crate) fn of(all: &'m [AtomicU64], cpu: usize, places: usize) -> Option<Self> {
        let start = cpu.checked_mul(Self::words(places))?;
        all.get(start..start + Self::words(places)).map(Self)
    }

    // Relaxed throughout: only the owner writes, and reads what it wrote.
    fn get(self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    fn set(self, word: usize, value: u64) {
        self.0[word].store(value, Ordering::Relaxed);
    }

    /// A number below `end`, as good as random.
    pub(crate) fn below<P: Platform>(self, _pinned: &mut Pinned<P>, end: usize, seed: impl FnOnce() -> u64) -> usize {
        let state = match self.get(RANDOM) {
            0 => seed(),
            state => state,
        };
        let next = next_random(state);
        self.set(RANDOM, next);
        // The upper half by multiplication: no division, and hardly any place is likelier than another.
        (((next >> 32) * end as u64) >> 32) as usize
    }

    /// Bytes that lie here.
    pub(crate) fn bytes(self) -> usize {
        self.get(BYTES) as usize
    }

    /// Lays an object on a place; answers what lay there.
    pub(crate) fn exchange<P: Platform>(self, _: &mut Pinned<P>, place: usize, held: Option<Held>) -> Option<Held> {
        let word = FIRST + place;
        let before = Held::of(self.get(word));
        self.set(word, held.map_or(0, Held::word));
        let size = |held: Option<Held>| held.map_or(0, |held| held.class.bytes() as u64);
        self.set(BYTES, self.get(BYTES) + size(held) - size(before));
        before
    }

    /// The place from `start` on, round and round, on which something lies.
    pub(crate) fn occupied_from<P: Platform>(self, _: &mut Pinned<P>, start: usize) -> Option<usize> {
        let places = self.0.len() - FIRST;
        (start..places).chain(0..start).find(|place| self.get(FIRST + place) != 0)
    }

    /// All that lies here. Exact while nothing moves.
    pub(crate) fn all(self) -> impl Iterator<Item = Held> {
        self.0[FIRST..].iter().filter_map(|word| Held::of(word.load(Ordering::Relaxed)))
    }
}
