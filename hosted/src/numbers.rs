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

/// All that are taken now.
pub(crate) fn taken() -> impl Iterator<Item = u32> {
    let is_taken =
        |number: &u32| TAKEN[(number / u64::BITS) as usize].load(Ordering::Relaxed) >> (number % u64::BITS) & 1;
    (0..SEATS).filter(move |number| is_taken(number) != 0)
}

/// Gives a number back.
pub(crate) fn give(number: u32) {
    let bit = 1 << (number % u64::BITS);
    // Release: pairs with the Acquire in `take`.
    TAKEN[(number / u64::BITS) as usize].fetch_and(!bit, Ordering::Release);
}

/// Numbers of threads that a process had before it became a copy with only one of them.
static LOST: [AtomicU64; TAKEN.len()] = [const { AtomicU64::new(0) }; TAKEN.len()];

/// Says that no thread but `survivor`'s is left. The others' numbers are never given again.
pub(crate) fn lose_all_but(survivor: u32) {
    for (place, (taken, lost)) in TAKEN.iter().zip(&LOST).enumerate() {
        let own = if survivor as usize / 64 == place { 1 << (survivor % u64::BITS) } else { 0 };
        lost.store(taken.load(Ordering::Relaxed) & !own, Ordering::Relaxed);
    }
}

/// The numbers that were lost.
pub(crate) fn lost() -> impl Iterator<Item = u32> {
    let is_lost =
        |number: &u32| LOST[(number / u64::BITS) as usize].load(Ordering::Relaxed) >> (number % u64::BITS) & 1;
    (0..SEATS).filter(move |number| is_lost(number) != 0)
}

/// A number that no instance has a pool for, and that no other thread has.
pub(crate) fn without_seat() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(SEATS);
    // It stays below all words that are no numbers: one that came round could be shared only after a thousand million
    // threads.
    SEATS.max(NEXT.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 2))
}
