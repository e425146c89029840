//! Blocks of 16 to 512 KiB, as buffers are, a few of which are live at a time.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 64;
const PAGE: usize = 4096;

/// A unit is a block, one word of whose every page is written.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let blocks = load.times(100_000);
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        let mut slots: Vec<Option<Block>> = (0..SLOTS).map(|_| None).collect();
        for _ in 0..blocks {
            let slot = &mut slots[rng.below(SLOTS)];
            *slot = None;
            let mut block = Block::new(rng.doubling(16 << 10, 512 << 10));
            block.touch(PAGE);
            *slot = Some(block);
        }
    });
    (blocks * load.threads) as u64
}
