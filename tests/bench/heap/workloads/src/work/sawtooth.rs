//! Memory use that rises and falls: what is resident in the valleys is what nobody uses.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const TEETH: usize = 4;
const PEAK: usize = 128 << 20;
const VALLEY: usize = PEAK / 20;
const PAGE: usize = 4096;

/// A unit is a block. In each valley the program goes on with little memory for a while.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let peak = load.times(PEAK);
    let mut rng = Rng::new(0);
    let mut blocks: Vec<Block> = Vec::new();
    let mut bytes = 0;
    let mut units = 0;
    for _ in 0..TEETH {
        while bytes < peak {
            let block = new(&mut rng);
            bytes += block.bytes();
            blocks.push(block);
            units += 1;
        }
        rng.shuffle(&mut blocks);
        while bytes > load.times(VALLEY) {
            bytes -= blocks.pop().expect("their bytes are not yet gone").bytes();
        }
        for _ in 0..load.times(20_000) {
            let slot = rng.below(blocks.len());
            bytes -= blocks[slot].bytes();
            blocks[slot] = new(&mut rng);
            bytes += blocks[slot].bytes();
            units += 1;
        }
    }
    meter.stop();
    meter.note_resident("rss-valley");
    units
}

fn new(rng: &mut Rng) -> Block {
    let size = match rng.below(100) {
        0..90 => rng.doubling(16, 1024),
        90..99 => rng.doubling(1024, 32_768),
        _ => rng.doubling(32_768, 1 << 20),
    };
    let mut block = Block::new(size);
    block.touch(PAGE);
    block
}
