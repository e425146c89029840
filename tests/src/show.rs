//! What a machine shows of itself, the same text in every world.

use core::fmt;
use core::hint::black_box;

use pagemill::{AllocFlags, FrameCount, Order, Request};

use crate::home::Home;
use crate::load::with_load;
use crate::scenario::scenarios;
use crate::world::World;

/// A demonstration on the machine's own instance: what there is, a load on all CPUs with buddyinfo before, under it and
/// after, every scenario, and the proof that all frames came home.
///
/// # Panics
/// If a frame did not come home, or anything else is not as it should be.
pub fn demonstrate<W: World>(world: &W) {
    machine(world);
    let home = Home::of(world, world.frames());
    heading(world, "buddyinfo before");
    buddyinfo(world);
    under_load(world);
    home.assert_again(world, world.frames());
    heading(world, "buddyinfo after");
    buddyinfo(world);
    heading(world, "numastat");
    world.say(format_args!("{}", world.frames().numastat()));
    run_scenarios(world);
    heading(world, "cost of a pair of calls");
    costs(world);
    last_line(world, &home);
}

/// A line that says what the following lines are.
pub fn heading<W: World>(world: &W, text: &str) {
    world.say(format_args!("-- {text}"));
}

/// The map, the nodes with their CPUs and distances, the zones with their sizes and watermarks.
pub fn machine<W: World>(world: &W) {
    let frames = world.frames();
    heading(world, "memory");
    for zone in frames.zone_infos() {
        let (start, end) = (zone.spanned.start().number() << 12, zone.spanned.end().number() << 12);
        world.say(format_args!(
            "{start:#018x}..{end:#018x}  {:>10}  node {}, zone {}",
            Bytes(zone.present << 12),
            zone.node,
            zone.kind
        ));
    }
    world.say(format_args!(""));
    heading(world, "nodes");
    world.say(format_args!("{}", frames.nodes()));
    heading(world, "zones, in frames");
    world.say(format_args!("{}", frames.zoneinfo()));
}

/// The free blocks, as they are now.
pub fn buddyinfo<W: World>(world: &W) {
    world.say(format_args!("{}", world.frames().buddyinfo()));
}

/// A load on all CPUs, with the free blocks and the indices while it holds what it holds.
pub fn under_load<W: World>(world: &W) {
    let steps = world.effort();
    let managed: usize = world.frames().zone_infos().map(|zone| zone.managed).sum();
    // A block of the load has some 34 frames, and two thirds of the slots are full: about half of memory is lent.
    let slots = (managed / 48).clamp(64, steps);
    with_load(world, world.frames(), slots, |load| {
        load.run(steps);
        heading(world, "buddyinfo under load");
        buddyinfo(world);
        let census = world.frames().census();
        world.say(format_args!(
            "{} steps on each of {} CPUs; now {} frames are lent, {} lie in pools, {} are on their way back\n",
            steps,
            world.cpus(),
            census.lent(),
            census.pooled,
            census.returning
        ));
        world.say(format_args!("{}", world.frames().indices()));
    });
}

/// Runs every scenario, a line for each.
pub fn run_scenarios<W: World>(world: &W) {
    let all = scenarios::<W>();
    heading(world, "scenarios");
    for scenario in &all {
        scenario.run(world);
        world.say(format_args!("{:28} ok", scenario.name));
    }
    world.say(format_args!("{} scenarios, on {} CPUs\n", all.len(), world.cpus()));
}

/// What calls cost that the calling CPU can serve alone, allocation and free together.
pub fn costs<W: World>(world: &W) {
    let frames = world.frames();
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
    world.say(format_args!("{what:20} {:>7}.{} {}", tenths / 10, tenths % 10, world.tick_unit()));
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

/// A number of bytes, in the largest unit that leaves no fraction.
struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift));
        let (shift, unit) = whole.unwrap_or(&(0, "B"));
        let width = f.width().unwrap_or(0).saturating_sub(unit.len() + 1);
        write!(f, "{:>width$} {unit}", self.0 >> shift)
    }
}
