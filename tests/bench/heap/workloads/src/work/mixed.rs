//! A program that runs for a long time: a steady number of live blocks, most of them small, some growing.

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 20_000;

enum Slot {
    Fixed(#[expect(dead_code, reason = "it is held, not read")] Block),
    Growing(Vec<u64>),
}

/// A step replaces a block, or lets a vector grow. The filling of the slots does not count.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let steps = load.times(1_500_000);
    let fill = |index: usize| {
        let mut rng = Rng::new(index);
        let slots: Vec<Slot> = (0..SLOTS).map(|_| new(&mut rng)).collect();
        (slots, rng)
    };
    if load.threads == 1 {
        let (mut slots, mut rng) = fill(0);
        meter.start();
        work(&mut slots, &mut rng, steps);
        meter.stop();
    } else {
        load.on_each_thread(|index| {
            let (mut slots, mut rng) = fill(index);
            work(&mut slots, &mut rng, steps);
        });
    }
    (steps * load.threads) as u64
}

fn work(slots: &mut [Slot], rng: &mut Rng, steps: usize) {
    for step in 0..steps {
        let slot = &mut slots[rng.below(SLOTS)];
        match slot {
            Slot::Growing(vector) if vector.len() < 1024 => {
                let more = vector.len().max(4);
                vector.extend((0..more).map(|n| (n + step) as u64));
            }
            _ => *slot = new(rng),
        }
    }
}

fn new(rng: &mut Rng) -> Slot {
    let size = match rng.below(100) {
        0..5 => return Slot::Growing(Vec::new()),
        5..80 => rng.doubling(16, 512),
        80..98 => rng.doubling(512, 8192),
        _ => rng.doubling(8192, 65_536),
    };
    let mut block = Block::new(size);
    block.touch_end();
    Slot::Fixed(block)
}
