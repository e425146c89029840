//! Numbers for threads: which are taken.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The numbers that can be those of CPUs with pools.
pub(crate) const SEATS: u32 = 4096;

/// Bit n of word w: number 64·w + n is taken.
static TAKEN: [AtomicU64; (SEATS / u64::BITS) as usize] = [const { AtomicU64::new(0) }; (SEATS / u64::BITS) as usize];

/// Takes this number, if nobody has it.
pub(crate) fn take(number: u32) -> bool {
    let bit = 1 << (number % u64::BITS);
    // Acquire: pairs with the Release in `give`; the pools that the last owner left are seen as it left them.
    TAKEN[(number / u64::BITS) as usize].fetch_or(bit, Ordering::Acquire) & bit == 0
}

/// Takes the lowest that nobody has.
pub(crate) fn take_lowest() -> Option<u32> {
    for (place, word) in TAKEN.iter().enumerate() {
        loop {
            let free = (!word.load(Ordering::Relaxed)).trailing_zeros();
            if free == u64::BITS {
                break;
            }
            let number = place as u32 * u64::BITS + free;
            if take(number) {
                return Some(number);
            }
        }
    }
    None
}

/// Gives a number back.
pub(crate) fn give(number: u32) {
    let bit = 1 << (number % u64::BITS);
    // Release: pairs with the Acquire in `take`.
    TAKEN[(number / u64::BITS) as usize].fetch_and(!bit, Ordering::Release);
}

/// A number that no instance has a pool for, and that no other thread has.
pub(crate) fn without_seat() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(SEATS);
    // It stays below all words that are no numbers: one that came round could be shared only after a thousand million
    // threads.
    SEATS.max(NEXT.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 2))
}
