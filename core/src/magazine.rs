//! A magazine: an array of rounds that one CPU fills and empties from the same end.
//!
//! An array, not a list through the frames: neither end touches what it holds, and a batch is a copy.

use crate::sync::{OwnerU32, OwnerUsize, const_fn};

/// Up to `ROUNDS` numbers, last in, first out. Only its owner changes it; others may count.
pub(crate) struct Magazine<const ROUNDS: usize> {
    len: OwnerU32,
    rounds: [OwnerUsize; ROUNDS],
}

impl<const ROUNDS: usize> Magazine<ROUNDS> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self { len: OwnerU32::new(0), rounds: [const { OwnerUsize::new(0) }; ROUNDS] };
            #[cfg(loom)]
            return Self { len: OwnerU32::new(0), rounds: core::array::from_fn(|_| OwnerUsize::new(0)) };
        }
    }

    /// How many rounds it holds.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.len.get() as usize
    }

    /// The round that was put in last.
    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<usize> {
        let len = self.len.get().wrapping_sub(1);
        let round = self.rounds.get(len as usize)?.get();
        self.len.set(len);
        Some(round)
    }

    /// Puts a round in, unless it holds `limit` already.
    #[inline(always)]
    pub(crate) fn push(&self, round: usize, limit: u32) -> bool {
        let len = self.len.get();
        if len >= limit {
            return false;
        }
        let Some(place) = self.rounds.get(len as usize) else { return false };
        place.set(round);
        self.len.set(len + 1);
        true
    }

    /// Takes the `count` rounds that were put in first into `out`, all if there are fewer; answers how many.
    pub(crate) fn take_oldest(&self, count: usize, out: &mut [usize; ROUNDS]) -> usize {
        let len = self.len();
        let count = count.min(len);
        for (out, round) in out[..count].iter_mut().zip(&self.rounds) {
            *out = round.get();
        }
        for place in count..len {
            self.rounds[place - count].set(self.rounds[place].get());
        }
        self.len.set((len - count) as u32);
        count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_round_in_is_the_first_out() {
        let magazine = Magazine::<3>::new();
        assert_eq!(magazine.pop(), None);
        assert!(magazine.push(1, 3) && magazine.push(2, 3));
        assert!(!magazine.push(3, 2), "the limit counts");
        assert!(magazine.push(3, 9));
        assert!(!magazine.push(4, 9), "so does the room");
        assert_eq!((magazine.pop(), magazine.len()), (Some(3), 2));
    }

    #[test]
    fn the_oldest_leave_first_and_the_rest_keep_their_order() {
        let magazine = Magazine::<4>::new();
        for round in 1..=4 {
            assert!(magazine.push(round, 4));
        }
        let mut out = [0; 4];
        assert_eq!(magazine.take_oldest(3, &mut out), 3);
        assert_eq!(out[..3], [1, 2, 3]);
        assert_eq!((magazine.pop(), magazine.pop()), (Some(4), None));
        assert_eq!(magazine.take_oldest(9, &mut out), 0);
    }
}
