//! A small deterministic generator: every allocator sees the same requests.

use crate::frames::HUGE_ORDER;

/// Marsaglia's xorshift64.
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for each `stream`.
    pub fn new(stream: u64) -> Self {
        let mut rng = Self((stream + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers still show the seed.
        for _ in 0..16 {
            rng.next();
        }
        rng
    }

    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is less than 2^32. No division: it would be most of a fast pair.
    #[inline(always)]
    pub fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }

    /// An order: 0 with probability 1/2, 1 with 1/4, … and 9 with what is left.
    #[inline(always)]
    pub fn order(&mut self) -> usize {
        ((self.next() >> 32).trailing_zeros() as usize).min(HUGE_ORDER)
    }

    /// Puts `items` in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_geometric() {
        let mut rng = Rng::new(3);
        let mut count = [0; HUGE_ORDER + 1];
        for _ in 0..1 << 16 {
            count[rng.order()] += 1;
        }
        for (order, &n) in count.iter().enumerate() {
            let expected = (1 << 16) >> (order + 1).min(HUGE_ORDER);
            assert!((n as i64 - expected as i64).abs() < expected as i64 / 4 + 16, "order {order}: {n}");
        }
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new(0);
        assert!((0..10_000).all(|_| rng.below(7) < 7));
    }
}
