//! Vectors that grow one element at a time.

use std::hint::black_box;

use crate::load::Load;
use crate::meter::Meter;

const LARGE: usize = 100_000_000 / 8;
const MANY: usize = 1000;
const EACH: usize = 8192;

/// One vector of 100 MB; a unit is an element.
pub fn one(load: &Load, _: &mut Meter) -> u64 {
    let elements = load.times(LARGE);
    load.on_each_thread(|_| {
        let mut vector = Vec::new();
        for n in 0..elements {
            vector.push(n);
        }
        black_box(&vector);
    });
    (elements * load.threads) as u64
}

/// A thousand of 64 KiB in turns, so that none can grow into the room behind it for long.
pub fn many(load: &Load, _: &mut Meter) -> u64 {
    let elements = load.times(EACH);
    load.on_each_thread(|_| {
        let mut vectors: Vec<Vec<usize>> = (0..MANY).map(|_| Vec::new()).collect();
        for n in 0..elements {
            vectors.iter_mut().for_each(|vector| vector.push(n));
        }
        black_box(&vectors);
    });
    (elements * MANY * load.threads) as u64
}
