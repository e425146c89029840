//! A program forks while its threads allocate, and the child goes on allocating: a lock that another thread held at
//! that moment is held for ever in the child.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::os::succeeds_in_fork;
use crate::rng::Rng;

const FORKS: usize = 200;

/// Who hangs this often has been shown to hang.
const ENOUGH: usize = 3;

/// A unit is a fork. So many threads allocate meanwhile.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let forks = load.times(FORKS);
    let end = AtomicBool::new(false);
    let mut hangs = 0;
    let mut made = 0;
    thread::scope(|scope| {
        for index in 0..load.threads {
            let end = &end;
            scope.spawn(move || {
                let mut rng = Rng::new(index);
                while !end.load(Ordering::Relaxed) {
                    allocate(&mut rng);
                }
            });
        }
        while made < forks && hangs < ENOUGH {
            made += 1;
            hangs += usize::from(!succeeds_in_fork(|| allocate(&mut Rng::new(made))));
        }
        end.store(true, Ordering::Relaxed);
    });
    meter.note("hangs", "hangs", hangs as f64);
    made as u64
}

fn allocate(rng: &mut Rng) {
    let mut blocks: Vec<Block> = (0..200).map(|_| Block::new(rng.doubling(16, 1 << 17))).collect();
    rng.shuffle(&mut blocks);
}
