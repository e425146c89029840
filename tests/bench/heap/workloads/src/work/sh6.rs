//! Like sh6bench: series of blocks from small to large, of which some are freed at once, some in the order of their
//! allocation, and some with the next series, backwards.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;

const HIGH: usize = 1000;

/// Every series has more of the small ones.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let series = load.times(6000);
    let mut pairs = 0;
    let mut before: Vec<Block> = Vec::new();
    let mut now = Vec::new();
    for _ in 0..series {
        for size in (8..=HIGH).step_by(8) {
            for copy in 0..1 + 3 * HIGH / (size + HIGH / 2) {
                let block = Block::new(size);
                pairs += 1;
                // One of five is not kept.
                if (size / 8 + copy) % 5 != 0 {
                    now.push(block);
                }
            }
        }
        while before.pop().is_some() {}
        now.drain(..now.len() / 3);
        std::mem::swap(&mut before, &mut now);
    }
    pairs
}
