//! The end of memory: the allocator says so, and goes on when some is there again.

use core::alloc::Layout;
use core::array;

use super::fault::{Broken, Fault};
use super::kit::{Kit, MAX_CREW, layout};
use super::memory::Block;
use super::store::{Chain, Exchange};

const ROUNDS: usize = 4;

/// Lends blocks until there are no more. All memory is the limit, or the allocator lends what it does not have.
fn fill<'k>(kit: &'k Kit<'k>, chain: &mut Chain<'k>, memory: usize) -> Result<(), Broken> {
    while let Some(block) = Block::ask(kit.subject(), chain.layout(), false)? {
        chain.push(block);
        let bytes = chain.count() * chain.layout().size();
        if bytes > memory {
            return Err(Fault::Endless { bytes }.at("until there are no more", chain.layout()));
        }
    }
    Ok(())
}

/// As many as before can be had again, or nearly: some may sit in caches of other sizes.
fn compare(layout: Layout, before: usize, after: usize) -> Result<(), Broken> {
    if after < before - before / 4 {
        return Err(Fault::Lost { before, after }.at("after all were freed", layout));
    }
    Ok(())
}

fn layouts(kit: &Kit<'_>) -> impl Iterator<Item = Layout> {
    let few =
        [(8, 8), (16, 8), (24, 8), (48, 16), (100, 4), (512, 64), (1000, 8), (4096, 4096), (5000, 8), (32 << 10, 8)];
    let largest = layout(kit.limits().largest, 8);
    few.into_iter().map(|(size, align)| layout(size, align)).chain([largest]).filter(|&layout| kit.allows(layout))
}

/// Until there are no more; all of them are whole, and after they were freed there are as many again. One that
/// is to grow meanwhile grows or stays as it is.
pub(super) fn exhaustion(kit: &Kit<'_>) -> Result<(), Broken> {
    let Some(memory) = kit.limits().memory else { return Ok(()) };
    for layout in layouts(kit) {
        let mut most = 0;
        for round in 0..ROUNDS {
            let mut chain = Chain::new(kit, layout);
            fill(kit, &mut chain, memory)?;
            if let Some(block) = Block::ask(kit.subject(), layout, true)? {
                block.verify_zero(0..layout.size(), "zeroed, at the end")?;
                chain.push(block);
            }
            compare(layout, most, chain.count())?;
            most = most.max(chain.count());
            grow_one(kit, &mut chain)?;
            if round % 2 == 0 {
                chain.free("memory was at its end")?;
            } else {
                free_by_halves(kit, chain, memory)?;
            }
        }
    }
    Ok(())
}

/// One of the blocks asks for more.
fn grow_one<'k>(kit: &'k Kit<'k>, chain: &mut Chain<'k>) -> Result<(), Broken> {
    let Some(mut block) = chain.pop("at the end")? else { return Ok(()) };
    let layout = chain.layout();
    block.fill(5);
    match block.resize(self::layout(2 * layout.size(), layout.align()), false)? {
        Ok(grown) => {
            grown.verify(0..layout.size(), "grown at the end")?;
            grown.free();
        }
        Err(same) => {
            // Were it free now, the next one would be it.
            if let Some(block) = Block::ask(kit.subject(), layout, false)? {
                chain.push(block);
            }
            same.verify_all("refused to grow at the end")?;
            same.free();
        }
    }
    Ok(())
}

/// Frees every other block, so that what is free lies in single holes, fills the holes again, and frees all.
fn free_by_halves<'k>(kit: &'k Kit<'k>, mut chain: Chain<'k>, memory: usize) -> Result<(), Broken> {
    let (mut rest, mut again, mut freed) = (Chain::new(kit, chain.layout()), Chain::new(kit, chain.layout()), 0);
    while let Some(block) = chain.pop("memory was at its end")? {
        block.free();
        freed += 1;
        if let Some(block) = chain.pop("its neighbour was freed")? {
            rest.push(block);
        }
    }
    fill(kit, &mut again, memory)?;
    compare(again.layout(), freed, again.count())?;
    rest.free("its neighbours were freed, and lent again")?;
    again.free("lent in a hole")
}

/// Blocks of all sizes by turns until there are no more of any.
pub(super) fn exhaustion_by_turns(kit: &Kit<'_>) -> Result<(), Broken> {
    let Some(memory) = kit.limits().memory else { return Ok(()) };
    let mut most = 0;
    for _ in 0..ROUNDS {
        let mut chains = array::from_fn::<_, 11, _>(|index| {
            let layout = layouts(kit).nth(index).unwrap_or_else(|| layout(8, 8));
            Chain::new(kit, layout)
        });
        let mut bytes = 0;
        loop {
            let before = bytes;
            for chain in &mut chains {
                if let Some(block) = Block::ask(kit.subject(), chain.layout(), false)? {
                    chain.push(block);
                    bytes += chain.layout().size();
                }
            }
            if bytes == before {
                break;
            }
            if bytes > memory {
                return Err(Fault::Endless { bytes }.at("until there are no more", chains[0].layout()));
            }
        }
        compare(chains[0].layout(), most, bytes)?;
        most = most.max(bytes);
        for chain in chains {
            chain.free("memory was at its end")?;
        }
    }
    Ok(())
}

/// Everybody takes all there is at once, and frees what another took.
pub(super) fn exhaustion_by_all(kit: &Kit<'_>) -> Result<(), Broken> {
    let Some(memory) = kit.limits().memory else { return Ok(()) };
    for layout in layouts(kit).filter(|layout| layout.size() <= 5000) {
        let mut most = 0;
        for _ in 0..ROUNDS {
            let places: [_; MAX_CREW] = array::from_fn(|_| Exchange::new(None));
            kit.on_all(|worker| {
                let mut chain = Chain::new(kit, layout);
                fill(kit, &mut chain, memory)?;
                places[worker].swap(Some(chain));
                Ok(())
            })?;
            let chains = places.map(|place| place.swap(None));
            let count = chains.iter().flatten().map(Chain::count).sum();
            let bytes = count * layout.size();
            if bytes > memory {
                return Err(Fault::Endless { bytes }.at("until there are no more for anybody", layout));
            }
            compare(layout, most, count)?;
            most = most.max(count);
            let places = chains.map(Exchange::new);
            kit.on_all(|worker| match places[(worker + 1) % kit.workers()].swap(None) {
                Some(chain) => chain.free("freed by another thread"),
                None => Ok(()),
            })?;
        }
    }
    Ok(())
}
