//! Blocks that one thread lends and another frees.

use core::array;

use crate::rng::Rng;

use super::churn::Work;
use super::fault::Broken;
use super::kit::{Kit, MAX_CREW, layout};
use super::store::{Exchange, Table};

/// What everybody lends, the next one frees; and so on with new threads.
pub(super) fn freed_by_another(kit: &Kit<'_>) -> Result<(), Broken> {
    let workers = kit.workers();
    for round in 0..4 {
        let places: [_; MAX_CREW] = array::from_fn(|_| Exchange::new(None));
        kit.on_all(|worker| {
            let mut rng = Rng::new((round * MAX_CREW + worker) as u64);
            let mut table = Table::new(kit, (kit.limits().blocks / workers / 2).max(1))?;
            let bytes = kit.limits().held / workers / 2;
            while !table.is_full() && table.bytes() < bytes {
                // Whole slabs of one size, and a mixture.
                let drawn = kit.draw(&mut rng);
                let wanted = if round % 2 == 0 { layout(16 << round, 8) } else { drawn };
                let mut block = kit.lend(wanted)?;
                block.fill(rng.draw());
                table.push(block);
            }
            places[worker].swap(Some(table));
            Ok(())
        })?;
        kit.on_all(|worker| match places[(worker + 1) % workers].swap(None) {
            Some(table) => table.close("freed by another thread"),
            None => Ok(()),
        })?;
    }
    Ok(())
}

/// Random work by all at once, on tables that go from hand to hand.
pub(super) fn churn_by_all(kit: &Kit<'_>) -> Result<(), Broken> {
    let workers = kit.workers();
    let places: [_; MAX_CREW] = array::from_fn(|_| Exchange::new(None));
    kit.on_all(|worker| {
        let mut work = Work::new(kit, Rng::new(100 + worker as u64), workers + 1)?;
        for step in 1..=kit.limits().rounds {
            work.step()?;
            if step % 64 == 0 {
                work.exchange(&places[step / 64 % workers])?;
            }
        }
        work.table.close("at the end")
    })?;
    for table in places.into_iter().filter_map(|place| place.swap(None)) {
        table.close("freed by another thread")?;
    }
    Ok(())
}
