//! Blocks that change their size.

use core::alloc::Layout;

use super::fault::{Broken, Fault};
use super::kit::{Kit, layout, powers, sizes};
use super::memory::Block;

/// One block is resized between two others; all three are as they should be.
fn step(kit: &Kit<'_>, old: Layout, new: Layout) -> Result<(), Broken> {
    if !kit.allows(old) || !kit.allows(new) || new.size() == 0 {
        return Ok(());
    }
    let (mut before, mut block, mut after) = (kit.lend(old)?, kit.lend(old)?, kit.lend(old)?);
    before.fill(1);
    block.fill(2);
    after.fill(3);
    let mut block = kit.resize(block, new)?;
    // All of the new bytes are the block's own.
    block.fill(4);
    before.verify_all("its neighbour was resized")?;
    after.verify_all("its neighbour was resized")?;
    block.verify_all("resized and filled")?;
    before.free();
    block.free();
    after.verify_all("its neighbours were freed")?;
    after.free();
    Ok(())
}

/// Sizes for a block of this alignment: all borders; only the small ones where others did the large ones; a few where
/// the alignment makes blocks large.
fn sizes_for(align: usize, limit: usize) -> impl Iterator<Item = usize> {
    let few = [1, 24, align - 1, align, align + 1, 2 * align, 3 * align + 5];
    let largest = match align {
        1 => limit,
        2..=64 => limit.min(4096),
        _ => 1,
    };
    sizes(largest).chain(few).filter(move |&size| size != 0 && size <= limit)
}

/// A block that grows keeps what it holds, and its alignment.
pub(super) fn grow(kit: &Kit<'_>) -> Result<(), Broken> {
    for align in powers(kit.limits().align) {
        for size in sizes_for(align, kit.limits().largest / 2) {
            for new in [size + 1, size + size / 2, 2 * size, 2 * size + 1, size.saturating_mul(17)] {
                step(kit, layout(size, align), layout(new, align))?;
            }
        }
    }
    Ok(())
}

/// A block that shrinks keeps the part of it that is left, and its alignment.
pub(super) fn shrink(kit: &Kit<'_>) -> Result<(), Broken> {
    for align in powers(kit.limits().align) {
        for size in sizes_for(align, kit.limits().largest) {
            for new in [size - 1, size - size / 4, size / 2, size / 17, 1] {
                step(kit, layout(size, align), layout(new, align))?;
            }
        }
    }
    Ok(())
}

/// A block that grows bit by bit to the largest size and shrinks again, as a vector does, while others are lent in its
/// way.
pub(super) fn back_and_forth(kit: &Kit<'_>) -> Result<(), Broken> {
    for align in [1, 8, 64, 4096] {
        let limit = kit.limits().largest;
        let growing = sizes(limit).filter(|size| size.is_power_of_two() || size % 7 == 0);
        let shrinking = (0..=limit.ilog2()).rev().flat_map(|bits| [(1 << bits) + (1 << bits) / 3, 1 << bits]);
        let mut block = kit.lend(layout(1, align))?;
        let mut in_the_way: Option<Block<'_>> = None;
        for size in growing.chain(shrinking).filter(|&size| kit.allows(layout(size, align))) {
            block.fill(size as u64);
            block = kit.resize(block, layout(size, align))?;
            if let Some(other) = in_the_way.take() {
                other.verify_all("in the way of one that is resized")?;
                other.free();
            }
            let mut other = kit.lend(layout(size.min(5000), align))?;
            other.fill(!0);
            in_the_way = Some(other);
        }
        block.free();
        in_the_way.into_iter().for_each(Block::free);
    }
    Ok(())
}

/// A block that cannot grow, because no memory would hold it, stays lent and whole.
pub(super) fn refused(kit: &Kit<'_>) -> Result<(), Broken> {
    const HALF: usize = isize::MAX as usize;
    for align in powers(kit.limits().align) {
        for size in [1, 100, align, kit.limits().largest / 2] {
            let old = layout(size, align);
            if !kit.allows(old) {
                continue;
            }
            for new in [layout(HALF & !(align - 1), align), layout(HALF / 2, align)] {
                let mut block = kit.lend(old)?;
                block.fill(9);
                match block.resize(new, false)? {
                    Ok(_) => return Err(Fault::Impossible.at("to be resized", new)),
                    Err(same) => {
                        // Were it free now, the next one would be it.
                        let mut other = kit.lend(old)?;
                        other.fill(10);
                        same.verify_all("its growth was refused")?;
                        same.free();
                        other.free();
                    }
                }
            }
        }
    }
    Ok(())
}
