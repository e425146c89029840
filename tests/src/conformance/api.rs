//! What [`Allocator`](allocator_api2::alloc::Allocator) promises beyond `GlobalAlloc`.

use super::fault::{Broken, Fault};
use super::kit::{Kit, layout, powers, sizes};
use super::store::Table;

/// Blocks of no bytes: they have their alignment, come and go like others, grow out of nothing and shrink to it.
pub(super) fn zero_sized(kit: &Kit<'_>) -> Result<(), Broken> {
    for align in powers(kit.limits().align) {
        let nothing = layout(0, align);
        let something = layout(64, align);
        if !kit.allows(something) {
            continue;
        }
        for zeroed in [false, true] {
            let ask = || if zeroed { kit.lend_zeroed(nothing) } else { kit.lend(nothing) };
            let (mut first, mut second) = (ask()?, ask()?);
            // Whatever bytes there are, they are the block's own.
            first.fill(1);
            second.fill(2);
            first.verify(0..first.len(), "its neighbour was filled")?;
            second.free();
            let mut grown = kit.resize(first, something)?;
            grown.fill(3);
            let mut shrunk = kit.resize(grown, nothing)?;
            shrunk.fill(4);
            kit.resize_zeroed(shrunk, something)?.free();
            // What has no bytes can be resized to no bytes, by either road.
            let same = kit.resize(ask()?, nothing)?;
            kit.resize_zeroed(same, nothing)?.free();
        }
    }
    Ok(())
}

/// The bytes beyond those that were asked for are the block's own too.
pub(super) fn excess(kit: &Kit<'_>) -> Result<(), Broken> {
    let mut table = Table::new(kit, 4)?;
    for size in sizes(kit.limits().largest) {
        let layout = layout(size, 1);
        for seed in 0..kit.count(layout).min(4) {
            let mut block = kit.lend(layout)?;
            table.disjoint(&block)?;
            block.fill(seed as u64);
            // In the table it goes by all of its bytes, and is freed so.
            let len = block.len();
            block.relabel(len);
            table.push(block);
        }
        table.free_all("lent beside others")?;
    }
    table.close("at the end")
}

/// A block goes by any size from what was asked for to what there is, when it is freed and when it is resized; whatever
/// comes after it keeps its bytes.
pub(super) fn fitting_layouts(kit: &Kit<'_>) -> Result<(), Broken> {
    for size in sizes(kit.limits().largest) {
        let asked = layout(size, 8);
        for part in 0..3 {
            for new in [None, Some(layout(size + size / 2 + 1, 8)), Some(layout(size / 2 + 1, 8))] {
                let (mut block, mut other) = (kit.lend(asked)?, kit.lend(asked)?);
                let excess = block.len() - size;
                block.relabel(size + excess / 2 * part);
                block.fill(1);
                other.fill(2);
                if let Some(new) = new.filter(|&new| kit.allows(new)) {
                    block = kit.resize(block, new)?;
                }
                block.free();
                let again = [kit.lend(asked)?, kit.lend(asked)?];
                for mut block in again {
                    block.fill(3);
                    block.free();
                }
                other.verify_all("its neighbour was freed by another size")?;
                other.free();
            }
        }
    }
    Ok(())
}

/// A block that is resized may get another alignment at the same time.
pub(super) fn realigned(kit: &Kit<'_>) -> Result<(), Broken> {
    for old in powers(kit.limits().align) {
        for new in powers(kit.limits().align) {
            for size in [24, 64, 1000, 4096, 40 << 10] {
                for resized in [size, 2 * size, size / 2, size + 8] {
                    let (old, new) = (layout(size, old), layout(resized, new));
                    if !kit.allows(old) || !kit.allows(new) {
                        continue;
                    }
                    let (mut block, mut other) = (kit.lend(old)?, kit.lend(new)?);
                    block.fill(1);
                    other.fill(2);
                    let mut block = kit.resize(block, new)?;
                    block.fill(3);
                    other.verify_all("its neighbour was realigned")?;
                    block.verify_all("realigned")?;
                    block.free();
                    other.free();
                }
            }
        }
    }
    Ok(())
}

/// A block that grows as zeroed keeps what it holds; the bytes it did not have before are zero.
pub(super) fn grown_zeroed(kit: &Kit<'_>) -> Result<(), Broken> {
    let allowed = |size, align| kit.allows(layout(size, align));
    for size in sizes(kit.limits().largest / 2) {
        for (align, new) in [(1, size + 1), (1, 2 * size), (8, 2 * size), (16, 5 * size), (64, 2 * size)] {
            if !allowed(size, align) || !allowed(new, align) {
                continue;
            }
            // Memory that was used before.
            let mut used = kit.lend(layout(new, align))?;
            used.fill(1);
            used.free();
            let mut block = kit.lend(layout(size, align))?;
            block.fill(2);
            kit.resize_zeroed(block, layout(new, align))?.free();
            // Without excess that somebody wrote to, all beyond the old size is zero.
            let clean = kit.lend_zeroed(layout(size, align))?;
            let refused = |_| Fault::Refused.at("to be grown, zeroed", layout(new, align));
            let grown = clean.resize(layout(new, align), true)?.map_err(refused)?;
            grown.verify_zero(0..grown.len(), "grown from zeroed, zeroed")?;
            grown.free();
        }
    }
    Ok(())
}
