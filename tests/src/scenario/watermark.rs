//! What happens when memory runs low.

use core::sync::atomic::{AtomicU32, Ordering};

use pagemill::{AllocError, AllocFlags, Checked, Config, Frames, NodeId, Order, Platform, Watermarks, ZoneKind};

use crate::home::settle;
use crate::marks::Marks;
use crate::sim::{Range, Sim, node};
use crate::world::World;

/// How often the hook was told of a low node.
static TOLD: AtomicU32 = AtomicU32::new(0);
static HOOK: fn(NodeId) = |_| {
    TOLD.fetch_add(1, Ordering::Relaxed);
};

/// Below low somebody is told, below min only those are served that cannot wait, and they leave half of the reserve.
pub(super) fn watermarks<W: World>(world: &W) {
    const FRAMES: usize = 4096;
    let marks_of_zone = Watermarks { min: 400, low: 500, high: 600 };
    Sim::one_node(&[Range::normal(0, 64, FRAMES)]).run::<W, Checked>(world, |frames| {
        frames.set_watermarks(node(0), ZoneKind::Normal, marks_of_zone).unwrap();
        frames.set_low_hook(&HOOK);
        Marks::with(world, frames, |marks| {
            TOLD.store(0, Ordering::Relaxed);
            let comfortable = take(frames, marks, AllocFlags::empty(), FRAMES - marks_of_zone.low);
            assert_eq!((comfortable, TOLD.load(Ordering::Relaxed)), (FRAMES - marks_of_zone.low, 0));
            let above_min = take(frames, marks, AllocFlags::empty(), FRAMES);
            assert_eq!(comfortable + above_min, FRAMES - marks_of_zone.min, "the reserve is kept");
            assert!(TOLD.load(Ordering::Relaxed) > 0, "background reclaim is told");
            refused_everywhere(world, frames);
            let reserve = take(frames, marks, AllocFlags::ATOMIC, FRAMES);
            assert_eq!(reserve, marks_of_zone.min / 2, "half of the reserve is for those that cannot wait");
            marks.free_all(frames);
        });
    });
    of_the_machine(world.frames());
    between_nodes(world);
}

/// Takes single frames, at most `limit`; answers how many it got.
fn take<P: Platform, C: Config>(
    frames: &Frames<'_, P, C>,
    marks: &Marks<'_>,
    flags: AllocFlags,
    limit: usize,
) -> usize {
    for taken in 0..limit {
        match frames.alloc_raw(Order::ZERO, flags) {
            Ok(pfn) => marks.note(pfn, 1),
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                return taken;
            }
        }
    }
    limit
}

fn refused_everywhere<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    world.on_all(&|_| {
        for flags in [AllocFlags::empty(), AllocFlags::MOVABLE, AllocFlags::TRY] {
            assert_eq!(frames.alloc(Order::ZERO, flags), Err(AllocError::NoMemory));
        }
    });
}

/// The machine's own marks are in order, and its free memory is above them.
fn of_the_machine<P: Platform, C: Config>(frames: &Frames<'_, P, C>) {
    for zone in frames.zone_infos() {
        let Watermarks { min, low, high } = zone.watermarks;
        assert!(min <= low && low <= high && high <= zone.managed, "{zone:?}");
    }
}

/// A node below its low mark sends requests on while another is comfortable, and serves them when none is.
fn between_nodes<W: World>(world: &W) {
    const FRAMES: usize = 2048;
    let ranges = [Range::normal(0, 0, FRAMES), Range::normal(1, FRAMES, FRAMES)];
    let sim = Sim { nodes_with_cpus: 1, ..Sim::nodes(2, &ranges) };
    sim.run::<W, Checked>(world, |frames| {
        for number in 0..2 {
            let marks = Watermarks { min: 100, low: 300, high: 400 };
            frames.set_watermarks(node(number), ZoneKind::Normal, marks).unwrap();
        }
        let free = |number| frames.zone_infos().find(|zone| zone.node == node(number)).map(|zone| zone.free);
        Marks::with(world, frames, |marks| {
            take(frames, marks, AllocFlags::empty(), 2 * (FRAMES - 300));
            settle(world, frames);
            assert_eq!((free(0), free(1)), (Some(300), Some(300)), "both down to low first");
            take(frames, marks, AllocFlags::empty(), 200);
            settle(world, frames);
            assert_eq!((free(0), free(1)), (Some(100), Some(300)), "then the nearest down to min");
            marks.free_all(frames);
        });
    });
}
