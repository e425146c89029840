//! Large blocks at hand: who frees one, who asks for one, and who changes the hints.

use loom::sync::atomic::AtomicU32;
use std::sync::Arc;

use super::runner::check;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frame_table::{Counts, FrameTable, FrameWord, Kind};
use crate::large::Ready;
use crate::order::Order;

/// Frames of a block.
const COUNT: usize = 1;

/// The words of two blocks that are lent, and the one place for hints.
struct World {
    words: [AtomicU32; 2],
    ready: Ready,
}

impl World {
    fn new() -> Arc<Self> {
        let lent = FrameWord::held(Kind::LargeHead, Order::ZERO).with_above(COUNT as u32);
        Arc::new(Self { words: core::array::from_fn(|_| AtomicU32::new(lent.into_bits())), ready: Ready::new() })
    }

    fn table(&self) -> FrameTable<'_> {
        FrameTable::new(&self.words, 0)
    }

    fn block(head: u32) -> FrameSpan {
        FrameSpan::new(Pfn::new(head as usize), FrameCount::new(COUNT)).unwrap()
    }

    /// What a free does; answers the block that it has kept, whose hint it has displaced.
    fn free(&self, head: u32) -> Option<u32> {
        let count = FrameCount::new(COUNT);
        assert_eq!(self.table().make_ready(head, Some(count), COUNT), Some(count), "a right free was refused");
        self.ready.show(Self::block(head)).filter(|&before| self.keep(before)).map(head_of)
    }

    fn keep(&self, block: FrameSpan) -> bool {
        self.table().take_ready(head_of(block), block.count(), Kind::LargeKept, Counts::exact(block.count()))
    }

    /// What a request does.
    fn alloc(&self) -> Option<u32> {
        let block = self.ready.look(FrameCount::new(COUNT))?;
        let counts = Counts::exact(block.count());
        self.table().take_ready(head_of(block), block.count(), Kind::LargeHead, counts).then(|| head_of(block))
    }

    /// What trimming does: all that can be found.
    fn find_all(&self) -> Vec<u32> {
        self.ready.take().filter(|&block| self.keep(block)).map(head_of).collect()
    }
}

fn head_of(block: FrameSpan) -> u32 {
    block.start().number() as u32
}

/// Threads: each frees a block, again and again has had the place of the hint before, and both want the one place.
///
/// Property: each block is found once, by who has displaced its hint or by who trims afterwards.
///
/// * `ready_unseen`: who frees may see its own hint there still, after the other has not seen its block ready;
/// * `hint_unseen`: the same, from the other side.
fn two_hints() {
    let world = World::new();
    // A hint from before leads to the first block, which has been lent since.
    assert_eq!(world.ready.show(World::block(0)), None);
    let other = loom::thread::spawn({
        let world = world.clone();
        move || world.free(1)
    });
    let mut found: Vec<u32> = world.free(0).into_iter().collect();
    found.extend(other.join().unwrap());
    found.extend(world.find_all());
    found.sort_unstable();
    assert_eq!(found, [0, 1], "a block is lost, or had twice");
}

#[test]
fn a_block_at_hand_is_found_by_somebody() {
    check("ready_hints", &["ready_unseen", "hint_unseen"], two_hints);
}

/// Threads: one asks for a block that is ready, one frees another of its size and puts the first away.
///
/// Property: one of them has it.
///
/// * `ready_twice`: the word is looked at and then written, not exchanged.
fn taken_and_put_away() {
    let world = World::new();
    assert_eq!(world.free(0), None);
    let taker = loom::thread::spawn({
        let world = world.clone();
        move || world.alloc()
    });
    let mut found: Vec<u32> = world.free(1).into_iter().collect();
    found.extend(taker.join().unwrap());
    found.extend(world.find_all());
    found.sort_unstable();
    assert_eq!(found, [0, 1], "a block is lost, or had twice");
}

#[test]
fn a_block_at_hand_is_had_once() {
    check("ready_taken", &["ready_twice"], taken_and_put_away);
}
