//! Magazines: arrays of rounds that one CPU fills and empties from the same end.
//!
//! Arrays, not lists through the frames: neither end touches what it holds, and a batch is a copy. All of a CPU's
//! magazines stand side by side in one *rack*, so that finding the one for an order is an addition, not a decision that
//! the processor must guess.

use crate::sync::{OwnerU32, OwnerUsize, const_fn};

/// Which magazine of a rack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shelf(usize);

/// Magazines for single frames, unmovable and movable: rounds of each.
pub(crate) const SINGLES: usize = 128;
/// The most rounds of a magazine for blocks.
pub(crate) const BLOCKS: usize = 16;
/// The magazines: orders 0 to 9, movable single frames, and one that is always empty.
const SHELVES: usize = 12;
/// How many rounds each holds. Few of the large ones: what lies in a magazine cannot coalesce.
const CAPACITY: [usize; SHELVES] = [SINGLES, BLOCKS, BLOCKS, 8, 0, 0, 0, 0, 0, 2, SINGLES, 0];
/// Where each begins, and where the last ends.
const START: [usize; SHELVES + 1] = {
    let mut start = [0; SHELVES + 1];
    let mut shelf = 0;
    while shelf < SHELVES {
        start[shelf + 1] = start[shelf] + CAPACITY[shelf];
        shelf += 1;
    }
    start
};
const ROUNDS: usize = START[SHELVES];

impl Shelf {
    /// Unmovable single frames.
    pub(crate) const FIXED: Self = Self(0);
    /// Movable single frames.
    pub(crate) const MOVABLE: Self = Self(10);
    /// No magazine.
    const NONE: Self = Self(11);

    /// The magazine of an order, given as its number.
    #[inline(always)]
    pub(crate) const fn of(order: usize, movable: bool) -> Self {
        if movable {
            return if order == 0 { Self::MOVABLE } else { Self::NONE };
        }
        if order < 10 { Self(order) } else { Self::NONE }
    }

    /// Every magazine that can hold anything, with the order of its rounds.
    pub(crate) fn all() -> impl Iterator<Item = (Self, u32)> {
        let order = |shelf| if shelf == Self::MOVABLE.0 { 0 } else { shelf as u32 };
        (0..SHELVES).filter(|&shelf| CAPACITY[shelf] != 0).map(move |shelf| (Self(shelf), order(shelf)))
    }

    /// How many rounds it can hold.
    #[inline(always)]
    pub(crate) const fn capacity(self) -> usize {
        CAPACITY[self.0 % SHELVES]
    }

    #[inline(always)]
    const fn start(self) -> usize {
        START[self.0 % SHELVES]
    }
}

/// The magazines of one CPU. Only their owner changes them; others may count.
pub(crate) struct Rack {
    lens: [OwnerU32; SHELVES],
    rounds: [OwnerUsize; ROUNDS],
}

impl Rack {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self { lens: [const { OwnerU32::new(0) }; SHELVES], rounds: [const { OwnerUsize::new(0) }; ROUNDS] };
            #[cfg(loom)]
            return Self {
                lens: core::array::from_fn(|_| OwnerU32::new(0)),
                rounds: core::array::from_fn(|_| OwnerUsize::new(0)),
            };
        }
    }

    /// How many rounds a magazine holds.
    #[inline(always)]
    pub(crate) fn len(&self, shelf: Shelf) -> usize {
        self.lens[shelf.0 % SHELVES].get() as usize
    }

    /// The round that was put in last.
    #[inline(always)]
    pub(crate) fn pop(&self, shelf: Shelf) -> Option<usize> {
        let len = &self.lens[shelf.0 % SHELVES];
        let last = len.get().checked_sub(1)?;
        let round = self.rounds.get(shelf.start() + last as usize)?.get();
        len.set(last);
        Some(round)
    }

    /// Puts a round in, unless the magazine holds `limit` already, which is at most its capacity.
    #[inline(always)]
    pub(crate) fn push(&self, shelf: Shelf, round: usize, limit: u32) -> bool {
        let len = &self.lens[shelf.0 % SHELVES];
        let next = len.get();
        debug_assert!(limit as usize <= shelf.capacity(), "a magazine has so many rounds");
        if next >= limit {
            return false;
        }
        let Some(place) = self.rounds.get(shelf.start() + next as usize) else { return false };
        place.set(round);
        len.set(next + 1);
        true
    }

    /// As [`push`](Self::push), for the magazine of unmovable single frames. A limit of 8 bits proves the bounds.
    #[inline(always)]
    pub(crate) fn push_fixed(&self, round: usize, limit: u8) -> bool {
        const { assert!(START[Shelf::FIXED.0] + u8::MAX as usize <= ROUNDS && SINGLES <= u8::MAX as usize) };
        let len = &self.lens[Shelf::FIXED.0];
        let next = len.get();
        if next >= u32::from(limit) {
            return false;
        }
        self.rounds[Shelf::FIXED.start() + next as usize].set(round);
        len.set(next + 1);
        true
    }

    /// Takes the `count` rounds that were put in first into `out`, all if there are fewer; answers how many.
    pub(crate) fn take_oldest(&self, shelf: Shelf, count: usize, out: &mut [usize]) -> usize {
        let rounds = &self.rounds[shelf.start()..][..self.len(shelf)];
        let count = count.min(rounds.len());
        for (out, round) in out[..count].iter_mut().zip(rounds) {
            *out = round.get();
        }
        for place in count..rounds.len() {
            rounds[place - count].set(rounds[place].get());
        }
        self.lens[shelf.0 % SHELVES].set((rounds.len() - count) as u32);
        count
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const SMALL: Shelf = Shelf::of(3, false);

    #[test]
    fn the_last_round_in_is_the_first_out() {
        let rack = Rack::new();
        assert_eq!(rack.pop(SMALL), None);
        assert!(rack.push(SMALL, 1, 3) && rack.push(SMALL, 2, 3));
        assert!(!rack.push(SMALL, 3, 2), "the limit counts");
        for round in 3..=SMALL.capacity() {
            assert!(rack.push(SMALL, round, SMALL.capacity() as u32));
        }
        assert!(!rack.push(SMALL, 0, SMALL.capacity() as u32), "so does the room");
        assert_eq!((rack.pop(SMALL), rack.len(SMALL)), (Some(SMALL.capacity()), SMALL.capacity() - 1));
    }

    #[test]
    fn the_oldest_leave_first_and_the_rest_keep_their_order() {
        let rack = Rack::new();
        for round in 1..=4 {
            assert!(rack.push(SMALL, round, 4));
        }
        let mut out = [0; BLOCKS];
        assert_eq!(rack.take_oldest(SMALL, 3, &mut out), 3);
        assert_eq!(out[..3], [1, 2, 3]);
        assert_eq!((rack.pop(SMALL), rack.pop(SMALL)), (Some(4), None));
        assert_eq!(rack.take_oldest(SMALL, 9, &mut out), 0);
    }

    #[test]
    fn magazines_do_not_share_rounds() {
        let rack = Rack::new();
        let mut filled = 0;
        for (shelf, _) in Shelf::all() {
            while rack.push(shelf, filled, shelf.capacity() as u32) {
                filled += 1;
            }
        }
        assert_eq!(filled, ROUNDS);
        for (shelf, _) in Shelf::all().collect::<std::vec::Vec<_>>().into_iter().rev() {
            while let Some(round) = rack.pop(shelf) {
                filled -= 1;
                assert_eq!(round, filled);
            }
        }
        assert_eq!((Shelf::of(4, true).capacity(), Shelf::of(12, false).capacity()), (0, 0));
    }
}
