//! A small deterministic generator: every allocator sees the same requests.

/// Marsaglia's xorshift64.
pub struct Rng(u64);

impl Rng {
    /// A generator of its own for each `stream`.
    pub fn new(stream: usize) -> Self {
        let mut rng = Self((stream as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // The first numbers still show the seed.
        for _ in 0..16 {
            rng.next();
        }
        rng
    }

    /// The next number.
    #[inline(always)]
    #[expect(clippy::should_implement_trait, reason = "it never ends, and is not wanted as an iterator")]
    pub fn next(&mut self) -> u64 {
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

    /// A number from `low` to `high`, both included.
    #[inline(always)]
    pub fn within(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// True in `percent` of 100 cases.
    #[inline(always)]
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A number from `low` to `high`; each doubling is as likely as the next.
    #[inline(always)]
    pub fn doubling(&mut self, low: usize, high: usize) -> usize {
        let octave = low << self.below((high / low).ilog2() as usize);
        (octave + self.below(octave)).min(high)
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
    fn bounds_are_kept() {
        let mut rng = Rng::new(0);
        for _ in 0..10_000 {
            assert!(rng.below(7) < 7);
            assert!((8..=128).contains(&rng.within(8, 128)));
            assert!((16..=16_384).contains(&rng.doubling(16, 16_384)));
        }
    }
}
