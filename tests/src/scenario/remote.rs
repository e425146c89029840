//! Frames freed by other CPUs than those that asked for them.

use core::sync::atomic::AtomicU64;

use pagemill::{AllocFlags, Checked, Config, CpuId, Frames, NodeId, Order};

use crate::load::with_load;
use crate::rng::Rng;
use crate::settle;
use crate::sim::{Range, Sim, node};
use crate::slots::Slots;
use crate::world::World;

/// Every CPU frees what its neighbour asked for; then all exchange blocks at random.
pub(super) fn remote_free<W: World>(world: &W) {
    let frames = world.frames();
    pass_on(world, frames);
    with_load(world, frames, 128 * world.cpus() as usize, |load| load.run(world.effort() / 4));
}

/// Blocks of mixed small orders for each CPU.
const BLOCKS: usize = 1000;

fn pass_on<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    let parts = world.cpus() as usize;
    with_slots(world, BLOCKS * parts, |slots| {
        for distance in 1..=parts.min(3) {
            world.on_all(&|cpu| fill(frames, slots, cpu as usize, parts));
            world.on_all(&|cpu| slots.free_part(frames, (cpu as usize + distance) % parts, parts));
        }
    });
}

fn with_slots<W: World>(world: &W, count: usize, work: impl Fn(Slots<'_>)) {
    let given = world.with_words(count, &mut |words: &[AtomicU64]| work(Slots::new(words)));
    assert!(given, "no room for {count} slots");
}

/// Fills the slots of one CPU as far as memory goes.
fn fill<P: pagemill::Platform, C: Config>(frames: &Frames<'_, P, C>, slots: Slots<'_>, part: usize, parts: usize) {
    let mut rng = Rng::new(part as u64);
    for slot in (part..slots.len()).step_by(parts) {
        let order = Order::new([0, 0, 0, 1, 2, 3][rng.below(6)]).unwrap();
        let Ok(block) = frames.alloc(order, AllocFlags::empty()) else { return };
        assert!(slots.exchange(slot, Some(block)).is_none());
    }
}

/// All CPUs of one node free the frames of another: they go home to their node, however many pools they pass.
pub(super) fn one_node_frees_anothers<W: World>(world: &W) {
    const FRAMES: usize = 1 << 15;
    let ranges = [Range::normal(0, 0, FRAMES), Range::normal(1, FRAMES, FRAMES)];
    Sim::nodes(2, &ranges).run::<W, Checked>(world, |frames| from_node_to_node(world, frames, 2));
    let nodes = world.frames().node_count();
    from_node_to_node(world, world.frames(), nodes);
}

fn from_node_to_node<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>, nodes: usize) {
    let parts = world.cpus() as usize;
    let is_on = |cpu: u32, node: NodeId| frames.cpu_node(CpuId::new(cpu)) == Some(node);
    with_slots(world, BLOCKS * parts, |slots| {
        for (from, to) in (0..nodes).flat_map(|from| (0..nodes).map(move |to| (node(from), node(to)))) {
            let freers = (0..world.cpus()).filter(|&cpu| is_on(cpu, to)).count();
            if freers == 0 {
                continue;
            }
            settle(world, frames);
            let free_before = free_on(frames, from);
            world.on_all(&|cpu| {
                if is_on(cpu, from) {
                    fill(frames, slots, cpu as usize, parts);
                }
            });
            world.on_all(&|cpu| {
                if is_on(cpu, to) {
                    let part = (0..cpu).filter(|&cpu| is_on(cpu, to)).count();
                    slots.free_part(frames, part, freers);
                }
            });
            settle(world, frames);
            assert_eq!(free_on(frames, from), free_before, "frames of node {from}, freed on node {to}");
        }
    });
}

fn free_on<P: pagemill::Platform, C: Config>(frames: &Frames<'_, P, C>, node: NodeId) -> usize {
    frames.zone_infos().filter(|zone| zone.node == node).map(|zone| zone.free).sum()
}
