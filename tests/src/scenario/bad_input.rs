//! Every mistake has an error value of its own, and changes nothing.

use core::sync::atomic::{AtomicU32, Ordering};

use pagemill::{
    AllocError, AllocFlags, Block, Checked, CpuId, FrameCount, FrameRange, FrameSpan, Frames, FreeError, Metadata,
    NodeId, Order, Pfn, Place, Platform, Request, SetupError, SpanError, ZoneKind,
};

use crate::flag::Flag;
use crate::home::{assert_valid, settle};
use crate::sim::{Range, Sim, node, span};
use crate::world::World;

const ONE: FrameCount = FrameCount::new(1);

/// What cannot be set up says why, and nothing is half done.
pub(super) fn bad_setup<W: World>(world: &W) {
    assert_eq!(FrameSpan::from_bytes(4096, 0, 4096), Err(SpanError::Empty));
    assert_eq!(FrameSpan::from_bytes(usize::MAX - 4095, 8192, 4096), Err(SpanError::Wraps));
    assert_eq!(FrameSpan::from_bytes(4097, 4096, 4096), Err(SpanError::Unaligned));
    assert_eq!(FrameSpan::new(Pfn::new(usize::MAX), ONE), Err(SpanError::Wraps));
    before_init::<W::P>();
    let twice = 2 * Frames::<W::P>::base_metadata_size(SPAN, 2, 3);
    let given = world.with_metadata(twice, &mut |metadata| bad_init::<W::P>(metadata));
    assert!(given, "no room for metadata");
    let ranges = [Range::normal(0, 100, 1000), Range::normal(1, 2000, 1000)];
    Sim::nodes(2, &ranges).run::<W, Checked>(world, |frames| {
        bad_memory(world, frames);
        bad_description(frames);
        bad_service(frames);
        assert_valid(world, frames);
    });
}

fn before_init<P: Platform>() {
    let frames = Frames::<P>::new();
    assert_eq!(frames.alloc(Order::ZERO, AllocFlags::empty()), Err(AllocError::NotReady));
    assert_eq!(frames.alloc_range(&Request::frames(ONE)), Err(AllocError::NotReady));
    assert_eq!(frames.alloc_at(span(1, 1)), Err(AllocError::NotReady));
    assert_eq!(frames.free_raw(Pfn::new(1), ONE), Err(FreeError::NotManaged(Pfn::new(1))));
    let added = frames.add_memory(node(0), ZoneKind::Normal, span(0, 1), &[], Metadata::new(&mut []));
    assert_eq!(added, Err(SetupError::State));
    assert_eq!(frames.reserve(span(0, 1)), Err(SetupError::NotManaged(Pfn::new(0))));
    frames.drain();
    assert_eq!(frames.validate(), Ok(()));
}

const SPAN: FrameSpan = match FrameSpan::new(Pfn::new(0), FrameCount::new(1 << 20)) {
    Ok(span) => span,
    Err(_) => panic!("4 GiB"),
};

fn bad_init<P: Platform>(metadata: Metadata<'_>) {
    let frames = Frames::<P>::new();
    let needed_bytes = Frames::<P>::base_metadata_size(SPAN, 2, 3);
    let (short, rest) = metadata.split_at(needed_bytes - 1).ok().unwrap();
    assert_eq!(frames.init(SPAN, 2, 3, short), Err(SetupError::MetadataTooSmall { needed_bytes }));
    for nodes in [0, NodeId::LIMIT + 1] {
        let refused = frames.init(SPAN, 2, nodes, Metadata::new(&mut []));
        assert!(matches!(refused, Err(SetupError::TooManyNodes(_))), "{refused:?}");
    }
    let (exact, rest) = rest.split_at(needed_bytes).ok().unwrap();
    frames.init(SPAN, 2, 3, exact).unwrap();
    assert_eq!(frames.init(SPAN, 2, 3, rest), Err(SetupError::State));
    assert_eq!(frames.alloc(Order::ZERO, AllocFlags::empty()), Err(AllocError::NoMemory));
    assert_eq!(frames.validate(), Ok(()));
}

fn bad_memory<W: World>(world: &W, frames: &Frames<'_, W::P>) {
    let add = |to: NodeId, memory| frames.add_memory(to, ZoneKind::Normal, memory, &[], Metadata::new(&mut []));
    for (memory, overlap) in [
        (span(100, 1000), span(100, 1000)),
        (span(1099, 5), span(1099, 1)),
        (span(1500, 501), span(2000, 1)),
        (span(300, 1), span(300, 1)),
    ] {
        assert_eq!(add(node(1), memory), Err(SetupError::Overlap(overlap)));
    }
    let beyond = span(1 << 30, 4);
    assert_eq!(add(node(0), beyond), Err(SetupError::OutsideSpan(beyond)));
    assert_eq!(add(node(7), span(1200, 4)), Err(SetupError::NoSuchNode(node(7))));
    let needed_bytes = Frames::<W::P>::memory_metadata_size(span(1200, 4));
    assert_eq!(add(node(0), span(1200, 4)), Err(SetupError::MetadataTooSmall { needed_bytes }));
    assert_valid(world, frames);
    assert_eq!(frames.census().present, 2000);
}

fn bad_description<P: Platform>(frames: &Frames<'_, P>) {
    let cpus = frames.cpu_count() as u32;
    let (beyond, nowhere) = (CpuId::new(cpus), node(2));
    assert_eq!(frames.set_cpu_node(beyond, node(0)), Err(SetupError::TooManyCpus(beyond)));
    assert_eq!(frames.set_cpu_node(CpuId::new(0), nowhere), Err(SetupError::NoSuchNode(nowhere)));
    assert_eq!(frames.set_weight(nowhere, 1), Err(SetupError::NoSuchNode(nowhere)));
    assert_eq!(frames.set_distance(nowhere, node(0), 20), Err(SetupError::NoSuchNode(nowhere)));
    for (from, to, distance) in [(0, 1, 9), (0, 1, 10), (0, 0, 11)] {
        let error = SetupError::BadDistance(node(from), node(to));
        assert_eq!(frames.set_distance(node(from), node(to), distance), Err(error));
    }
    assert_eq!(frames.distance(node(0), node(1)), Some(20));
}

fn bad_service<P: Platform>(frames: &Frames<'_, P>) {
    let hole = SetupError::NotManaged(Pfn::new(1100));
    for memory in [span(1090, 20), span(1100, 1)] {
        assert_eq!(frames.reserve(memory), Err(hole));
        assert_eq!(frames.offline(memory), Err(hole));
        assert_eq!(frames.online(memory), Err(hole));
    }
    let lent = frames.alloc_at(span(500, 2)).unwrap();
    assert_eq!(frames.reserve(span(490, 20)), Err(SetupError::NotFree(Pfn::new(500))));
    assert_eq!(frames.release(span(490, 20)), Err(SetupError::NotReserved(Pfn::new(490))));
    assert_eq!(frames.online(span(490, 20)), Err(SetupError::NotOffline(Pfn::new(490))));
    frames.free_range(lent).unwrap();
}

/// What could never be served is told from what cannot be served now.
pub(super) fn bad_requests<W: World>(world: &W) {
    let frames = world.frames();
    let impossible = [
        Request::frames(FrameCount::ZERO),
        Request::frames(ONE).aligned(0),
        Request::frames(ONE).aligned(3),
        Request::frames(ONE).aligned(2 * Order::MAX.frames()),
    ];
    for request in impossible {
        assert_eq!(frames.alloc_range(&request), Err(AllocError::Impossible), "{request:?}");
    }
    for too_much in [1 << 40, usize::MAX >> 1, usize::MAX] {
        let got = frames.alloc_range(&Request::frames(FrameCount::new(too_much)));
        assert!(matches!(got, Err(AllocError::NoMemory | AllocError::Impossible)), "{too_much} frames: {got:?}");
    }
    assert!(Block::from_raw(Pfn::new(6), Order::new(2).unwrap()).is_none());
    assert_eq!(frames.alloc_bulk(AllocFlags::empty(), &mut []), Ok(0));
    assert_eq!(frames.free_bulk(&[]), Ok(()));
}

/// How many wrong frees the hook was told of.
static FAULTS: AtomicU32 = AtomicU32::new(0);
static HOOK: fn(FreeError) = |_| {
    FAULTS.fetch_add(1, Ordering::Relaxed);
};

/// A free of what is not lent is refused, wherever the frame lies, and told.
pub(super) fn bad_frees<W: World>(world: &W) {
    const FRAMES: usize = 1 << 15;
    let ranges = [Range::normal(0, 0, FRAMES), Range::normal(1, FRAMES + 100, 5000)];
    let reserved = [span(1 << 14, 10)];
    let sim = Sim { reserved: &reserved, ..Sim::nodes(2, &ranges) };
    sim.run::<W, Checked>(world, |frames| {
        frames.set_fault_hook(&HOOK);
        for mistake in [never_lent, freed_before, reserved_or_offline, outside, half_of_a_range] {
            FAULTS.store(0, Ordering::Relaxed);
            let refused = mistake(frames);
            assert_eq!(FAULTS.load(Ordering::Relaxed), refused, "the hook is told of each");
            assert_valid(world, frames);
        }
        freed_while_pending(world, frames);
    });
}

/// Asserts that a free is refused for this reason.
fn refuse<P: Platform>(frames: &Frames<'_, P>, memory: FrameSpan, error: FreeError) {
    assert_eq!(frames.free_raw(memory.start(), memory.count()), Err(error));
}

fn never_lent<P: Platform>(frames: &Frames<'_, P>) -> u32 {
    let pfn = Pfn::new(FAR_OFF);
    refuse(frames, span(FAR_OFF, 1), FreeError::NeverLent(pfn));
    refuse(frames, span(FAR_OFF, 8), FreeError::NeverLent(pfn));
    let block = Block::from_raw(pfn, Order::new(3).unwrap()).unwrap();
    assert_eq!(frames.free(block), Err(FreeError::NeverLent(pfn)));
    3
}

/// A tree that nothing else in these scenarios touches.
const FAR_OFF: usize = 20 * 512;

fn freed_before<P: Platform>(frames: &Frames<'_, P>) -> u32 {
    let pfn = frames.alloc_raw(Order::ZERO, AllocFlags::empty()).unwrap();
    let one = FrameSpan::new(pfn, ONE).unwrap();
    frames.free_raw(pfn, ONE).unwrap();
    refuse(frames, one, FreeError::AlreadyFree(pfn, Place::Pool));
    frames.drain();
    refuse(frames, one, FreeError::AlreadyFree(pfn, Place::Tree));
    // A block in a stack, by its head and from inside.
    let single = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
    let head = frames.alloc_raw(Order::new(3).unwrap(), AllocFlags::empty()).unwrap();
    frames.free(Block::from_raw(head, Order::new(3).unwrap()).unwrap()).unwrap();
    let again = frames.free(Block::from_raw(head, Order::new(3).unwrap()).unwrap());
    assert!(
        matches!(again, Err(FreeError::AlreadyFree(found, Place::Pool | Place::Tree)) if found == head),
        "{again:?}"
    );
    frames.free(single).unwrap();
    // A single frame of a tree that is otherwise free waits in the return buffer.
    let far = span(FAR_OFF + 700, 1);
    let _ = frames.alloc_at(far).unwrap().into_raw();
    frames.free_raw(far.start(), ONE).unwrap();
    refuse(frames, far, FreeError::AlreadyFree(far.start(), Place::ReturnBuffer));
    frames.drain();
    refuse(frames, far, FreeError::AlreadyFree(far.start(), Place::Tree));
    5
}

fn reserved_or_offline<P: Platform>(frames: &Frames<'_, P>) -> u32 {
    let reserved = Pfn::new((1 << 14) + 3);
    refuse(frames, span(reserved.number(), 1), FreeError::Reserved(reserved));
    refuse(frames, span(reserved.number(), 7), FreeError::Reserved(reserved));
    let gone = span(FAR_OFF + 1024, 600);
    frames.offline(gone).unwrap();
    let inside = Pfn::new(FAR_OFF + 1300);
    refuse(frames, span(inside.number(), 1), FreeError::Offline(inside));
    refuse(frames, gone, FreeError::Offline(gone.start()));
    frames.online(gone).unwrap();
    4
}

fn outside<P: Platform>(frames: &Frames<'_, P>) -> u32 {
    for number in [1 << 15, (1 << 15) + 99, 1 << 40, usize::MAX - 1] {
        refuse(frames, span(number, 1), FreeError::NotManaged(Pfn::new(number)));
    }
    let last = Pfn::new(usize::MAX);
    assert_eq!(frames.free_raw(last, FrameCount::new(2)), Err(FreeError::Misaligned(last)));
    assert_eq!(frames.free_raw(Pfn::new(5), FrameCount::ZERO), Err(FreeError::Misaligned(Pfn::new(5))));
    6
}

/// Of a range of which one frame is not lent nothing is freed, whichever frame it is.
fn half_of_a_range<P: Platform>(frames: &Frames<'_, P>) -> u32 {
    const COUNT: usize = 1200;
    let first = FAR_OFF + 300;
    let mut refused = 0;
    for hole in [first, first + 1, first + 511, first + 700, first + COUNT - 1] {
        let range = frames.alloc_at(span(first, COUNT)).unwrap();
        frames.free_raw(Pfn::new(hole), ONE).unwrap();
        frames.drain();
        let before = frames.census();
        let error = frames.free_range(range).unwrap_err();
        assert_eq!(error, FreeError::AlreadyFree(Pfn::new(hole), Place::Tree));
        assert_eq!(frames.census(), before, "nothing of the range was freed");
        refused += 1;
        for part in [(first, hole), (hole + 1, first + COUNT)] {
            if part.0 < part.1 {
                frames.free_range(FrameRange::from_raw(span(part.0, part.1 - part.0))).unwrap();
            }
        }
        frames.drain();
    }
    // Across the end of memory.
    let last = frames.alloc_at(span((1 << 15) - 4, 4)).unwrap();
    refuse(frames, span((1 << 15) - 4, 8), FreeError::NotManaged(Pfn::new(1 << 15)));
    frames.free_range(last).unwrap();
    refused + 1
}

/// A frame that was freed while its arena's lock was held waits in the pending map, and is known to be free.
///
/// The lock is held by another CPU that looks at everything; the free comes from code that may not wait for it.
fn freed_while_pending<W: World>(world: &W, frames: &Frames<'_, W::P>) {
    if world.cpus() < 2 {
        return;
    }
    let done = Flag::new();
    let found = AtomicU32::new(0);
    world.on_all(&|cpu| match cpu {
        0 => {
            let _done = done.raise_at_end();
            // The other CPU may be one that is only simulated now and then: it takes as long as it takes.
            for round in 0..PATIENCE {
                found.fetch_add(u32::from(free_twice_pinned(frames)), Ordering::Relaxed);
                let count = found.load(Ordering::Relaxed);
                if count >= 20 || count > 0 && round >= world.effort() {
                    break;
                }
            }
        }
        1 => {
            while !done.is_raised() {
                // Meanwhile frames are on their way, so what it finds says nothing.
                let _ = frames.validate();
            }
        }
        _ => {}
    });
    settle(world, frames);
    assert!(found.into_inner() > 0, "no free ever found the lock held");
}

/// How often a free is tried that is to find the lock held.
const PATIENCE: usize = 1 << 24;

/// Frees a frame twice as an interrupt of the allocator would; whether the second found it in the pending map.
fn free_twice_pinned<P: Platform>(frames: &Frames<'_, P>) -> bool {
    let pfn = frames.alloc_raw(Order::ZERO, AllocFlags::empty()).unwrap();
    let pinned = P::pin();
    frames.free_raw(pfn, ONE).unwrap();
    let again = frames.free_raw(pfn, ONE);
    drop(pinned);
    match again {
        Err(FreeError::AlreadyFree(found, Place::Pending)) if found == pfn => true,
        Err(FreeError::AlreadyFree(found, Place::Tree)) if found == pfn => false,
        other => panic!("{pfn:?} was freed twice: {other:?}"),
    }
}
