//! Where every frame was, and that it is there again.

use core::fmt::Debug;

use pagemill::{Config, Frames, Watermarks, ZoneInfo};

use crate::world::World;

/// The most zones that are compared; no world has more.
const ZONES: usize = 16;

/// Empties the pools of all CPUs into the trees, as far as nobody goes on allocating.
pub fn settle<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    frames.drain();
    world.on_all(&|_| frames.poll());
}

/// What an instance looked like while nothing ran.
#[derive(Debug)]
pub struct Home {
    zones: [Option<ZoneInfo>; ZONES],
    lent: usize,
}

impl Home {
    /// Settles the instance and looks at it.
    ///
    /// # Panics
    /// If an invariant does not hold, or if it has more zones than are compared.
    pub fn of<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) -> Self {
        settle(world, frames);
        assert_valid(world, frames);
        let mut zones = [None; ZONES];
        for (place, info) in frames.zone_infos().enumerate() {
            // The marks are set, not used up.
            zones[place] = Some(ZoneInfo { watermarks: Watermarks::default(), ..info });
        }
        Self { zones, lent: frames.census().lent() }
    }

    /// Asserts that the instance looks the same again: equal buddyinfo, and as many frames lent.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_again<W: World, C: Config + Sync>(&self, world: &W, frames: &Frames<'_, W::P, C>) {
        let now = Self::of(world, frames);
        for (before, after) in self.zones.iter().flatten().zip(now.zones.iter().flatten()) {
            same(world, before, after);
        }
        assert_eq!(self.lent, now.lent, "frames that are still lent");
    }

    /// How many frames were lent.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// The zones, as they were.
    pub fn zones(&self) -> impl Iterator<Item = &ZoneInfo> {
        self.zones.iter().flatten()
    }
}

/// Above so many frames no scenario looks at every single one.
const LOOKED_AT: usize = 1 << 24;

/// Asserts every invariant, and says more than the panic does.
pub(crate) fn assert_valid<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    if frames.census().present > LOOKED_AT {
        return;
    }
    if let Err(invalid) = frames.validate() {
        world.say(format_args!("{:?}\n{}", frames.census(), frames.zoneinfo()));
        panic!("the instance is not valid: {invalid}");
    }
}

fn same<W: World, T: Debug + PartialEq>(world: &W, before: &T, after: &T) {
    if before != after {
        world.say(format_args!("before: {before:?}\nafter:  {after:?}"));
        panic!("a zone does not look as it did before");
    }
}
