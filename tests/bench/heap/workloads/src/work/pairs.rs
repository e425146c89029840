//! A block is allocated, written once, and freed, again and again: the shortest way through an allocator.

use std::hint::black_box;

use crate::block::Fixed;
use crate::load::Load;
use crate::meter::Meter;

/// Pairs of one size, which the compiler knows.
pub fn run<const WORDS: usize>(load: &Load, _: &mut Meter) -> u64 {
    let pairs = load.times(match WORDS {
        0..=1024 => 10_000_000,
        1025..=8192 => 1_000_000,
        _ => 200_000,
    });
    load.on_each_thread(|_| {
        for _ in 0..pairs {
            let block = Fixed::<WORDS>::new();
            // Without it the compiler would leave out the allocation. What it answers is not used, so that the pointer
            // stays in its register.
            black_box(block.address());
        }
    });
    (pairs * load.threads) as u64
}
