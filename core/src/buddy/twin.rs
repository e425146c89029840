//! The buddy against a list of flags that follows the same policy by looking at every frame.

use proptest::prelude::*;

use super::range::MANY_TREES;
use super::{Buddy, End, WHOLE_ARENA};
use crate::config::{Config, Fast};
use crate::order::Order;
use crate::sync::AtomicU16;
use crate::tree::Tree;

macro_rules! geometry {
    ($($name:ident = $huge:literal, $arena:literal;)*) => {$(
        struct $name;
        impl Config for $name {
            const HUGE_ORDER: u32 = $huge;
            const ARENA_ORDER: u32 = $arena;
        }
    )*};
}
geometry! { H1 = 1, 6; H2 = 2, 9; H3 = 3, 6; H4 = 4, 6; H5 = 5, 8; H6 = 6, 8; H7 = 7, 9; H8 = 8, 10; Single = 6, 6; }

/// A free block as large as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chunk {
    start: u32,
    level: u32,
}

/// One flag a spanned frame, from frame `base` of the arena on.
#[derive(Clone)]
struct Twin {
    free: Vec<bool>,
    base: u32,
    huge: u32,
}

impl Twin {
    fn new<C: Config>(first_tree: u32, trees: u32) -> Self {
        let frames = (trees << C::HUGE_ORDER) as usize;
        Self { free: vec![false; frames], base: first_tree << C::HUGE_ORDER, huge: C::HUGE_ORDER }
    }

    fn is_free(&self, frame: u32) -> bool {
        frame.checked_sub(self.base).and_then(|at| self.free.get(at as usize)).copied().unwrap_or(false)
    }

    fn all_free(&self, start: u32, count: u32) -> bool {
        (start..start + count).all(|frame| self.is_free(frame))
    }

    fn set(&mut self, start: u32, count: u32, free: bool) {
        for frame in start..start + count {
            assert_ne!(self.is_free(frame), free, "frame {frame} given twice");
            self.free[(frame - self.base) as usize] = free;
        }
    }

    /// All free blocks, cut at `largest`, in order of address.
    fn chunks(&self, largest: u32) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut start = self.base;
        while start < self.base + self.free.len() as u32 {
            if !self.is_free(start) {
                start += 1;
                continue;
            }
            let fits = |&level: &u32| start.is_multiple_of(1 << level) && self.all_free(start, 1 << level);
            let level = (0..=largest).rev().find(fits).unwrap();
            chunks.push(Chunk { start, level });
            start += 1 << level;
        }
        chunks
    }

    fn first_fit(&self, starts: impl Iterator<Item = u32>, frames: u32) -> Option<u32> {
        let mut starts = starts.filter(|&start| start >= self.base);
        starts.find(|&start| self.all_free(start, frames))
    }

    /// What `take` must answer for 2^order frames that begin at or before `last`.
    fn choice(&self, order: u32, end: End, last: u32) -> Option<u32> {
        if order >= self.huge {
            return self.run_choice(1 << order, 1 << order, end, last);
        }
        let mut chunks = self.chunks(self.huge);
        chunks.retain(|chunk| chunk.level >= order && chunk.start <= last);
        if end == End::Top {
            chunks.reverse();
        }
        if order == 0 {
            let tree = chunks.first()?.start >> self.huge;
            chunks.retain(|chunk| chunk.start >> self.huge == tree);
        }
        let level = chunks.iter().map(|chunk| chunk.level).min()?;
        let chunk = chunks.into_iter().find(|chunk| chunk.level == level)?;
        match end {
            End::Bottom => Some(chunk.start),
            End::Top => Some((chunk.start + (1 << level) - (1 << order)).min(last >> order << order)),
        }
    }

    fn run_choice(&self, frames: u32, align: u32, end: End, last: u32) -> Option<u32> {
        let starts = (0..last + 1).step_by(align as usize);
        match end {
            End::Bottom => self.first_fit(starts, frames),
            End::Top => self.first_fit(starts.rev(), frames),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take { order: u32, end: End, below: Option<u32> },
    TakeFrames { want: u32, end: End, below: Option<u32> },
    TakeRun { count: u32, align: u32, end: End, below: Option<u32> },
    TakeAt { start: u32, count: u32 },
    TakeFreeOf { start: u32, count: u32 },
    Free { index: u32, order: u32 },
    FreeRow { row: u32, mask: u64 },
    FreeRange { start: u32, count: u32 },
    FreeLentOf { start: u32, count: u32 },
}

fn ends() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Bottom), Just(End::Top)]
}

fn steps<C: Config>(trees: u32) -> impl Strategy<Value = Step> {
    let frames = trees << C::HUGE_ORDER;
    let below = || prop_oneof![3 => Just(None), 1 => (0..=frames).prop_map(Some)];
    let range = || (0..frames, prop_oneof![1..=8u32, 1..=frames]);
    let order = || prop_oneof![3 => 0..=C::HUGE_ORDER, 1 => 0..=C::ARENA_ORDER];
    prop_oneof![
        4 => (order(), ends(), below()).prop_map(|(order, end, below)| Step::Take { order, end, below }),
        1 => (1..=64u32, ends(), below()).prop_map(|(want, end, below)| Step::TakeFrames { want, end, below }),
        1 => (prop_oneof![0..=8u32, 0..=frames], order(), ends(), below())
            .prop_map(|(count, align, end, below)| Step::TakeRun { count, align, end, below }),
        1 => range().prop_map(|(start, count)| Step::TakeAt { start, count }),
        1 => range().prop_map(|(start, count)| Step::TakeFreeOf { start, count }),
        4 => (0..frames, order()).prop_map(|(index, order)| Step::Free { index, order }),
        2 => (0..frames, any::<u64>(), any::<u64>(), any::<bool>())
            .prop_map(|(at, a, b, sparse)| Step::FreeRow { row: at / 64, mask: if sparse { a & b } else { a | b } }),
        1 => range().prop_map(|(start, count)| Step::FreeRange { start, count }),
        2 => range().prop_map(|(start, count)| Step::FreeLentOf { start, count }),
    ]
}

/// A buddy and its twin, which take every step together.
struct Pair<'m, C: Config> {
    buddy: Buddy<'m, C>,
    twin: Twin,
}

impl<C: Config> Pair<'_, C> {
    fn last(&self, below: Option<u32>, frames: u32) -> Option<u32> {
        below.unwrap_or(1 << C::ARENA_ORDER).checked_sub(frames)
    }

    fn take(&mut self, order: u32, end: End, below: Option<u32>) {
        let expected = self.last(below, 1 << order).and_then(|last| self.twin.choice(order, end, last));
        assert_eq!(self.buddy.take(Order::new(order).unwrap(), end, below), expected);
        if let Some(start) = expected {
            self.twin.set(start, 1 << order, false);
        }
    }

    fn take_frames(&mut self, want: u32, end: End, below: Option<u32>) {
        let mut pieces = Vec::new();
        let taken = self.buddy.take_frames(want, end, below, |start, count| pieces.push((start, count)));
        assert_eq!(taken, pieces.iter().map(|piece| piece.1).sum());
        let Some(choice) = self.last(below, 1).and_then(|last| self.twin.choice(0, end, last)) else {
            return assert_eq!(taken, 0);
        };
        let tree = choice >> C::HUGE_ORDER;
        let limit = below.unwrap_or(u32::MAX).min((tree + 1) << C::HUGE_ORDER);
        let there = (tree << C::HUGE_ORDER..limit).filter(|&frame| self.twin.is_free(frame)).count();
        assert_eq!(taken, want.min(there as u32));
        for (start, count) in pieces {
            assert!(start >> C::HUGE_ORDER == tree && start + count <= limit);
            self.twin.set(start, count, false);
        }
    }

    fn take_run(&mut self, count: u32, align: u32, end: End, below: Option<u32>) {
        let order = count.next_power_of_two().ilog2().max(align);
        let tree = 1u32 << C::HUGE_ORDER;
        let last = self.last(below, count).filter(|_| count > 0);
        let is_row = end == End::Bottom && count > tree / 2 && count < MANY_TREES * tree;
        let expected = last.and_then(|last| match order <= C::HUGE_ORDER {
            _ if is_row => self.twin.run_choice(count, 1 << align, end, last),
            true => self.twin.choice(order, end, last),
            false => self.twin.run_choice(count.next_multiple_of(tree), tree.max(1 << align), end, last),
        });
        assert_eq!(self.buddy.take_run(count, align, end, below), expected);
        if let Some(start) = expected {
            self.twin.set(start, count, false);
        }
    }

    fn take_at(&mut self, start: u32, count: u32) {
        match (start..start + count).find(|&frame| !self.twin.is_free(frame)) {
            Some(lent) => assert_eq!(self.buddy.take_at(start, count), Err(lent)),
            None => {
                assert_eq!(self.buddy.take_at(start, count), Ok(()));
                self.twin.set(start, count, false);
            }
        }
    }

    /// Runs of the range whose frames are all free, or all lent.
    fn runs(&self, start: u32, count: u32, free: bool) -> Vec<(u32, u32)> {
        let frames: Vec<u32> = (start..start + count).filter(|&frame| self.twin.is_free(frame) == free).collect();
        let runs = frames.chunk_by(|a, b| a + 1 == *b);
        runs.map(|run| (run[0], run.len() as u32)).collect()
    }

    fn free(&mut self, index: u32, order: u32) {
        let frames = index..index + (1 << order);
        match self.buddy.free(index, Order::new(order).unwrap()) {
            Ok(()) => self.twin.set(index, 1 << order, true),
            Err(found) => assert!(frames.contains(&found) && self.twin.is_free(found), "{found} is not free"),
        }
    }

    fn free_row(&mut self, row: u32, mask: u64) {
        let refused = (0..64).filter(|&bit| mask >> bit & 1 != 0 && self.twin.is_free(row * 64 + bit));
        let refused = refused.fold(0u64, |refused, bit| refused | 1 << bit);
        let seen = self.buddy.free_row(row, mask);
        assert_eq!(seen & !refused, 0, "a frame that is not free is never refused");
        if seen != refused {
            // The others lie in larger blocks, which merging finds out.
            self.buddy.settle_all();
            let late = self.buddy.late_fault().map(|index| index.wrapping_sub(row * 64));
            assert!(late.is_some_and(|bit| (refused & !seen) >> bit & 1 != 0));
        }
        for bit in (0..64).filter(|&bit| (mask & !refused) >> bit & 1 != 0) {
            self.twin.set(row * 64 + bit, 1, true);
        }
    }

    fn free_range(&mut self, start: u32, count: u32) {
        match (start..start + count).find(|&frame| self.twin.is_free(frame)) {
            Some(free) => assert_eq!(self.buddy.free_range(start, count), Err(free)),
            None => {
                assert_eq!(self.buddy.free_range(start, count), Ok(()));
                self.twin.set(start, count, true);
            }
        }
    }

    /// A step drawn for frames from 0 on, moved into the span.
    fn step(&mut self, step: &Step) {
        let base = self.twin.base;
        let clip = |start: u32, count: u32| (base + start, count.min(self.twin.free.len() as u32 - start));
        let limit = |below: Option<u32>| below.map(|below| base + below);
        match *step {
            Step::Take { order, end, below } => self.take(order, end, limit(below)),
            Step::TakeFrames { want, end, below } => self.take_frames(want, end, limit(below)),
            Step::TakeRun { count, align, end, below } => self.take_run(count, align, end, limit(below)),
            Step::TakeAt { start, count } => {
                let (start, count) = clip(start, count);
                self.take_at(start, count);
            }
            Step::TakeFreeOf { start, count } => {
                let (start, count) = clip(start, count);
                self.runs(start, count, true).into_iter().for_each(|(start, count)| self.take_at(start, count));
            }
            Step::Free { index, order } => {
                let (index, frames) = ((base + index) >> order << order, 1 << order);
                if index >= base && index + frames <= base + self.twin.free.len() as u32 {
                    self.free(index, order);
                }
            }
            Step::FreeRow { row, mask } => {
                let row = base / 64 + row;
                let spanned = (0..64).filter(|bit| (row * 64 + bit).wrapping_sub(base) < self.twin.free.len() as u32);
                self.free_row(row, mask & spanned.fold(0, |mask, bit| mask | 1 << bit));
            }
            Step::FreeRange { start, count } => {
                let (start, count) = clip(start, count);
                self.free_range(start, count);
            }
            Step::FreeLentOf { start, count } => {
                let (start, count) = clip(start, count);
                self.runs(start, count, false).into_iter().for_each(|(start, count)| self.free_range(start, count));
            }
        }
    }

    fn compare(&mut self) {
        self.buddy.validate().unwrap();
        self.buddy.settle_all();
        self.buddy.validate().unwrap();
        assert_eq!(self.buddy.late_fault(), None);
        let (base, frames) = (self.twin.base, self.twin.free.len() as u32);
        let chunks = self.twin.chunks(C::HUGE_ORDER);
        let orders = chunks.iter().fold(0, |orders, chunk| orders | 1 << chunk.level);
        let free = self.twin.free.iter().filter(|&&free| free).count() as u32;
        let whole = if free == 1 << C::ARENA_ORDER { WHOLE_ARENA } else { 0 };
        assert_eq!((self.buddy.free_frames(), self.buddy.orders_free()), (free, orders | whole));
        let mut next = base;
        for chunk in &chunks {
            assert_eq!(self.buddy.next_free_chunk(next, base + frames), Some((chunk.start, 1 << chunk.level)));
            assert_eq!(self.buddy.first_free_in(next, chunk.start - next), None);
            next = chunk.start + (1 << chunk.level);
        }
        assert_eq!(self.buddy.next_free_chunk(next, base + frames), None);
        let mut counted = [0; Order::COUNT];
        self.buddy.count_chunks(&mut counted);
        let mut expected = [0; Order::COUNT];
        self.twin.chunks(C::ARENA_ORDER).iter().for_each(|chunk| expected[chunk.level as usize] += 1);
        assert_eq!(counted, expected);
        (0..1 << C::ARENA_ORDER.min(12))
            .for_each(|frame| assert_eq!(self.buddy.is_free(frame), self.twin.is_free(frame)));
    }
}

fn run<C: Config>(first_tree: u32, tree_count: u32, steps: &[Step]) {
    let mut trees = vec![Tree::EMPTY; tree_count as usize];
    let free_in_tree: Vec<AtomicU16> = (0..tree_count).map(|_| AtomicU16::new(0)).collect();
    let buddy = Buddy::<C>::new(&mut trees, &free_in_tree, first_tree);
    let mut pair = Pair { buddy, twin: Twin::new::<C>(first_tree, tree_count) };
    pair.compare();
    for (number, step) in steps.iter().enumerate() {
        pair.step(step);
        // Comparing settles what is loose, so it is not done every time.
        if number % 3 == 0 {
            pair.compare();
        }
    }
    pair.compare();
}

fn cases(native: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 2 } else { native };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Steps that begin with all frames free or all lent.
fn histories<C: Config>(trees: u32, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let fill = Step::FreeLentOf { start: 0, count: trees << C::HUGE_ORDER };
    (any::<bool>(), prop::collection::vec(steps::<C>(trees), 1..most)).prop_map(move |(full, mut steps)| {
        if full {
            steps.insert(0, fill.clone());
        }
        steps
    })
}

macro_rules! agrees {
    ($($name:ident: $config:ty, $first:literal, $trees:literal, $cases:literal, $steps:literal;)*) => {$(
        #[test]
        fn $name() {
            let mut runner = proptest::test_runner::TestRunner::new(cases($cases));
            let outcome = runner.run(&histories::<$config>($trees, $steps), |steps| {
                run::<$config>($first, $trees, &steps);
                Ok(())
            });
            outcome.unwrap();
        }
    )*};
}
agrees! {
    agrees_with_trees_of_2: H1, 0, 32, 128, 60;
    agrees_with_trees_of_4_in_the_middle: H2, 33, 20, 128, 40;
    agrees_with_trees_of_8: H3, 0, 8, 256, 60;
    agrees_with_trees_of_8_at_the_end: H3, 5, 3, 256, 60;
    agrees_with_an_arena_of_one_tree: Single, 0, 1, 128, 40;
    agrees_with_trees_of_16: H4, 0, 4, 256, 60;
    agrees_with_trees_of_32: H5, 2, 6, 128, 40;
    agrees_with_trees_of_64: H6, 0, 4, 128, 40;
    agrees_with_trees_of_128: H7, 1, 3, 64, 40;
    agrees_with_trees_of_256: H8, 0, 4, 32, 40;
    agrees_with_huge_frames: Fast, 302, 5, 24, 50;
}
