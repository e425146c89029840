//! Blocks that stay the size they were asked for.

use crate::rng::Rng;

use super::constant;
use super::fault::{Broken, Fault};
use super::kit::{Kit, layout, powers, sizes};
use super::memory::Block;
use super::store::Table;

/// How many blocks of one layout are lent at a time where it takes no more than a few.
const FEW: usize = 24;

/// Every alignment is kept, with sizes below it, around it and above it, and by all of several blocks: the first may be
/// aligned by accident.
pub(super) fn alignment(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut table = Table::new(kit, FEW)?;
    for align in powers(kit.limits().align) {
        for size in [1, 3, 8, 24, 100, align - 1, align, align + 1, align + align / 2, 3 * align, 1000] {
            let layout = layout(size.max(1), align);
            if !kit.allows(layout) {
                continue;
            }
            for seed in 0..kit.count(layout).min(FEW) {
                let mut block = kit.lend(layout)?;
                block.fill(seed as u64);
                table.push(block);
            }
            table.free_all("lent beside others")?;
        }
    }
    table.close("at the end")
}

/// Every size has all of its bytes, and they are left alone while neighbours come and go.
pub(super) fn contents(kit: &Kit<'_>) -> Result<(), Broken> {
    for size in sizes(kit.limits().largest) {
        for align in [1, 16] {
            let layout = layout(size, align);
            let (mut before, mut block, mut after) = (kit.lend(layout)?, kit.lend(layout)?, kit.lend(layout)?);
            before.fill(1);
            after.fill(3);
            block.fill(2);
            before.verify_all("its neighbour was filled")?;
            after.verify_all("its neighbour was filled")?;
            before.free();
            after.free();
            block.verify_all("its neighbours were freed")?;
            // More than were freed, in case a free took bytes of the one that is left.
            let again = [kit.lend(layout)?, kit.lend(layout)?, kit.lend(layout)?];
            let again = again.map(|mut other| {
                other.fill(4);
                other
            });
            block.verify_all("others came where its neighbours were")?;
            block.free();
            for other in again {
                other.verify_all("its neighbour was freed")?;
                other.free();
            }
        }
    }
    Ok(())
}

/// The same with layouts that the compiler knows.
pub(super) fn constant_layouts(kit: &Kit<'_>) -> Result<(), Broken> {
    for (which, &layout) in constant::LAYOUTS.iter().enumerate() {
        if !kit.allows(layout) {
            continue;
        }
        let ask = || Block::ask_constant(kit.subject(), which)?.ok_or(Fault::Refused.at("asked for", layout));
        let (mut first, mut second) = (ask()?, ask()?);
        first.fill(1);
        second.fill(2);
        first.verify_all("its neighbour was filled")?;
        first.free_constant(which);
        second.verify_all("its neighbour was freed")?;
        // Either way of asking and of giving back goes with the other.
        second.free();
        let mut third = kit.lend(layout)?;
        third.fill(3);
        third.verify_all("lent")?;
        third.free_constant(which);
    }
    Ok(())
}

/// Blocks of one size, as many as may be: enough for several slabs. They are freed in the orders that free lists and
/// magazines like least.
pub(super) fn many_of_a_size(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut rng = Rng::new(1);
    for size in
        [1, 8, 16, 17, 24, 40, 48, 64, 100, 128, 256, 500, 512, 1024, 2048, 3000, 4096, 8192, 16 << 10, 32 << 10]
    {
        let layout = layout(size, 1);
        // The table's own bytes count as well.
        let count = kit.count(layout) / 2;
        if !kit.allows(layout) || count < 2 {
            continue;
        }
        let mut table = Table::new(kit, count)?;
        for round in 0..4 {
            while !table.is_full() {
                let mut block = kit.lend(layout)?;
                block.fill(table.len() as u64);
                table.push(block);
            }
            table.verify_all("lent beside many")?;
            while table.len() > count / 4 {
                // The last first; the first first, nearly; every other; any.
                let index = match round {
                    0 => table.len() - 1,
                    1 => 0,
                    2 => table.len() / 2,
                    _ => rng.below(table.len()),
                };
                table.free(index, "while others are freed")?;
            }
            table.verify_all("others were freed")?;
        }
        table.close("at the end")?;
    }
    Ok(())
}

/// No two blocks that are lent share a byte, whatever their sizes.
pub(super) fn no_overlap(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut rng = Rng::new(2);
    let mut table = Table::new(kit, kit.limits().blocks.min(1024) / 2)?;
    for _ in 0..3 {
        let mut held = 0;
        while !table.is_full() && held < kit.limits().held / 2 {
            let layout = kit.draw(&mut rng);
            let mut block = kit.lend(layout)?;
            table.disjoint(&block)?;
            block.fill(rng.draw());
            held += block.len() + layout.align();
            table.push(block);
        }
        table.verify_all("lent beside many")?;
        for index in (0..table.len()).rev().step_by(2) {
            table.free(index, "while others are freed")?;
        }
        table.verify_all("others were freed")?;
    }
    table.close("at the end")
}

/// What is asked for as zeroed is zero, though the memory was used before: right before, and many frees before.
pub(super) fn zeroed(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut table = Table::new(kit, FEW)?;
    for size in sizes(kit.limits().largest) {
        for align in [1, 64] {
            let layout = layout(size, align);
            // Two at least; of large ones no more.
            let count = kit.count(layout).min((64 << 10) / size).clamp(2, FEW);
            for seed in 0..count {
                let mut block = kit.lend(layout)?;
                block.fill(seed as u64);
                table.push(block);
            }
            table.free_all("lent beside others")?;
            for seed in 0..count {
                let mut block = kit.lend_zeroed(layout)?;
                block.fill(seed as u64);
                table.push(block);
            }
            table.free_all("lent as zeroed, then filled")?;
            let mut block = kit.lend(layout)?;
            block.fill(7);
            block.free();
            kit.lend_zeroed(layout)?.free();
        }
    }
    table.close("at the end")
}

/// What no memory can hold is refused, zeroed or not, and leaves the allocator as it was.
pub(super) fn impossible(kit: &Kit<'_>) -> Result<(), Broken> {
    const HALF: usize = isize::MAX as usize;
    let largest = powers(kit.limits().align).map(|align| layout(HALF & !(align - 1), align));
    // The sum of size and alignment goes over the end of the address space, if somebody adds them.
    let odd = [layout(HALF - 4095, 4096), layout(HALF / 2, 1), layout(1, HALF / 2 + 1), layout(HALF / 2, HALF / 2 + 1)];
    for layout in largest.chain(odd) {
        for zeroed in [false, true] {
            if Block::ask(kit.subject(), layout, zeroed)?.is_some() {
                return Err(Fault::Impossible.at("asked for", layout));
            }
            let mut block = kit.lend(self::layout(100, 8))?;
            block.fill(1);
            block.verify_all("lent after a refusal")?;
            block.free();
        }
    }
    Ok(())
}
