//! Many blocks of one size are allocated and then freed in the same order: how caches are refilled and emptied.

use std::hint::black_box;

use crate::block::Fixed;
use crate::load::Load;
use crate::meter::Meter;

/// Batches of `COUNT` blocks whose size the compiler knows.
pub fn run<const WORDS: usize, const COUNT: usize>(load: &Load, _: &mut Meter) -> u64 {
    let batches = load.times(4_000_000 / COUNT);
    load.on_each_thread(|_| {
        let mut batch = Vec::with_capacity(COUNT);
        for _ in 0..batches {
            for _ in 0..COUNT {
                batch.push(Fixed::<WORDS>::new());
            }
            black_box(&batch);
            batch.clear();
        }
    });
    (batches * COUNT * load.threads) as u64
}
