//! Maps that few machines have, simulated.

use pagemill::{AllocFlags, Checked, Config, FrameCount, FrameSpan, Frames, Order, Pfn, Platform, Request, ZoneKind};

use super::exhaust::exhaust;
use crate::home::assert_valid;
use crate::load::with_load;
use crate::sim::{Range, Sim, node, span};
use crate::world::World;

/// 1 MiB, 16 MiB, 4 GiB and 1 TiB, in frames.
const MIB: usize = 1 << 8;
const GIB4: usize = 4 << 18;
const TIB: usize = 1 << 28;

/// Asserts what a map comes to, exhausts it twice, and puts a load on it.
fn check<W: World>(world: &W, sim: &Sim<'_>, present: usize, reserved: usize) {
    sim.run::<W, Checked>(world, |frames| {
        let census = frames.census();
        assert_eq!((census.present, census.reserved, census.free), (present, reserved, present - reserved));
        let largest = if present <= world.effort() { 0 } else { 9 };
        assert_eq!(exhaust(world, frames, largest), present - reserved, "the last frame can be had");
        not_lent(sim, frames);
        with_load(world, frames, 64 * world.cpus() as usize, |load| load.run(world.effort() / 32));
    });
}

/// Frames that are reserved or in a hole cannot be had by name either.
fn not_lent<P: Platform, C: Config>(sim: &Sim<'_>, frames: &Frames<'_, P, C>) {
    for &reserved in sim.reserved {
        let first = reserved.start();
        if frames.alloc_at(FrameSpan::new(first, FrameCount::new(1)).unwrap()).is_ok() {
            panic!("{first:?} is reserved and was lent");
        }
    }
    let end = sim.hull().end();
    assert!(frames.alloc_at(FrameSpan::new(end, FrameCount::new(1)).unwrap()).is_err());
}

/// A machine of 16 MiB, as a PC has it: a hole below 1 MiB, the image reserved, everything in reach of ancient devices.
pub(super) fn machine_of_16_mib<W: World>(world: &W) {
    let dma = |start, frames| Range { node: 0, kind: ZoneKind::Dma, start, frames };
    let ranges = [dma(1, 0x9e), dma(MIB, 15 * MIB)];
    let image = [span(MIB, 200)];
    let sim = Sim { reserved: &image, ..Sim::one_node(&ranges) };
    check(world, &sim, 0x9e + 15 * MIB, 200);
}

/// A machine of 1 MiB: 640 KiB, in which nothing is large.
pub(super) fn machine_of_1_mib<W: World>(world: &W) {
    check(world, &Sim::one_node(&[Range::normal(0, 0, 160)]), 160, 0);
    // And of next to nothing.
    check(world, &Sim::one_node(&[Range::normal(0, 77, 1)]), 1, 0);
}

/// Many ranges of odd lengths with holes between them, added from the top and from the bottom.
pub(super) fn holes<W: World>(world: &W) {
    const COUNTS: [usize; 12] = [1, 2, 3, 63, 64, 65, 511, 512, 513, 1000, 2049, 31];
    let mut start = 0x7f;
    let mut ranges = COUNTS.map(|frames| {
        let range = Range::normal(0, start, frames);
        // Some ranges touch, which still are two; some share a tree, some do not.
        start += frames + frames % 5 * 100;
        range
    });
    let present = COUNTS.iter().sum();
    check(world, &Sim::one_node(&ranges), present, 0);
    ranges.reverse();
    check(world, &Sim::one_node(&ranges), present, 0);
    ranges.swap(0, 6);
    ranges.swap(3, 9);
    check(world, &Sim::one_node(&ranges), present, 0);
}

/// Node 0 on both sides of node 1, borders within trees and within rows of 64 frames.
pub(super) fn node_in_two_ranges<W: World>(world: &W) {
    let ranges = [
        Range::normal(0, 100, 5000),
        Range::normal(1, 5100, 3001),
        Range::normal(0, 8101, 3000),
        Range::normal(2, 11101, 700),
    ];
    let sim = Sim { nodes_with_cpus: 2, ..Sim::nodes(3, &ranges) };
    check(world, &sim, 11701, 0);
    sim.run::<W, Checked>(world, |frames| {
        let zone = frames.zone_infos().next().unwrap();
        assert_eq!((zone.spanned, zone.present), (span(100, 11001), 8000), "spanned covers the hole, present does not");
        // Runs do not cross from one range to the next, though the numbers do.
        let run = frames.alloc_range(&Request::frames(FrameCount::new(4000))).unwrap();
        assert!(ranges[0].span().covers(run.span()));
        frames.free_range(run).unwrap();
    });
}

/// Reserved ranges that overlap one another, reach beyond memory, and repeat.
pub(super) fn overlapping_reserves<W: World>(world: &W) {
    let reserved = [span(70, 10), span(75, 20), span(0, 66), span(1900, 10_000), span(92, 1), span(70, 10)];
    let ranges = [Range::normal(0, 60, 1000), Range::normal(0, 1500, 500)];
    let sim = Sim { reserved: &reserved, ..Sim::one_node(&ranges) };
    check(world, &sim, 1500, 6 + 25 + 100);
    sim.run::<W, Checked>(world, |frames| {
        // What boot needed comes into service later, and goes out again.
        frames.release(span(70, 25)).unwrap();
        assert_eq!(frames.census().reserved, 6 + 100);
        assert_valid(world, frames);
        let range = frames.alloc_at(span(70, 25)).unwrap();
        frames.free_range(range).unwrap();
        frames.reserve(span(70, 25)).unwrap();
    });
}

/// Memory on both sides of 4 GiB, and far above it.
pub(super) fn above_4_gib<W: World>(world: &W) {
    let ranges = [
        Range { node: 0, kind: ZoneKind::Dma32, start: GIB4 - 5000, frames: 4000 },
        Range::normal(0, GIB4, 3000),
        Range::normal(1, GIB4 + (1 << 18) - 100, 1000),
        Range::normal(1, TIB / 4 - 7, 2000),
    ];
    let sim = Sim::nodes(2, &ranges);
    check(world, &sim, 10_000, 0);
    sim.run::<W, Checked>(world, |frames| {
        let low = frames.alloc(Order::new(5).unwrap(), AllocFlags::DMA32).unwrap();
        assert!(low.head() < Pfn::new(GIB4));
        frames.free(low).unwrap();
    });
}

/// A node without CPUs, near memory and far.
pub(super) fn memory_only_node<W: World>(world: &W) {
    for kind in [ZoneKind::Normal, ZoneKind::Far] {
        let ranges = [Range::normal(0, 0, 3000), Range { node: 1, kind, start: 4096, frames: 3000 }];
        let sim = Sim { nodes_with_cpus: 1, distances: &[(0, 1, 17)], ..Sim::nodes(2, &ranges) };
        check(world, &sim, 6000, 0);
    }
    // Far memory is not taken by accident.
    let ranges = [Range::normal(0, 0, 64), Range { node: 1, kind: ZoneKind::Far, start: 4096, frames: 640 }];
    let sim = Sim { nodes_with_cpus: 1, ..Sim::nodes(2, &ranges) };
    sim.run::<W, Checked>(world, |frames| {
        let all = frames.alloc_range(&Request::frames(FrameCount::new(64))).unwrap();
        let one = |flags| frames.alloc(Order::ZERO, flags);
        assert!(one(AllocFlags::empty()).is_err());
        for flags in [AllocFlags::FAR, AllocFlags::MOVABLE] {
            let far = one(flags).unwrap();
            assert!(far.head() >= Pfn::new(4096));
            frames.free(far).unwrap();
        }
        frames.free_range(all).unwrap();
        assert_eq!(frames.distance(node(0), node(1)), Some(20));
    });
}

/// 3 TiB, once full and once in few small pieces: only where metadata that nobody touches costs nothing.
pub(super) fn sparse_3_tib<W: World>(world: &W) {
    if !world.is_lazy() {
        world.say(format_args!("left out: here metadata costs memory before it is touched"));
        return;
    }
    // As long as an arena and a bit, one of them longer than five.
    let pieces = [0, 1, 2, 3, 4, 5, 6, 7].map(|place| {
        let frames = if place == 5 { 6 << 18 } else { (1 << 16) + place };
        Range::normal(place % 3, place * 3 * TIB / 8 + place, frames)
    });
    let full = [0, 1, 2].map(|place| Range::normal(place, place * TIB, TIB));
    for ranges in [&pieces[..], &full[..]] {
        let present: usize = ranges.iter().map(|range| range.frames).sum();
        Sim::nodes(3, ranges).run::<W, Checked>(world, |frames| {
            assert_eq!(frames.census().free, present);
            let run = frames.alloc_range(&Request::frames(FrameCount::new((4 << 18) + 1))).unwrap();
            let (first, rest) = run.split_at(FrameCount::new(1 << 18)).unwrap();
            frames.free_range(rest).unwrap();
            frames.free_range(first).unwrap();
            with_load(world, frames, 1000, |load| load.run(world.effort() / 8));
        });
    }
}
