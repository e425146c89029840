//! Memory that devices reach.

use pagemill::{AllocError, AllocFlags, Checked, Config, FrameCount, Frames, Pfn, Platform, Request, ZoneKind};

use crate::marks::Marks;
use crate::sim::{Range, Sim};
use crate::world::World;

/// 16 MiB and 4 GiB, in frames.
const DMA_END: usize = 16 << 8;
const DMA32_END: usize = 4 << 18;

/// Zones `Dma` and `Dma32` keep their limits, fall back downwards only, and keep something from those that could have
/// had other memory; a limit by frame number is kept anywhere.
pub(super) fn dma_limits<W: World>(world: &W) {
    const NORMAL: usize = 1 << 15;
    let ranges = [
        Range { node: 0, kind: ZoneKind::Dma, start: 1, frames: DMA_END - 1 },
        Range { node: 0, kind: ZoneKind::Dma32, start: DMA_END, frames: 5000 },
        // Up to the very limit.
        Range { node: 0, kind: ZoneKind::Dma32, start: DMA32_END - 777, frames: 777 },
        Range::normal(0, DMA32_END, NORMAL),
    ];
    Sim::one_node(&ranges).run::<W, Checked>(world, |frames| {
        Marks::with(world, frames, |marks| {
            let dma = take(frames, marks, AllocFlags::DMA, DMA_END);
            assert_eq!(dma, DMA_END - 1, "all of it and no other");
            marks.free_all(frames);
            assert_eq!(take(frames, marks, AllocFlags::DMA32, DMA32_END), DMA_END - 1 + 5777);
            marks.free_all(frames);
            assert_eq!(take(frames, marks, AllocFlags::empty(), usize::MAX), DMA_END - 1 + 5777 + NORMAL);
            marks.free_all(frames);
        });
        below(frames);
        frames.set_default_watermarks();
        protected(world, frames);
    });
    machine_limits(world.frames());
}

/// Takes all that requests with `flags` get, in shrinking runs; every frame must lie below `end`.
fn take<P: Platform, C: Config>(frames: &Frames<'_, P, C>, marks: &Marks<'_>, flags: AllocFlags, end: usize) -> usize {
    for log2 in (0..=9).rev() {
        while let Ok(range) = frames.alloc_range(&Request::frames(FrameCount::new(1 << log2)).flags(flags)) {
            let span = range.into_raw();
            assert!(span.end().number() <= end, "{span:?} with {flags:?}");
            marks.note(span.start(), span.count().get());
        }
    }
    marks.count()
}

/// A limit that cuts a zone, a tree, or nothing.
fn below<P: Platform, C: Config>(frames: &Frames<'_, P, C>) {
    for limit in [2, 9, 1000, DMA_END + 3, DMA32_END, DMA32_END + 1, DMA32_END + 700] {
        for flags in [AllocFlags::empty(), AllocFlags::MOVABLE, AllocFlags::DMA32] {
            let request = Request::frames(FrameCount::new(1)).flags(flags).below(Pfn::new(limit));
            let range = frames.alloc_range(&request).unwrap();
            assert!(range.span().end().number() <= limit, "{range:?} below {limit:#x}");
            frames.free_range(range).unwrap();
        }
        let run = Request::frames(FrameCount::new(8)).aligned(4).below(Pfn::new(limit));
        match frames.alloc_range(&run) {
            Ok(range) => {
                assert!(range.span().end().number() <= limit, "{range:?} below {limit:#x}");
                frames.free_range(range).unwrap();
            }
            Err(error) => assert_eq!((error, limit < 12), (AllocError::NoMemory, true)),
        }
    }
    let nothing = Request::frames(FrameCount::new(1)).below(Pfn::new(1));
    assert_eq!(frames.alloc_range(&nothing), Err(AllocError::NoMemory));
}

/// Requests that could have had other memory leave some of the lower zones to those that cannot.
fn protected<W: World, C: Config + Sync>(world: &W, frames: &Frames<'_, W::P, C>) {
    Marks::with(world, frames, |marks| {
        take(frames, marks, AllocFlags::ATOMIC, usize::MAX);
        let range = frames.alloc_range(&Request::frames(FrameCount::new(1)).flags(AllocFlags::DMA)).unwrap();
        assert!(range.span().end().number() <= DMA_END);
        frames.free_range(range).unwrap();
        marks.free_all(frames);
    });
}

/// On the machine: whoever asks for low memory gets low memory or nothing.
fn machine_limits<P: Platform, C: Config>(frames: &Frames<'_, P, C>) {
    for (flags, kinds) in
        [(AllocFlags::DMA, &[ZoneKind::Dma][..]), (AllocFlags::DMA32, &[ZoneKind::Dma32, ZoneKind::Dma][..])]
    {
        let request = Request::frames(FrameCount::new(3)).flags(flags);
        match frames.alloc_range(&request) {
            Ok(range) => {
                let mut zones = frames.zone_infos().filter(|zone| kinds.contains(&zone.kind));
                assert!(zones.any(|zone| zone.spanned.covers(range.span())), "{range:?} with {flags:?}");
                frames.free_range(range).unwrap();
            }
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                let free = frames.zone_infos().filter(|zone| kinds.contains(&zone.kind)).map(|zone| zone.free);
                assert!(free.sum::<usize>() < 4096, "{flags:?} gets nothing where there is much");
            }
        }
    }
}
