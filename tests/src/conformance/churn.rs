//! Random work: requests of all kinds in an order that nobody thought of.

use core::mem;

use crate::rng::Rng;

use super::fault::Broken;
use super::kit::{Kit, layout};
use super::store::{Exchange, Table};

/// The caller alone.
pub(super) fn churn(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut work = Work::new(kit, Rng::new(3), 1)?;
    for _ in 0..kit.limits().rounds {
        work.step()?;
    }
    work.table.close("at the end")
}

/// A table of blocks that is worked on.
pub(super) struct Work<'k> {
    kit: &'k Kit<'k>,
    rng: Rng,
    pub(super) table: Table<'k>,
    /// How many bytes may be lent.
    limit: usize,
}

impl<'k> Work<'k> {
    /// With one of `parts` equal parts of what may be lent.
    pub(super) fn new(kit: &'k Kit<'k>, rng: Rng, parts: usize) -> Result<Self, Broken> {
        let table = Table::new(kit, (kit.limits().blocks / parts / 2).max(2))?;
        Ok(Self { kit, rng, table, limit: kit.limits().held / parts / 2 })
    }

    /// Lends, resizes or frees one block, after it was found whole.
    pub(super) fn step(&mut self) -> Result<(), Broken> {
        let Self { kit, rng, table, limit } = self;
        let room = limit.saturating_sub(table.bytes());
        let crowded = room == 0 || table.is_full();
        let choice = rng.below(8);
        if table.len() == 0 || !crowded && choice < 4 {
            let layout = kit.draw_within(rng, room);
            let mut block = if choice == 0 { kit.lend_zeroed(layout)? } else { kit.lend(layout)? };
            block.fill(rng.draw());
            table.push(block);
        } else if !crowded && choice < 6 {
            let block = table.take(rng.below(table.len()))?;
            block.verify_all("to be resized")?;
            let room = limit.saturating_sub(table.bytes());
            let new = layout(kit.draw_within(rng, room).size(), block.layout().align());
            let mut block = kit.resize(block, new)?;
            block.fill(rng.draw());
            table.push(block);
        } else {
            table.free(rng.below(table.len()), "to be freed")?;
        }
        Ok(())
    }

    /// Leaves the table for another thread and works on with the one that was left there, if any.
    pub(super) fn exchange(&mut self, place: &Exchange<Option<Table<'k>>>) -> Result<(), Broken> {
        let capacity = self.table.capacity();
        let fresh = match place.swap(None) {
            Some(table) => table,
            None => Table::new(self.kit, capacity)?,
        };
        let mine = mem::replace(&mut self.table, fresh);
        // Somebody else may have left one meanwhile.
        match place.swap(Some(mine)) {
            Some(table) => table.close("freed by another thread"),
            None => Ok(()),
        }
    }
}
