//! What a machine shows of itself, the same text in every world.

use core::fmt;
use core::hint::black_box;

use pagemill::{AllocFlags, Config, FrameCount, Heap, NodeMask, Order, Policy, Request};

use crate::home::Home;
use crate::load::with_load;
use crate::scenario::scenarios;
use crate::world::World;

/// A demonstration on the machine's own instance: what there is, a load on all CPUs with buddyinfo before, under it and
/// after, every scenario, what calls cost, what the world adds by `objects`, and the proof that all frames came home.
///
/// # Panics
/// If a frame did not come home, or anything else is not as it should be.
pub fn demonstrate<W: World>(world: &W, objects: impl FnOnce()) {
    let frames = world.frames();
    machine(world);
    let home = Home::of(world, frames);
    world.say(format_args!("buddyinfo before\n{}", frames.buddyinfo()));
    under_load(world);
    policies(world);
    home.assert_again(world, frames);
    world.say(format_args!("buddyinfo after\n{}", frames.buddyinfo()));
    world.say(format_args!(
        "numastat, after {ROUNDS} frames in turn and {ROUNDS} bound to the last node on each CPU\n{}",
        frames.numastat()
    ));
    run_scenarios(world);
    costs(world);
    objects();
    last_line(world, &home);
}

/// The memory, the nodes with their CPUs and distances, the zones with their sizes and watermarks.
pub fn machine<W: World>(world: &W) {
    let frames = world.frames();
    world.say(format_args!("memory"));
    for zone in frames.zone_infos() {
        let (start, end) = (zone.spanned.start().number() << 12, zone.spanned.end().number() << 12);
        world.say(format_args!(
            "  {start:#018x}..{end:#018x}  {:>9} KiB  node {}, zone {}",
            zone.present << 2,
            zone.node,
            zone.kind
        ));
    }
    world.say(format_args!("\nnodes\n{}", frames.nodes()));
    world.say(format_args!("zones, in frames of 4 KiB\n{}", frames.zoneinfo()));
}

/// A load on all CPUs, with the free blocks and the indices while it holds what it holds.
pub fn under_load<W: World>(world: &W) {
    let frames = world.frames();
    let managed: usize = frames.zone_infos().map(|zone| zone.managed).sum();
    let steps = world.effort();
    // A block of the load has some 34 frames, and two thirds of the slots are full: about half of memory is lent.
    let slots = (managed / 48).clamp(64, steps);
    with_load(world, frames, slots, |load| {
        let (before, began) = (frames.census().lent(), world.now_ns());
        load.run(steps);
        let census = frames.census();
        world.say(format_args!(
            "buddyinfo under load: {steps} steps on each CPU{}, {} frames lent, {} in pools, {} on their way back\n{}",
            Since(world.now_ns(), began),
            census.lent() - before,
            census.pooled,
            census.returning,
            frames.buddyinfo()
        ));
        world.say(format_args!("indices under load\n{}", frames.indices()));
    });
}

/// Requests of each policy on each CPU.
const ROUNDS: usize = 300;

/// Frames from where the request says, not from where the CPU is.
pub fn policies<W: World>(world: &W) {
    let frames = world.frames();
    let Some(last) = frames.zone_infos().last().map(|zone| zone.node) else { return };
    world.on_all(&|_| {
        for policy in [Policy::Interleave(NodeMask::ALL), Policy::Bind(NodeMask::of(last))] {
            for _ in 0..ROUNDS {
                let range = frames.alloc_range(&Request::frames(FrameCount::new(1)).policy(policy)).unwrap();
                frames.free_range(range).unwrap();
            }
        }
    });
}

/// Runs every scenario, a line for each.
pub fn run_scenarios<W: World>(world: &W) {
    world.say(format_args!("scenarios"));
    for scenario in &scenarios::<W>() {
        let began = world.now_ns();
        scenario.run(world);
        world.say(format_args!("  {:<40} ok{}", scenario.name, Since(world.now_ns(), began)));
    }
    world.say(format_args!(""));
}

/// A stretch of time, if anybody knows it.
struct Since(Option<u64>, Option<u64>);

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(now), Some(began)) = (self.0, self.1) else { return Ok(()) };
        let us = (now - began) / 1000;
        write!(f, " in {}.{:03} ms", us / 1000, us % 1000)
    }
}

/// What calls cost that the calling CPU can serve alone, allocation and free together.
pub fn costs<W: World>(world: &W) {
    let frames = world.frames();
    world.say(format_args!("cost of a pair of calls"));
    let block = |log2: u32| {
        let order = Order::new(log2).unwrap();
        move || {
            if let Ok(block) = frames.alloc(black_box(order), AllocFlags::empty()) {
                frames.free(black_box(block)).unwrap();
            }
        }
    };
    cost(world, "order 0", &block(0));
    cost(world, "order 1", &block(1));
    cost(world, "order 3", &block(3));
    cost(world, "order 6", &block(6));
    cost(world, "order 9", &block(9));
    cost(world, "5 frames in a row", &|| {
        if let Ok(range) = frames.alloc_range(&black_box(Request::frames(FrameCount::new(5)))) {
            frames.free_range(black_box(range)).unwrap();
        }
    });
}

/// The median of many rounds, less that of as many empty loops.
fn cost<W: World>(world: &W, what: &str, pair: &impl Fn()) {
    const PAIRS: u64 = 1000;
    const ROUNDS: usize = 21;
    let median = |work: &dyn Fn()| {
        let mut rounds = [0; ROUNDS];
        for round in &mut rounds {
            let began = world.ticks();
            work();
            *round = world.ticks() - began;
        }
        rounds.sort_unstable();
        rounds[ROUNDS / 2]
    };
    let empty = median(&|| {
        for number in 0..PAIRS {
            black_box(number);
        }
    });
    let full = median(&|| {
        for number in 0..PAIRS {
            black_box(number);
            pair();
        }
    });
    let tenths = full.saturating_sub(empty) * 10 / PAIRS;
    world.say(format_args!("  {what:20} {:>7}.{} {}", tenths / 10, tenths % 10, world.tick_unit()));
}

/// A heap at work: `build` has each CPU build something and keep it, `drop` frees it all again, by other CPUs than
/// those that built it. Shows what the heap is made of in between.
///
/// # Panics
/// If the heap does not add up, or not all that was built is freed.
pub fn heap<W: World, C: Config + Sync>(
    world: &W,
    heap: &Heap<'_, W::P, C>,
    build: &(dyn Fn(u32) + Sync),
    drop: &(dyn Fn(u32) + Sync),
) {
    let (lent, began) = (heap.census().lent(), world.now_ns());
    world.on_all(build);
    let took = Since(world.now_ns(), began);
    world.say(format_args!("\ncollections on the heap: built on {} CPUs{took}, and kept", world.cpus()));
    world.say(format_args!("slabinfo\n{}\n", heap.slabinfo()));
    let began = world.now_ns();
    world.on_all(drop);
    let took = Since(world.now_ns(), began);
    rest_heap(world, heap);
    match heap.validate() {
        Ok(census) => assert_eq!(census.lent(), lent, "objects that are still lent"),
        Err(invalid) => panic!("the heap is not valid: {invalid}"),
    }
    world.say(format_args!("dropped by other CPUs than those that built it{took}; every object came home\n"));
}

/// Has all CPUs give back what they keep of a heap, as far as nobody goes on allocating.
pub fn rest_heap<W: World, C: Config + Sync>(world: &W, heap: &Heap<'_, W::P, C>) {
    heap.drain();
    world.on_all(&|_| heap.poll());
    // What came out of the pools lies in the slabs now; those that are empty go.
    heap.trim();
}

/// Asserts that all is as it was, and says so with numbers.
pub fn last_line<W: World>(world: &W, home: &Home) {
    home.assert_again(world, world.frames());
    let census = world.frames().census();
    world.say(format_args!(
        "\nevery frame came home: {} present = {} free + {} reserved + {} offline + {} lent since boot; \
         buddyinfo as before",
        census.present,
        census.available(),
        census.reserved,
        census.offline,
        census.lent()
    ));
}
