//! Threads that are made, allocate a little, and end.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const BLOCKS: usize = 100;

/// So many threads at a time.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let rounds = load.times(2000) / load.threads + 1;
    for round in 0..rounds {
        load.on_new_threads(|index| {
            let mut rng = Rng::new(round * load.threads + index);
            let blocks: Vec<Block> = (0..BLOCKS).map(|_| Block::new(rng.within(16, 1024))).collect();
            drop(blocks);
        });
    }
    (rounds * load.threads) as u64
}
