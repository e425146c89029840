//! Frames that are no pages of memory.

use pagemill::{AllocFlags, Checked, Config, FrameCount, FrameSpan, Order, Pfn, Request};

use super::exhaust::exhaust;
use crate::load::with_load;
use crate::sim::{Range, Sim};
use crate::world::World;

/// Units of 256 bytes, with a word for the embedder each, in trees of 16 KiB and arenas of 1 MiB: what a cache or a
/// disk would have.
struct Units;

impl Config for Units {
    const FRAME_BYTES: usize = 256;
    const HUGE_ORDER: u32 = 6;
    const ARENA_ORDER: u32 = 12;
    const POOL_FRAMES: u32 = 16;
    const REFILL_FRAMES: u32 = 8;
    const DENSE_BELOW_FRAMES: u32 = 16;
    const EMBEDDER_WORDS: bool = true;
}

/// A buddy of 256-byte units; records of any length in it.
pub(super) fn units_of_256_bytes<W: World>(world: &W) {
    let memory = FrameSpan::from_bytes(0x100, (5 << 20) - 0x500, Units::FRAME_BYTES).unwrap();
    let range = Range::normal(0, memory.start().number(), memory.count().get());
    Sim::one_node(&[range]).run::<W, Units>(world, |frames| {
        assert_eq!(exhaust(world, frames, 0), memory.count().get());
        for bytes in [1usize, 256, 257, 5000, 16384, 100_000, 1 << 20] {
            let units = FrameCount::new(bytes.div_ceil(Units::FRAME_BYTES));
            let record = frames.alloc_range(&Request::frames(units)).unwrap();
            let word = frames.embedder_word(record.span().start()).unwrap();
            word.store(bytes as u32, core::sync::atomic::Ordering::Relaxed);
            assert_eq!(record.span().count(), units);
            frames.free_range(record).unwrap();
        }
        // Longer than an arena of this geometry, and longer than one block of it.
        let run = frames.alloc_range(&Request::frames(FrameCount::new(5000))).unwrap();
        frames.free_range(run).unwrap();
        assert!(frames.alloc(Order::new(13).unwrap(), AllocFlags::empty()).is_err());
        assert!(frames.embedder_word(Pfn::new(0)).is_none());
    });
}

/// Address ranges with nothing behind them: the numbers are all there is.
pub(super) fn no_memory_behind<W: World>(world: &W) {
    // A kernel's upper half, and the last numbers that can be.
    let upper_half = 0xffff_8000_0000_0000 >> 12;
    let last = (1 << 52) - 5000;
    let ranges = [Range::normal(0, upper_half + 3, 1 << 15), Range::normal(0, upper_half + (1 << 20), 5000)];
    for ranges in [&ranges[..], &[Range::normal(0, last, 5000)]] {
        Sim::one_node(ranges).run::<W, Checked>(world, |frames| {
            let present: usize = ranges.iter().map(|range| range.frames).sum();
            let largest = if present <= world.effort() { 0 } else { 9 };
            assert_eq!(exhaust(world, frames, largest), present);
            with_load(world, frames, 256, |load| load.run(world.effort() / 16));
        });
    }
}
