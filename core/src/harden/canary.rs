//! Canaries: what is written behind the last byte that was asked for, and how it tells that it was written over.
//!
//! ```text
//!   a slot      │ what was asked for │ slack: one byte, again and again │ trailer │
//!                                    ▲                                  ▲
//!                                    a string one too long ends here    5 bytes of tag, 3 of the slack's length
//! ```
//!
//! Nobody who does not know the heap's key can say what stands there: it is the key mixed with the address. No byte of
//! it is 0, so that the 0 behind a string that is one too long is always seen; another byte goes unseen once in 128
//! times if it is the only one, and a whole trailer that is copied from another object never fits.

/// Bytes of a trailer.
pub(crate) const TRAILER_BYTES: usize = 8;

/// The lowest bit of each byte, which is always set.
const ODD: u64 = 0x0101_0101_0101_0101;
/// Where the slack's length begins.
const SLACK_SHIFT: u32 = 40;

/// What all canaries of a heap are made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    one: u64,
    other: u64,
}

impl Key {
    pub(crate) const fn new(secret: u64) -> Self {
        let one = scramble(secret);
        Self { one, other: scramble(one ^ secret.rotate_left(32)) }
    }

    /// Multiplication to the full width and folding, as in wyhash: a few cycles, and every bit of the result depends on
    /// every bit of both.
    const fn hash(self, address: usize, salt: u64) -> u64 {
        let product = ((address as u64 ^ self.one) as u128) * ((salt ^ self.other) as u128);
        product as u64 ^ (product >> 64) as u64
    }

    /// The byte that fills the slack of an object, and a guard frame that can be touched.
    pub(crate) const fn filler(self, address: usize) -> u8 {
        (self.hash(address, 1) >> 32) as u8 | 1
    }

    /// The trailer of an object with so many bytes of slack, fewer than 2^21.
    pub(crate) const fn trailer(self, address: usize, slack: usize) -> [u8; TRAILER_BYTES] {
        let mask = self.hash(address, 2) & !low_bytes();
        let tag = self.hash(address, slack as u64 + 3) & low_bytes();
        ((mask ^ spread(slack as u64) << SLACK_SHIFT | tag) | ODD).to_le_bytes()
    }

    /// The slack that a trailer tells, if it is the trailer of the object at that address.
    pub(crate) const fn slack(self, address: usize, trailer: [u8; TRAILER_BYTES]) -> Option<usize> {
        let word = u64::from_le_bytes(trailer);
        let slack = gather((word ^ self.hash(address, 2)) >> SLACK_SHIFT) as usize;
        if u64::from_le_bytes(self.trailer(address, slack)) == word { Some(slack) } else { None }
    }

    /// A number that follows from the key, for what need not be known to nobody.
    pub(crate) const fn seed(self, number: usize) -> u64 {
        scramble(self.hash(number, 0)) | 1
    }
}

/// The bits of the tag.
const fn low_bytes() -> u64 {
    (1 << SLACK_SHIFT) - 1
}

/// Seven bits to each of three bytes, above the lowest.
const fn spread(slack: u64) -> u64 {
    (slack & 0x7f) << 1 | (slack >> 7 & 0x7f) << 9 | (slack >> 14 & 0x7f) << 17
}

/// The reverse of [`spread`], whatever the lowest bits are.
const fn gather(word: u64) -> u64 {
    (word >> 1 & 0x7f) | (word >> 9 & 0x7f) << 7 | (word >> 17 & 0x7f) << 14
}

/// The step of splitmix64 (Steele, Lea and Flood, 2014): neighbours become strangers.
const fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next number of a generator (xorshift64, Marsaglia 2003): not for secrets, only so that an order is not known.
pub(crate) const fn next_random(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_tells_the_slack_of_its_own_object() {
        let key = Key::new(17);
        for slack in [0, 1, 7, 127, 128, 4000, 16_383, 16_384, 32_760] {
            for address in [8, 0x1000, 0x7fff_1234_5678] {
                let trailer = key.trailer(address, slack);
                assert_eq!(key.slack(address, trailer), Some(slack));
                assert_eq!(key.slack(address + 8, trailer), None, "of another object");
                assert_eq!(Key::new(18).slack(address, trailer), None, "of another heap");
            }
        }
    }

    #[test]
    fn every_changed_byte_is_seen_and_none_is_zero() {
        let key = Key::new(1);
        for address in (0x1000..0x1000 + if cfg!(miri) { 16 } else { 4096 }).step_by(8) {
            let trailer = key.trailer(address, 5);
            assert!(trailer.iter().all(|&byte| byte != 0) && key.filler(address) != 0);
            for place in 0..TRAILER_BYTES {
                for bit in 0..8 {
                    let mut changed = trailer;
                    changed[place] ^= 1 << bit;
                    assert_eq!(key.slack(address, changed), None);
                }
                let mut changed = trailer;
                changed[place] = 0;
                assert_eq!(key.slack(address, changed), None);
            }
        }
    }

    #[test]
    fn one_byte_of_128_is_the_right_one() {
        let key = Key::new(99);
        let mut seen = [0u32; 256];
        (0..12_800).for_each(|number| seen[usize::from(key.filler(number * 64))] += 1);
        assert!(seen.iter().skip(1).step_by(2).all(|&count| (30..300).contains(&count)), "{seen:?}");
    }
}
