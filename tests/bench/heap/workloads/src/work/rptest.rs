//! Like rpmalloc's benchmark: blocks of up to 16 KB, small ones more often, are replaced in strides, and every other
//! time a bundle of them goes to another thread.

use std::sync::Mutex;

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 1000;
const STRIDE: usize = 7;
const REPLACED: usize = 100;
const BUNDLE: usize = 50;
const LOW: usize = 16;
const HIGH: usize = 16_000;

/// Each thread frees what another has left for it.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let loops = load.times(8000);
    let left: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        let mut slots: Vec<Option<Block>> = (0..SLOTS).map(|_| None).collect();
        let mut at = 0;
        for turn in 0..loops {
            for _ in 0..REPLACED {
                // The old one first.
                slots[at] = None;
                slots[at] = Some(block(&mut rng));
                at = (at + STRIDE) % SLOTS;
            }
            if turn % 2 == 0 {
                let bundle = (0..BUNDLE).map(|_| block(&mut rng)).collect();
                let mut left = left.lock().expect("nobody panics with the lock");
                let found = left.pop();
                left.push(bundle);
                drop(left);
                drop(found);
            }
        }
    });
    (loops * (REPLACED + BUNDLE / 2) * load.threads) as u64
}

/// Linearly fewer of the large ones.
fn block(rng: &mut Rng) -> Block {
    let mut block = Block::new(rng.within(LOW, HIGH).min(rng.within(LOW, HIGH)));
    block.touch_end();
    block
}
