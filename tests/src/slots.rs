//! Blocks that CPUs hand to one another: one word each, exchanged.

use core::sync::atomic::{AtomicU64, Ordering};

use pagemill::{Block, Config, Frames, Order, Pfn, Platform};

/// Places for a block each. Whoever puts one in takes the one before it out, and owns it.
#[derive(Clone, Copy)]
pub(crate) struct Slots<'a>(&'a [AtomicU64]);

const ORDER_BITS: u32 = 5;

impl<'a> Slots<'a> {
    /// Slots in `words`, which are zero.
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self(words)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Leaves `block`, if any, in a slot and answers what lay there.
    pub(crate) fn exchange(&self, slot: usize, block: Option<Block>) -> Option<Block> {
        let word = block.map_or(0, |block| {
            let (head, order) = block.into_raw();
            (head.number() as u64) << (ORDER_BITS + 1) | (order.index() as u64) << 1 | 1
        });
        // Release and Acquire: what the last owner did to the block comes before what the next one does.
        let before = self.0[slot].swap(word, Ordering::AcqRel);
        let order = Order::new((before >> 1) as u32 & ((1 << ORDER_BITS) - 1));
        (before != 0).then(|| Block::from_raw(Pfn::new((before >> (ORDER_BITS + 1)) as usize), order.unwrap()).unwrap())
    }

    /// Gives the blocks of every `parts`th slot back.
    pub(crate) fn free_part<P: Platform, C: Config>(&self, frames: &Frames<'_, P, C>, part: usize, parts: usize) {
        for slot in (part..self.len()).step_by(parts) {
            if let Some(block) = self.exchange(slot, None) {
                frames.free(block).unwrap();
            }
        }
    }
}
