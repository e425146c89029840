//! Blocks freed in any parts.

use pagemill::{AllocFlags, Checked, Config, FrameCount, FrameRange, Frames, Order, Pfn, Platform, Request};

use crate::home::{assert_valid, settle};
use crate::rng::Rng;
use crate::sim::{Range, Sim, span};
use crate::world::World;

/// Every way to cut a small block into parts, each freed from either end and then in some other order.
pub(super) fn partial_frees<W: World>(world: &W) {
    Sim::one_node(&[Range::normal(0, 5, 3000)]).run::<W, Checked>(world, |frames| {
        for log2 in 0..=4 {
            let order = Order::new(log2).unwrap();
            // As many cuts as there are borders between the frames; all of them unless there are too many.
            let cuts = 1usize << (order.frames() - 1);
            let step = (cuts * order.frames() / world.effort()).max(1) | 1;
            for cut in (0..cuts).step_by(step) {
                free_in_parts(frames, order, cut);
            }
            settle(world, frames);
            assert_valid(world, frames);
            assert_eq!(frames.census().lent(), 0);
        }
        inner_ranges(world, frames);
        merged_ranges(frames);
        odd_counts(frames);
    });
    // On every CPU of the machine itself at once, in random cuts.
    world.on_all(&|cpu| {
        let mut rng = Rng::new(u64::from(cpu));
        for _ in 0..200 {
            free_in_parts(world.frames(), Order::new(rng.below(5) as u32).unwrap(), rng.below(1 << 15));
        }
    });
}

/// The parts of `frames` frames that the set bits of `cut` separate.
fn parts(frames: usize, cut: usize) -> impl DoubleEndedIterator<Item = (usize, usize)> + Clone {
    let is_start = move |&place: &usize| place == 0 || cut >> (place - 1) & 1 == 1;
    (0..frames).filter(is_start).map(move |start| {
        let end = (start + 1..frames).find(is_start).unwrap_or(frames);
        (start, end - start)
    })
}

fn free_in_parts<P: Platform, C: Config>(frames: &Frames<'_, P, C>, order: Order, cut: usize) {
    for way in 0..3 {
        let head = frames.alloc_raw(order, AllocFlags::empty()).unwrap().number();
        let free = |(start, count)| frames.free_raw(Pfn::new(head + start), FrameCount::new(count)).unwrap();
        let parts = parts(order.frames(), cut);
        match way {
            0 => parts.for_each(free),
            1 => parts.rev().for_each(free),
            // Every second part, then the others.
            _ => {
                parts.clone().step_by(2).for_each(free);
                parts.skip(1).step_by(2).for_each(free);
            }
        }
    }
}

/// Any range inside a block first, and the frames around it one by one.
fn inner_ranges<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    let order = Order::new(3).unwrap();
    for (start, end) in (0..8).flat_map(|start| (start + 1..=8).map(move |end| (start, end))) {
        let head = frames.alloc_raw(order, AllocFlags::empty()).unwrap().number();
        frames.free_raw(Pfn::new(head + start), FrameCount::new(end - start)).unwrap();
        assert_eq!(frames.census().lent(), 8 - (end - start));
        for place in (0..start).chain(end..8) {
            frames.free_raw(Pfn::new(head + place), FrameCount::new(1)).unwrap();
        }
    }
    assert_valid(world, frames);
}

/// What was lent in pieces can be freed in one, across blocks and trees.
fn merged_ranges<P: Platform, C: Config>(frames: &Frames<'_, P, C>) {
    frames.drain();
    for count in [1, 2, 3, 64, 7, 500] {
        let mut next = 1000;
        while next < 2200 {
            let piece = count.min(2200 - next);
            let _ = frames.alloc_at(span(next, piece)).unwrap().into_raw();
            next += piece;
        }
        frames.free_range(FrameRange::from_raw(span(1000, 1200))).unwrap();
    }
}

/// Counts that are no powers of two come without their tails, at any alignment.
fn odd_counts<P: Platform, C: Config>(frames: &Frames<'_, P, C>) {
    for count in 1..200 {
        let align = 1 << (count % 8);
        let before = frames.census().lent();
        let range = frames.alloc_range(&Request::frames(FrameCount::new(count)).aligned(align)).unwrap();
        assert_eq!((range.span().count().get(), range.span().start().number() % align), (count, 0));
        assert_eq!(frames.census().lent() - before, count);
        match range.split_at(FrameCount::new(count / 3)) {
            Ok((first, rest)) => {
                frames.free_range(rest).unwrap();
                frames.free_range(first).unwrap();
            }
            Err(whole) => frames.free_range(whole).unwrap(),
        }
    }
}
