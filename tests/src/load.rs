//! Work for all CPUs: blocks of all small orders, most of them freed by another CPU than the one that asked for them.

use pagemill::{AllocError, AllocFlags, Config, Frames, Order};

use crate::rng::Rng;
use crate::slots::Slots;
use crate::world::World;

/// A load in progress: what it holds stays lent until the end.
pub struct Load<'a, 'm, W: World, C: Config> {
    world: &'a W,
    frames: &'a Frames<'m, W::P, C>,
    slots: Slots<'a>,
}

/// The orders of a load: most blocks are single frames, a few are huge.
const ORDERS: [u32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 6, 9];

/// Runs `work` with a load that may hold `slots` blocks, and gives back what it still holds at the end.
///
/// # Panics
/// If the world has no room for the slots.
pub fn with_load<W: World, C: Config + Sync>(
    world: &W,
    frames: &Frames<'_, W::P, C>,
    slots: usize,
    work: impl Fn(&Load<'_, '_, W, C>),
) {
    let given = world.with_words(slots, &mut |words| {
        let load = Load { world, frames, slots: Slots::new(words) };
        work(&load);
        let parts = world.cpus() as usize;
        // By the neighbour of the CPU that would be next: the last frees cross CPUs as well.
        world.on_all(&|cpu| load.slots.free_part(frames, (cpu as usize + 1) % parts, parts));
    });
    assert!(given, "no room for {slots} slots");
}

impl<W: World, C: Config + Sync> Load<'_, '_, W, C> {
    /// Lets every CPU do that many steps.
    pub fn run(&self, steps: usize) {
        self.world.on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            for _ in 0..steps {
                self.step(&mut rng);
            }
        });
    }

    /// One step on the calling CPU: asks for a block or gives none, leaves it in some slot, and frees what lay there.
    pub(crate) fn step(&self, rng: &mut Rng) {
        let slot = rng.below(self.slots.len());
        let order = Order::new(ORDERS[rng.below(ORDERS.len())]).unwrap();
        let flags = if rng.below(4) == 0 { AllocFlags::MOVABLE } else { AllocFlags::empty() };
        // A third of the steps only free, so that the load does not end with every slot full.
        let block = match rng.below(3) {
            0 => None,
            _ => match self.frames.alloc(order, flags) {
                Ok(block) => Some(block),
                Err(AllocError::NoMemory) => None,
                Err(error) => panic!("the load got no block: {error}"),
            },
        };
        if let Some(block) = self.slots.exchange(slot, block) {
            self.frames.free(block).unwrap();
        }
    }
}
