//! Which node serves a request.

use pagemill::{
    AllocError, Checked, Config, CpuId, FrameCount, FrameRange, Frames, NodeId, NodeMask, Platform, Policy, Request,
};

use crate::home::settle;
use crate::marks::Marks;
use crate::sim::{Range, Sim, node};
use crate::world::World;

const ONE: Request = Request::frames(FrameCount::new(1));

/// A node that is exhausted sends requests to the nearest one that is not, unless they are bound to it.
pub(super) fn fallback_and_bind<W: World>(world: &W) {
    // Odd borders, and the nearest node is not the next one.
    let ranges = [Range::normal(0, 0, 1000), Range::normal(1, 1000, 3333), Range::normal(2, 5000, 777)];
    let distances = [(0, 1, 28), (0, 2, 17), (1, 2, 21)];
    let sim = Sim { distances: &distances, nodes_with_cpus: 2, ..Sim::nodes(3, &ranges) };
    sim.run::<W, Checked>(world, |frames| {
        for range in &ranges {
            assert_eq!(bind_until_empty(world, frames, node(range.node)), range.frames, "all of node {}", range.node);
        }
        falls_back(world, frames);
    });
    let frames = world.frames();
    for number in populated(frames) {
        assert!(bind_until_empty(world, frames, number) > 0);
    }
    falls_back(world, frames);
}

/// The nodes with memory that any request may use.
fn populated<'a, P: Platform, C: Config>(frames: &'a Frames<'_, P, C>) -> impl Iterator<Item = NodeId> + 'a {
    let ordinary = move |id: NodeId| {
        frames.zone_infos().any(|zone| zone.node == id && zone.kind == pagemill::ZoneKind::Normal)
            || frames.zone_infos().any(|zone| zone.node == id && zone.kind == pagemill::ZoneKind::Dma32)
    };
    (0..frames.node_count()).map(node).filter(move |&id| ordinary(id))
}

fn bound(to: NodeId) -> Request {
    ONE.policy(Policy::Bind(NodeMask::of(to)))
}

/// Takes all that a node gives to requests that are bound to it; every frame is counted as its own.
fn bind_until_empty<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>, from: NodeId) -> usize {
    Marks::with(world, frames, |marks| {
        settle(world, frames);
        let before = frames.numa_counts(from);
        let served = take_bound(frames, marks, from);
        let after = frames.numa_counts(from);
        assert_eq!(after.numa_hit - before.numa_hit, served, "calls that node {from} served");
        assert_eq!((after.numa_miss, after.numa_foreign), (before.numa_miss, before.numa_foreign));
        assert_eq!(frames.alloc_range(&bound(from)), Err(AllocError::NoMemory));
        let taken = marks.count();
        marks.free_all(frames);
        taken
    })
}

/// Takes runs of any length that the node still has; answers how many calls were served.
fn take_bound<P: Platform, C: Config>(frames: &Frames<'_, P, C>, marks: &Marks<'_>, from: NodeId) -> u64 {
    let mut calls = 0;
    for log2 in (0..=9).rev() {
        let request = Request::frames(FrameCount::new(1 << log2)).policy(Policy::Bind(NodeMask::of(from)));
        while let Ok(range) = frames.alloc_range(&request) {
            marks.note(range.span().start(), range.span().count().get());
            let _ = range.into_raw();
            calls += 1;
        }
    }
    calls
}

/// With this CPU's node exhausted, its requests are served by the nearest other.
fn falls_back<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    let cpu = W::P::pin().map(|pinned| pinned.cpu()).unwrap_or(CpuId::new(0));
    let Some(home) = frames.cpu_node(cpu).filter(|&home| populated(frames).any(|id| id == home)) else { return };
    let others = || populated(frames).filter(|&id| id != home);
    let Some(nearest) = others().min_by_key(|&id| (frames.distance(home, id), id)) else { return };
    Marks::with(world, frames, |marks| {
        settle(world, frames);
        take_bound(frames, marks, home);
        let before = (frames.numa_counts(home), frames.numa_counts(nearest));
        let strayed = [Policy::Local, Policy::Preferred(home), Policy::PreferredMany(NodeMask::of(home))]
            .map(|policy| frames.alloc_range(&ONE.policy(policy)).unwrap());
        let after = (frames.numa_counts(home), frames.numa_counts(nearest));
        assert_eq!(after.0.numa_hit, before.0.numa_hit);
        assert_eq!(after.0.numa_foreign - before.0.numa_foreign, 3, "meant for node {home}");
        assert_eq!(after.1.numa_miss - before.1.numa_miss, 3, "served by node {nearest}, the nearest");
        assert_eq!(after.1.other_node - before.1.other_node, 3);
        strayed.into_iter().for_each(|range| frames.free_range(range).unwrap());
        marks.free_all(frames);
    });
}

/// Interleaved requests go to all nodes in equal shares, weighted ones by weight.
pub(super) fn interleave_balance<W: World>(world: &W) {
    const FRAMES: usize = 4096;
    let ranges = [0, 1, 2].map(|node| Range::normal(node, node * 5000, FRAMES));
    Sim::nodes(3, &ranges).run::<W, Checked>(world, |frames| {
        balanced(frames, Policy::Interleave, &[1, 1, 1]);
        let weights = [3, 1, 2];
        for (number, &weight) in weights.iter().enumerate() {
            frames.set_weight(node(number), weight).unwrap();
        }
        balanced(frames, Policy::WeightedInterleave, &weights);
        balanced(frames, Policy::Interleave, &[1, 1, 1]);
        // Of a node that does not exist nothing is expected.
        let missing = frames.alloc_range(&ONE.policy(Policy::Interleave(NodeMask::of(node(9)))));
        assert_eq!(missing, Err(AllocError::NoMemory));
    });
    let frames = world.frames();
    let count = populated(frames).count();
    if populated(frames).map(NodeId::index).eq(0..count) {
        balanced(frames, Policy::Interleave, &[1; 8][..count.min(8)]);
    }
}

/// Asserts that the shares of the first nodes are as `weights` over whole turns, on one CPU.
fn balanced<P: Platform, C: Config>(frames: &Frames<'_, P, C>, policy: fn(NodeMask) -> Policy, weights: &[u32]) {
    const TURNS: u32 = 20;
    let all = (0..weights.len()).fold(NodeMask::EMPTY, |mask, number| mask.with(node(number)));
    let hits = |number| frames.numa_counts(node(number)).interleave_hit;
    let mut before = [0; 8];
    for (number, before) in before.iter_mut().enumerate().take(weights.len()) {
        *before = hits(number);
    }
    let mut held = [const { None::<FrameRange> }; 8 * TURNS as usize];
    for place in held.iter_mut().take((weights.iter().sum::<u32>() * TURNS) as usize) {
        *place = Some(frames.alloc_range(&ONE.policy(policy(all))).unwrap());
    }
    for (number, weight) in weights.iter().enumerate() {
        assert_eq!(hits(number) - before[number], u64::from(weight * TURNS), "node {number} of {weights:?}");
    }
    held.into_iter().flatten().for_each(|range| frames.free_range(range).unwrap());
}
