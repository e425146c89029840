//! Like sh8bench: threads with blocks of mixed sizes, half of which they free in a random order, and the other half of
//! which another thread frees.

use std::sync::Mutex;

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const BLOCKS: usize = 2000;

/// In each turn a thread leaves a parcel and takes the oldest that it finds.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let turns = load.times(1000);
    let left: Mutex<Vec<Vec<Block>>> = Mutex::new(Vec::new());
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        for _ in 0..turns {
            let mut mine: Vec<Block> = (0..BLOCKS).map(|_| Block::new(size(&mut rng))).collect();
            rng.shuffle(&mut mine);
            let theirs = mine.split_off(BLOCKS / 2);
            drop(mine);
            let mut left = left.lock().expect("nobody panics with the lock");
            left.push(theirs);
            // A few wait there, so that the taker is mostly another thread.
            let found = if left.len() > 4 { Some(left.remove(0)) } else { None };
            drop(left);
            drop(found);
        }
    });
    (turns * BLOCKS * load.threads) as u64
}

/// Most are small.
fn size(rng: &mut Rng) -> usize {
    match rng.below(100) {
        0..60 => rng.within(8, 64),
        60..90 => rng.within(64, 256),
        90..99 => rng.within(256, 1024),
        _ => rng.within(1024, 8192),
    }
}
