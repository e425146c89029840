//! Memory that leaves while it is used.

use pagemill::{AllocFlags, Checked, Config, FrameCount, FrameSpan, Frames, Order, Platform, SetupError};

use crate::flag::Flag;
use crate::home::{assert_valid, settle};
use crate::load::with_load;
use crate::marks::Marks;
use crate::rng::Rng;
use crate::sim::{Range, Sim, span};
use crate::world::World;

/// A range goes out of service while all other CPUs allocate and free all over it, stays out, and comes back.
pub(super) fn offline_under_load<W: World>(world: &W) {
    const FRAMES: usize = 1 << 14;
    let ranges = [Range::normal(0, 33, FRAMES), Range::normal(1, 1 << 16, FRAMES)];
    let sim = Sim::nodes(2, &ranges);
    sim.run::<W, Checked>(world, |frames| {
        waits_for_what_is_lent(world, frames);
        // Odd borders, several trees, and the very first frames, which are lent first.
        for leaving in [span(33, 3000), span(1000, 64), span((1 << 16) + 511, 1026)] {
            under_load(world, frames, leaving);
        }
    });
    if let Some(leaving) = part_of_machine(world.frames()) {
        under_load(world, world.frames(), leaving);
    }
}

/// A stretch of the machine's largest zone that is free now.
fn part_of_machine<P: Platform, C: Config>(frames: &Frames<'_, P, C>) -> Option<FrameSpan> {
    let huge = frames.alloc_range(&pagemill::Request::block(Order::new(9)?)).ok()?;
    let span = huge.span();
    frames.free_range(huge).unwrap();
    Some(span)
}

fn waits_for_what_is_lent<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    let kept = frames.alloc_at(span(200, 30)).unwrap();
    let leaving = span(150, 100);
    assert_eq!(frames.offline(leaving), Err(SetupError::StillLent(FrameCount::new(30))));
    assert_eq!(frames.offline(span(1000, 8)), Err(SetupError::Busy(leaving)), "one range of an arena at a time");
    assert_valid(world, frames);
    assert_eq!(frames.census().offline, 70);
    assert!(frames.alloc_at(span(150, 1)).is_err());
    let (first, rest) = kept.split_at(FrameCount::new(7)).unwrap();
    frames.free_range(rest).unwrap();
    assert_eq!(frames.offline(leaving), Err(SetupError::StillLent(FrameCount::new(7))));
    // Giving up brings everything back; what was still lent never left.
    frames.online(leaving).unwrap();
    frames.free_range(first).unwrap();
    assert_eq!(frames.census().offline, 0);
    frames.offline(leaving).unwrap();
    assert_eq!(frames.census().offline, 100);
    frames.online(leaving).unwrap();
}

fn under_load<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>, leaving: FrameSpan) {
    let before = frames.census().offline;
    let gone = Flag::new();
    with_load(world, frames, 64 * world.cpus() as usize, |load| {
        load.run(world.effort() / 32);
        world.on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            if cpu == 0 {
                let _gone = gone.raise_at_end();
                // This CPU takes part in the load, so that the range leaves even if it is alone.
                while !leaves(frames, leaving) {
                    (0..64).for_each(|_| load.step(&mut rng));
                }
                return;
            }
            while !gone.is_raised() {
                load.step(&mut rng);
            }
        });
        load.run(world.effort() / 32);
    });
    settle(world, frames);
    assert_valid(world, frames);
    assert_eq!(frames.census().offline - before, leaving.count().get());
    nothing_of_it_is_lent(world, frames, leaving);
    frames.online(leaving).unwrap();
    assert_eq!(frames.census().offline, before);
    let range = frames.alloc_at(leaving).unwrap();
    frames.free_range(range).unwrap();
}

fn leaves<P: Platform, C: Config>(frames: &Frames<'_, P, C>, leaving: FrameSpan) -> bool {
    match frames.offline(leaving) {
        Ok(()) => true,
        Err(SetupError::StillLent(_)) => false,
        Err(error) => panic!("{leaving:?} does not leave: {error}"),
    }
}

/// Takes what there is in blocks of up to 16 frames, and finds none of the range.
fn nothing_of_it_is_lent<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>, leaving: FrameSpan) {
    Marks::with(world, frames, |marks| {
        for _ in 0..world.effort() / 8 {
            let order = Order::new(4).unwrap();
            let Ok(head) = frames.alloc_raw(order, AllocFlags::empty()) else { break };
            let span = FrameSpan::new(head, order.count()).unwrap();
            assert_eq!(span.intersection(leaving), None, "a frame that is offline was lent");
            marks.note(head, order.frames());
        }
        marks.free_all(frames);
    });
}
