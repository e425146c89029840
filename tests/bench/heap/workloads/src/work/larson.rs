//! Like larson: a server whose objects are replaced at random, and whose threads hand what they hold to a successor.

use std::thread;

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 5000;
const GENERATIONS: usize = 10;
const LOW: usize = 8;
const HIGH: usize = 1000;

/// One thread after the other in each of the chains.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let steps = load.times(200_000);
    load.on_each_thread(|chain| {
        let mut rng = Rng::new(chain);
        let mut slots: Vec<Block> = (0..SLOTS).map(|_| Block::new(rng.within(LOW, HIGH))).collect();
        for generation in 0..GENERATIONS {
            let successor = thread::spawn(move || serve(slots, Rng::new(chain * GENERATIONS + generation), steps));
            slots = successor.join().expect("a thread that only replaces blocks");
        }
    });
    (steps * GENERATIONS * load.threads) as u64
}

fn serve(mut slots: Vec<Block>, mut rng: Rng, steps: usize) -> Vec<Block> {
    for _ in 0..steps {
        // The old one is freed when the new one is there.
        slots[rng.below(SLOTS)] = Block::new(rng.within(LOW, HIGH));
    }
    slots
}
