//! The last frame can be had, no frame twice, and all come home.

use pagemill::{AllocError, AllocFlags, Config, Frames, Order};

use crate::home::settle;
use crate::marks::Marks;
use crate::rng::Rng;
use crate::sim::{Range, Sim};
use crate::world::World;

/// Everything there is, from all CPUs at once, twice; given back in runs, then frame by frame.
pub(super) fn exhaust_and_refill<W: World>(world: &W) {
    let frames = world.frames();
    let managed: usize = frames.zone_infos().map(|zone| zone.managed).sum();
    let largest = if managed <= world.effort() { 0 } else { 9 };
    exhaust(world, frames, largest);
    // Without watermarks the very last frame can be had.
    let ranges = [Range::normal(0, 3, 5000), Range::normal(0, (1 << 18) - 700, 1500)];
    for largest in [0, 9] {
        Sim::one_node(&ranges).run::<W, pagemill::Checked>(world, |frames| {
            let taken = exhaust(world, frames, largest);
            assert_eq!(taken, 6500, "the last frame can be had");
        });
    }
}

/// Takes all there is, and gives it back, twice; answers how many frames there were.
pub(super) fn exhaust<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>, largest: u32) -> usize {
    let taken = [false, true].map(|singly| {
        Marks::with(world, frames, |marks| {
            take_all(world, frames, marks, largest);
            let taken = marks.count();
            let parts = world.cpus() as usize;
            world.on_all(&|cpu| marks.free_part(frames, (cpu as usize, parts), singly));
            settle(world, frames);
            taken
        })
    });
    // CPUs that look at a mark at the same time may step over it by what each takes, also for its pool.
    let is_marked = frames.zone_infos().any(|zone| zone.watermarks.min != 0);
    let slack = if is_marked { (world.cpus() as usize) << largest.max(7) } else { 0 };
    assert!(taken[0].abs_diff(taken[1]) <= slack, "{} frames, then {}", taken[0], taken[1]);
    taken[0]
}

/// Takes frames on all CPUs until none has any left to take, in blocks of up to order `largest`.
pub(super) fn take_all<W: World, C: Config + Sync>(
    world: &W,
    frames: &Frames<'_, W::P, C>,
    marks: &Marks<'_>,
    largest: u32,
) {
    let flags = AllocFlags::MOVABLE | AllocFlags::ATOMIC;
    loop {
        let before = marks.count();
        world.on_all(&|cpu| take_some(frames, marks, largest, flags, &mut Rng::new(u64::from(cpu))));
        // What lies in other CPUs' pools when one of them gives up comes out now.
        settle(world, frames);
        if marks.count() == before {
            break;
        }
    }
    let last = frames.alloc(Order::ZERO, flags);
    assert_eq!(last, Err(AllocError::NoMemory));
}

/// Takes frames on the calling CPU until it gets no more.
fn take_some<P: pagemill::Platform, C: Config>(
    frames: &Frames<'_, P, C>,
    marks: &Marks<'_>,
    mut largest: u32,
    flags: AllocFlags,
    rng: &mut Rng,
) {
    loop {
        let order = Order::new(rng.below(largest as usize + 1) as u32).unwrap();
        match frames.alloc(order, flags) {
            Ok(block) => {
                let (head, order) = block.into_raw();
                marks.note(head, order.frames());
            }
            Err(AllocError::NoMemory) if order > Order::ZERO => largest = order.index() as u32 - 1,
            Err(AllocError::NoMemory) => return,
            Err(error) => panic!("got no frames: {error}"),
        }
    }
}
