use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;
use crate::config::Config;
use crate::error::AllocError;
use crate::flags::AllocFlags;
use crate::frames::Request;
use crate::testing::{Sim, machine, span};

/// Memory that starts as zeros, and the level.
struct Zeros<const CHECKED: bool>;

impl<const CHECKED: bool> Config for Zeros<CHECKED> {
    const CHECKED: bool = CHECKED;
    const FRESH_FRAMES_ARE_ZERO: bool = true;
}

const ALL: FrameCount = FrameCount::new(usize::MAX);

/// A machine, and which frames hold what somebody wrote.
struct World<C: Config> {
    frames: Frames<'static, Sim, C>,
    written: BTreeSet<usize>,
    lent: Vec<FrameSpan>,
}

impl<C: Config> World<C> {
    fn new(count: usize) -> Self {
        Self { frames: machine(span(0, count), 1), written: BTreeSet::new(), lent: Vec::new() }
    }

    fn alloc(&mut self, count: usize) -> Result<(), AllocError> {
        let span = self.frames.alloc_range(&Request::frames(FrameCount::new(count)))?.into_raw();
        let range = span.start().number()..span.end().number();
        if self.frames.are_clean(span) {
            assert!(self.written.range(range.clone()).next().is_none(), "{span:?} is clean");
        }
        self.written.extend(range);
        self.lent.push(span);
        Ok(())
    }

    fn free(&mut self, place: usize) {
        let span = self.lent.swap_remove(place);
        self.frames.free_raw(span.start(), span.count()).unwrap();
    }

    fn report(&mut self, least: Order, most: FrameCount) -> usize {
        self.report_units(Order::ZERO, least, most)
    }

    fn report_units(&mut self, unit: Order, least: Order, most: FrameCount) -> usize {
        let (lent, written) = (&self.lent, &mut self.written);
        let reporter = |run: FrameSpan| {
            assert!(lent.iter().all(|span| span.end() <= run.start() || run.end() <= span.start()), "{run:?} is lent");
            let whole = [run.start().number(), run.count().get()].map(|number| number.is_multiple_of(unit.frames()));
            assert_eq!(whole, [true; 2], "{run:?} is cut");
            (run.start().number()..run.end().number()).for_each(|frame| {
                written.remove(&frame);
            });
            true
        };
        report(&self.frames, [unit, least], most, reporter)
    }
}

/// Reports frames that have nothing behind them: nobody can be told wrong.
#[allow(unsafe_code, reason = "see above")]
fn report<C: Config>(
    frames: &Frames<'static, Sim, C>,
    [unit, least]: [Order; 2],
    most: FrameCount,
    reporter: impl FnMut(FrameSpan) -> bool,
) -> usize {
    // SAFETY: nobody touches these frames.
    unsafe { frames.report_units(unit, least, most, reporter) }.get()
}

#[test]
fn what_was_freed_is_reported_once_and_clean_again() {
    let mut world = World::<Zeros<true>>::new(4096);
    assert_eq!(world.report(Order::ZERO, ALL), 0, "nobody has had any");
    world.alloc(1000).unwrap();
    assert_eq!(world.report(Order::ZERO, ALL), 0, "they are lent");
    world.free(0);
    assert_eq!(world.frames.dirty_frames().get(), 1000);
    let kept = world.frames.alloc_at(span(700, 1)).unwrap();
    assert_eq!(world.report(Order::new(9).unwrap(), ALL), 512, "one huge frame of two is free as a whole");
    assert_eq!(world.frames.dirty_frames().get(), 487);
    assert_eq!(world.report(Order::ZERO, ALL), 487);
    world.frames.free_range(kept).unwrap();
    world.frames.drain_cpu();
    assert_eq!(world.report(Order::ZERO, ALL), 1);
    assert_eq!((world.report(Order::ZERO, ALL), world.frames.dirty_frames().get()), (0, 0));
    world.frames.validate().unwrap();
    let again = world.frames.alloc_range(&Request::frames(FrameCount::new(1000))).unwrap();
    assert!(world.frames.are_clean(again.span()));
    world.frames.free_range(again).unwrap();
}

#[test]
fn a_reporter_that_cannot_leaves_them_dirty() {
    let mut world = World::<Zeros<false>>::new(4096);
    world.alloc(1024).unwrap();
    world.free(0);
    let mut calls = 0;
    let refuse = |_| {
        calls += 1;
        false
    };
    assert_eq!(report(&world.frames, [Order::ZERO; 2], ALL, refuse), 0);
    assert_eq!((calls, world.frames.dirty_frames().get()), (1, 1024));
    assert_eq!(world.report(Order::ZERO, FrameCount::new(1)), 512, "whole runs, until there are enough");
    assert_eq!(world.report(Order::ZERO, ALL), 512);
}

#[test]
fn units_are_reported_whole_if_all_of_one_is_free() {
    let mut world = World::<Zeros<true>>::new(4096);
    world.alloc(200).unwrap();
    let start = world.lent[0].start();
    assert!(start.number().is_multiple_of(16), "{start:?}");
    // The first 40 stay lent.
    world.lent[0] = FrameSpan::new(start, FrameCount::new(40)).unwrap();
    world.frames.free_raw(start + FrameCount::new(40), FrameCount::new(160)).unwrap();
    let unit = Order::new(4).unwrap();
    let dirty = world.frames.dirty_frames().get();
    // From 48 to 208: eight dirty ones lie in a unit with others that are lent.
    assert_eq!((dirty, world.report_units(unit, Order::ZERO, ALL)), (160, 152));
    assert_eq!((world.frames.dirty_frames().get(), world.report(Order::ZERO, ALL)), (8, 8));
}

#[test]
fn a_reporter_may_allocate_and_free() {
    let frames = machine::<Zeros<true>>(span(0, 4096), 1);
    let range = frames.alloc_range(&Request::frames(FrameCount::new(2048))).unwrap();
    frames.free_range(range).unwrap();
    let reported = report(&frames, [Order::ZERO; 2], ALL, |run| {
        let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
        assert!(!(run.start()..run.end()).contains(&block.head()), "what is reported is nobody's");
        frames.free(block).unwrap();
        true
    });
    assert!(reported >= 1024, "{reported}");
    frames.drain_cpu();
    frames.validate().unwrap();
}

fn random<C: Config>(seed: u64, steps: usize) {
    let mut world = World::<C>::new(3 * 512 + 100);
    let mut state = seed;
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % end
    };
    for _ in 0..steps {
        match below(16) {
            0..8 => {
                let most = 1 << below(9);
                let _ = world.alloc(1 + below(most));
            }
            8..15 if !world.lent.is_empty() => world.free(below(world.lent.len())),
            _ => {
                let [unit, least] = [6, 10].map(|end| Order::new(below(end) as u32).unwrap());
                world.report_units(unit, least, FrameCount::new(1 + below(600)));
            }
        }
    }
    world.frames.validate().unwrap();
    let lent: BTreeSet<usize> = world.lent.iter().flat_map(|span| span.start().number()..span.end().number()).collect();
    world.frames.drain_cpu();
    let dirty = world.frames.dirty_frames().get();
    // All that is written and nobody's; and what a pool had at hand and never lent.
    assert!(dirty >= world.written.difference(&lent).count());
    assert!(world.report(Order::ZERO, ALL) >= dirty);
    assert_eq!(world.frames.dirty_frames().get(), 0);
    assert!(world.written.iter().all(|frame| lent.contains(frame)), "what nobody has is clean");
    while !world.lent.is_empty() {
        world.free(0);
    }
    world.frames.drain_cpu();
    world.frames.validate().unwrap();
    assert_eq!(world.frames.census().free, 3 * 512 + 100);
}

#[test]
fn dirty_frames_are_those_that_were_written_and_are_free() {
    let (seeds, steps) = if cfg!(miri) { (1, 50) } else { (40, 1000) };
    for seed in 1..=seeds {
        random::<Zeros<true>>(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), steps);
        random::<Zeros<false>>(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), steps);
    }
}

#[test]
fn where_frames_do_not_start_as_zeros_nothing_is_reported() {
    let frames = machine::<crate::config::Checked>(span(0, 1024), 1);
    let range = frames.alloc_range(&Request::frames(FrameCount::new(600))).unwrap();
    assert!(!frames.are_clean(range.span()));
    frames.free_range(range).unwrap();
    assert_eq!(report(&frames, [Order::ZERO; 2], ALL, |_| true), 0);
    assert_eq!(frames.dirty_frames(), FrameCount::new(0));
}
