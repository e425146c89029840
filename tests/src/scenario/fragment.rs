//! Memory in pieces, and whole again.

use pagemill::{AllocError, AllocFlags, Checked, Config, FrameCount, Frames, Order, Pfn};

use super::exhaust::take_all;
use crate::home::settle;
use crate::marks::Marks;
use crate::sim::{Range, Sim};
use crate::world::World;

/// Takes all single frames and gives every second one back: half the memory is free and no block of two is to be had.
/// When the other half is back, so are the blocks.
pub(super) fn fragment_and_coalesce<W: World>(world: &W) {
    const FRAMES: usize = 4096;
    Sim::one_node(&[Range::normal(0, 0, FRAMES)]).run::<W, Checked>(world, |frames| {
        Marks::with(world, frames, |marks| {
            take_all(world, frames, marks, 0);
            assert_eq!(marks.count(), FRAMES);
            free_odd(frames, FRAMES);
            settle(world, frames);
            in_pieces(frames, FRAMES / 2);
            free_even(frames, FRAMES);
        });
    });
    pieces_of_huge_frames(world);
}

fn free_odd<P: pagemill::Platform, C: Config>(frames: &Frames<'_, P, C>, count: usize) {
    for number in (1..count).step_by(2) {
        frames.free_raw(Pfn::new(number), FrameCount::new(1)).unwrap();
    }
}

/// From the top, so that blocks coalesce from the other side than they were split.
fn free_even<P: pagemill::Platform, C: Config>(frames: &Frames<'_, P, C>, count: usize) {
    for number in (0..count).step_by(2).rev() {
        frames.free_raw(Pfn::new(number), FrameCount::new(1)).unwrap();
    }
}

fn in_pieces<P: pagemill::Platform, C: Config>(frames: &Frames<'_, P, C>, free: usize) {
    let zone = frames.zone_infos().next().unwrap();
    assert_eq!((zone.free, zone.blocks[0], zone.free_blocks()), (free, free, free));
    let pair = Order::new(1).unwrap();
    assert_eq!(frames.alloc(pair, AllocFlags::empty()), Err(AllocError::NoMemory));
    // Towards 1: because it is in pieces, not because memory is short.
    assert!(zone.fragmentation_index(pair).is_some_and(|index| index >= 490), "{:?}", zone.fragmentation_index(pair));
    assert_eq!((zone.unusable_free_index(pair), zone.unusable_free_index(Order::ZERO)), (1000, 0));
}

/// On the machine itself: single frames of huge blocks come back one by one, and the blocks with them.
fn pieces_of_huge_frames<W: World>(world: &W) {
    let frames = world.frames();
    let huge = Order::new(9).unwrap();
    world.on_all(&|cpu| {
        let Ok(block) = frames.alloc(huge, AllocFlags::empty()) else { return };
        let head = block.into_raw().0.number();
        // Every CPU in an order of its own: strides that are coprime to the frames reach all of them.
        let stride = 2 * cpu as usize + 3;
        for step in 0..huge.frames() {
            let pfn = Pfn::new(head + step * stride % huge.frames());
            frames.free_raw(pfn, FrameCount::new(1)).unwrap();
        }
    });
}
