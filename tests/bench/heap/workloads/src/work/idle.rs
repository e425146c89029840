//! Many threads that have freed what they had and sleep: a server after its busy hour.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const THREADS: usize = 200;
const EACH: usize = 2 << 20;
const SLEEP: Duration = Duration::from_secs(2);
const PAGE: usize = 4096;

/// A unit is a thread with 2 MB.
pub fn run(load: &Load, meter: &mut Meter) -> u64 {
    let threads = load.times(THREADS).max(2);
    let (full, measured, freed, end) = (barrier(threads), barrier(threads), barrier(threads), barrier(threads));
    thread::scope(|scope| {
        for index in 0..threads {
            let (full, measured, freed, end) = (&full, &measured, &freed, &end);
            scope.spawn(move || {
                let blocks = fill(index);
                full.wait();
                measured.wait();
                drop(blocks);
                freed.wait();
                end.wait();
            });
        }
        full.wait();
        meter.note_resident("rss-live");
        measured.wait();
        freed.wait();
        thread::sleep(SLEEP / load.hurry as u32);
        meter.note_resident("rss-idle");
        end.wait();
    });
    meter.stop();
    meter.note_resident("rss-joined");
    threads as u64
}

/// For the threads and the one that measures.
fn barrier(threads: usize) -> Barrier {
    Barrier::new(threads + 1)
}

fn fill(index: usize) -> Vec<Block> {
    let mut rng = Rng::new(index);
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while bytes < EACH {
        let mut block = Block::new(rng.within(16, 2000));
        block.touch(PAGE);
        block.touch_end();
        bytes += block.bytes();
        blocks.push(block);
    }
    blocks
}
