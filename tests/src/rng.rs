//! Numbers that look random and are the same in every run.

/// A small generator (xorshift64*), one for each CPU.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator number `seed`.
    pub const fn new(seed: u64) -> Self {
        // Neighbouring seeds give unlike sequences, and none gives only zeros.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub const fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not zero.
    pub const fn below(&mut self, limit: usize) -> usize {
        ((self.draw() >> 32) as usize) % limit
    }
}
