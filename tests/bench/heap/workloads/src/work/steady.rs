//! Like [`mixed`](super::mixed), with large blocks among the small, measured only when it has run for a while: what is
//! left then of page faults and kernel time is what the program pays for ever.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 10_000;
const PAGE: usize = 4096;

/// A step replaces a block.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let steps = load.times(4_000_000);
    let mut rng = Rng::new(0);
    let mut slots: Vec<Block> = (0..SLOTS).map(|_| new(&mut rng)).collect();
    work(&mut slots, &mut rng, load.times(1_000_000));
    meter.start();
    work(&mut slots, &mut rng, steps);
    meter.stop();
    meter.tell_rates();
    steps as u64
}

fn work(slots: &mut [Block], rng: &mut Rng, steps: usize) {
    for _ in 0..steps {
        slots[rng.below(SLOTS)] = new(rng);
    }
}

fn new(rng: &mut Rng) -> Block {
    let size = match rng.below(1000) {
        0..600 => rng.doubling(16, 256),
        600..900 => rng.doubling(256, 4096),
        900..990 => rng.doubling(4096, 65_536),
        _ => rng.doubling(65_536, 1 << 20),
    };
    let mut block = Block::new(size);
    block.touch(PAGE);
    block
}
