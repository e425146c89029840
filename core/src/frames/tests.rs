//! The front end against its contract, on machines of a few frames and of the real geometry.

use std::vec::Vec;

use super::*;
use crate::config::Fast;
use crate::error::{Place, SetupError};
use crate::id::{CpuId, NodeMask};
use crate::kind::ZoneKind;
use crate::testing::{Sim, add, bytes, machine, span};
use crate::zone::Watermarks;

/// Arenas of 64 frames in trees of 8.
pub(super) struct Tiny;
impl Config for Tiny {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 2;
    const EMBEDDER_WORDS: bool = true;
}

/// As [`Tiny`] without words for what is lent.
pub(super) struct TinyFast;
impl Config for TinyFast {
    const CHECKED: bool = false;
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 2;
}

fn order(log2: u32) -> Order {
    Order::new(log2).unwrap()
}

fn one(frames: &Frames<'static, Sim, impl Config>) -> Pfn {
    frames.alloc_raw(Order::ZERO, AllocFlags::empty()).unwrap()
}

fn free_one(frames: &Frames<'static, Sim, impl Config>, pfn: Pfn) -> Result<(), FreeError> {
    frames.free_raw(pfn, FrameCount::new(1))
}

/// Everything comes home and adds up.
fn assert_whole(frames: &Frames<'static, Sim, impl Config>) {
    frames.drain();
    frames.validate().unwrap();
    let census = frames.census();
    assert_eq!((census.lent(), census.pooled, census.returning), (0, 0, 0), "{census:?}");
    assert_eq!(census.free + census.reserved + census.offline, census.present);
}

fn exhaust<C: Config>(memory: FrameSpan) {
    let frames = machine::<C>(memory, 2);
    let mut all: Vec<Pfn> = core::iter::from_fn(|| frames.alloc_raw(Order::ZERO, AllocFlags::empty()).ok()).collect();
    assert_eq!(all.len(), memory.count().get(), "the last frame can be had");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), memory.count().get(), "no frame twice");
    assert!(all.iter().all(|&pfn| memory.contains(pfn)));
    frames.validate().unwrap();
    for pfn in all {
        free_one(&frames, pfn).unwrap();
    }
    assert_whole(&frames);
    let largest = frames.zone_infos().next().unwrap().blocks;
    let fresh = machine::<C>(memory, 2);
    assert_eq!(largest, fresh.zone_infos().next().unwrap().blocks, "all coalesced");
}

#[test]
fn every_frame_is_lent_once_and_comes_home() {
    exhaust::<Tiny>(span(0, 64));
    if !cfg!(miri) {
        exhaust::<Tiny>(span(61, 200));
        exhaust::<Tiny>(span(usize::MAX - 150, 149));
        exhaust::<Checked>(span(3, 5000));
        exhaust::<Fast>(span(3, 5000));
        exhaust::<Checked>(span((1 << 18) - 700, 1500));
    }
}

#[test]
fn a_double_free_is_caught_wherever_the_frame_lies() {
    let frames = machine::<Tiny>(span(0, 64), 1);
    let first = one(&frames);
    let error = free_one(&frames, Pfn::new(60)).unwrap_err();
    assert_eq!(error, FreeError::NeverLent(Pfn::new(60)));
    free_one(&frames, first).unwrap();
    assert_eq!(free_one(&frames, first), Err(FreeError::AlreadyFree(first, Place::Pool)));
    frames.drain();
    assert_eq!(free_one(&frames, first), Err(FreeError::AlreadyFree(first, Place::Tree)));
    // A frame of a sparse tree goes to the return buffer.
    let block = frames.alloc_range(&Request::frames(FrameCount::new(8))).unwrap().into_raw();
    frames.free_raw(block.start(), FrameCount::new(4)).unwrap();
    let single = frames.alloc_at(span(block.start().number(), 1)).unwrap().into_raw().start();
    assert_eq!(free_one(&frames, single), Ok(()));
    assert_eq!(free_one(&frames, single), Err(FreeError::AlreadyFree(single, Place::ReturnBuffer)));
    assert_eq!(free_one(&frames, Pfn::new(64)), Err(FreeError::NotManaged(Pfn::new(64))));
    frames.free_raw(Pfn::new(block.start().number() + 4), FrameCount::new(4)).unwrap();
    assert_whole(&frames);
}

#[test]
#[cfg_attr(miri, ignore = "too many frames")]
fn blocks_in_stacks_are_known_to_be_free() {
    let frames = machine::<Checked>(span(0, 1 << 16), 1);
    // Only a pool of full size has stacks; a refill of single frames sizes it.
    let single = one(&frames);
    let block = frames.alloc(order(3), AllocFlags::empty()).unwrap();
    let head = block.head();
    frames.free(block).unwrap();
    let again = Block::from_raw(head, order(3)).unwrap();
    assert_eq!(frames.free(again), Err(FreeError::AlreadyFree(head, Place::Pool)));
    let inside = Pfn::new(head.number() + 5);
    assert_eq!(free_one(&frames, inside), Err(FreeError::AlreadyFree(inside, Place::Pool)));
    free_one(&frames, single).unwrap();
    assert_whole(&frames);
}

#[test]
fn a_refused_range_changes_nothing() {
    let frames = machine::<Tiny>(span(0, 256), 1);
    let range = frames.alloc_range(&Request::frames(FrameCount::new(30))).unwrap().into_raw();
    let hole = Pfn::new(range.start().number() + 20);
    free_one(&frames, hole).unwrap();
    frames.drain();
    let before = frames.census();
    let error = frames.free_raw(range.start(), range.count()).unwrap_err();
    assert_eq!(error, FreeError::AlreadyFree(hole, Place::Tree));
    let outside = frames.free_raw(Pfn::new(250), FrameCount::new(10)).unwrap_err();
    assert!(matches!(outside, FreeError::NeverLent(_) | FreeError::AlreadyFree(..)));
    assert_eq!(
        frames.free_raw(Pfn::new(usize::MAX), FrameCount::new(2)),
        Err(FreeError::Misaligned(Pfn::new(usize::MAX)))
    );
    assert_eq!(frames.census(), before);
    frames.validate().unwrap();
    frames.free_raw(range.start(), FrameCount::new(20)).unwrap();
    frames.free_raw(Pfn::new(hole.number() + 1), FrameCount::new(9)).unwrap();
    assert_whole(&frames);
}

#[test]
fn any_part_of_a_block_can_be_freed() {
    for start in if cfg!(miri) { 5..6 } else { 0..8 } {
        for count in 1..=8 - start {
            let frames = machine::<Tiny>(span(0, 64), 1);
            let head = frames.alloc(order(3), AllocFlags::empty()).unwrap().into_raw().0.number();
            frames.free_raw(Pfn::new(head + start), FrameCount::new(count)).unwrap();
            frames.drain();
            frames.validate().unwrap();
            assert_eq!(frames.census().lent(), 8 - count);
            for place in (0..start).chain(start + count..8) {
                free_one(&frames, Pfn::new(head + place)).unwrap();
            }
            assert_whole(&frames);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many steps")]
fn runs_longer_than_an_arena_are_whole_arenas_in_a_row() {
    let frames = machine::<Tiny>(span(0, 64 * 6), 1);
    let pin = frames.alloc_at(span(64 + 5, 1)).unwrap();
    let run = frames.alloc_range(&Request::frames(FrameCount::new(150))).unwrap();
    assert_eq!(run.span().start(), Pfn::new(128), "the first arena stands alone");
    frames.validate().unwrap();
    let all = Request::frames(FrameCount::new(64 * 5));
    assert_eq!(frames.alloc_range(&all), Err(AllocError::NoMemory));
    frames.free_range(run).unwrap();
    frames.free_range(pin).unwrap();
    let run = frames.alloc_range(&all).unwrap();
    frames.free_range(run).unwrap();
    assert_whole(&frames);
}

/// Memory that came a frame at a time is many arenas, whose locks are not all held at once.
#[test]
#[cfg_attr(miri, ignore = "too many frames")]
fn a_range_over_many_small_arenas_is_freed_on_a_small_stack() {
    const COUNT: usize = 1000;
    let frames = Frames::<Sim, Tiny>::new();
    let all = span(0, COUNT);
    frames.init(all, 1, 1, bytes(Frames::<Sim, Tiny>::base_metadata_size(all, 1, 1))).unwrap();
    (0..COUNT).for_each(|frame| add(&frames, NodeId::ZERO, ZoneKind::Normal, span(frame, 1), &[]));
    let range = frames.alloc_at(all).unwrap();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let freed = thread.spawn_scoped(scope, || frames.free_range(range)).unwrap();
        assert_eq!(freed.join().unwrap(), Ok(()));
    });
    assert_whole(&frames);
}

#[test]
fn limits_and_alignment_are_kept() {
    let frames = machine::<Tiny>(span(0, 256), 1);
    let low = frames.alloc_range(&Request::frames(FrameCount::new(3)).below(Pfn::new(5))).unwrap();
    assert!(low.span().end() <= Pfn::new(5));
    let none = frames.alloc_range(&Request::frames(FrameCount::new(3)).below(Pfn::new(5)));
    assert_eq!(none, Err(AllocError::NoMemory));
    let aligned = frames.alloc_range(&Request::frames(FrameCount::new(5)).aligned(32)).unwrap();
    assert_eq!(aligned.span().start().number() % 32, 0);
    for bad in [Request::frames(FrameCount::ZERO), Request::frames(FrameCount::new(1)).aligned(3)] {
        assert_eq!(frames.alloc_range(&bad), Err(AllocError::Impossible));
    }
    assert_eq!(frames.alloc(order(7), AllocFlags::empty()), Err(AllocError::Impossible));
    frames.free_range(low).unwrap();
    frames.free_range(aligned).unwrap();
    assert_whole(&frames);
}

#[test]
fn movable_and_unmovable_start_at_opposite_ends() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    let fixed = one(&frames);
    let moving = frames.alloc_raw(Order::ZERO, AllocFlags::MOVABLE).unwrap();
    assert!(fixed < Pfn::new(8) && moving >= Pfn::new(120), "{fixed:?} {moving:?}");
    let block = frames.alloc(order(2), AllocFlags::MOVABLE).unwrap();
    assert!(block.head() >= Pfn::new(112));
    frames.free(block).unwrap();
    free_one(&frames, fixed).unwrap();
    free_one(&frames, moving).unwrap();
    assert_whole(&frames);
}

#[test]
fn reserving_and_releasing_by_name() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    frames.reserve(span(60, 10)).unwrap();
    assert_eq!(frames.reserve(span(50, 11)), Err(SetupError::NotFree(Pfn::new(60))));
    assert_eq!(frames.reserve(span(120, 9)), Err(SetupError::NotManaged(Pfn::new(128))));
    assert_eq!(free_one(&frames, Pfn::new(62)), Err(FreeError::Reserved(Pfn::new(62))));
    assert_eq!(frames.census().reserved, 10);
    frames.validate().unwrap();
    assert_eq!(frames.release(span(59, 2)), Err(SetupError::NotReserved(Pfn::new(59))));
    frames.release(span(60, 10)).unwrap();
    assert_eq!(frames.census().free, 128);
    assert_whole(&frames);
}

#[test]
fn a_range_leaves_service_as_its_frames_come_home() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    let kept = frames.alloc_at(span(20, 3)).unwrap();
    assert_eq!(frames.offline(span(16, 16)), Err(SetupError::StillLent(FrameCount::new(3))));
    assert_eq!(frames.offline(span(0, 8)), Err(SetupError::Busy(span(16, 16))));
    frames.validate().unwrap();
    let mut others = Vec::new();
    while let Ok(pfn) = frames.alloc_raw(Order::ZERO, AllocFlags::empty()) {
        assert!(!(16..32).contains(&pfn.number()), "a leaving frame was lent");
        others.push(pfn);
    }
    assert_eq!(others.len(), 112);
    frames.free_range(kept).unwrap();
    frames.offline(span(16, 16)).unwrap();
    assert_eq!(free_one(&frames, Pfn::new(20)), Err(FreeError::Offline(Pfn::new(20))));
    assert_eq!(frames.census().offline, 16);
    frames.free_bulk(&others).unwrap();
    frames.drain();
    frames.validate().unwrap();
    frames.online(span(16, 16)).unwrap();
    assert_eq!(frames.online(span(16, 16)), Err(SetupError::NotOffline(Pfn::new(16))));
    assert_eq!(frames.census().free, 128);
    assert_whole(&frames);
}

fn two_nodes() -> Frames<'static, Sim, Tiny> {
    let frames = Frames::<Sim, Tiny>::new();
    let all = span(0, 512);
    frames.init(all, 2, 3, bytes(Frames::<Sim, Tiny>::base_metadata_size(all, 2, 3))).unwrap();
    add(&frames, NodeId::ZERO, ZoneKind::Normal, span(0, 100), &[]);
    add(&frames, NodeId::new(1).unwrap(), ZoneKind::Normal, span(100, 156), &[]);
    frames.set_distance(NodeId::ZERO, NodeId::new(1).unwrap(), 21).unwrap();
    frames.set_cpu_node(CpuId::new(1), NodeId::new(1).unwrap()).unwrap();
    frames
}

#[test]
fn policies_choose_the_node() {
    let frames = two_nodes();
    let (zero, first) = (NodeId::ZERO, NodeId::new(1).unwrap());
    let node_of = |range: &FrameRange| usize::from(range.span().start().number() >= 100);
    let get = |policy| frames.alloc_range(&Request::frames(FrameCount::new(1)).policy(policy));
    let mut held = Vec::new();
    for (policy, node) in [
        (Policy::Local, 0),
        (Policy::Bind(NodeMask::of(first)), 1),
        (Policy::Preferred(first), 1),
        (Policy::PreferredMany(NodeMask::of(first)), 1),
    ] {
        let range = get(policy).unwrap();
        assert_eq!(node_of(&range), node, "{policy:?}");
        held.push(range);
    }
    let both = NodeMask::of(zero).with(first);
    let nodes: Vec<_> = (0..6).map(|_| get(Policy::Interleave(both)).unwrap()).collect();
    assert_eq!(nodes.iter().map(node_of).sum::<usize>(), 3);
    held.extend(nodes);
    // All weights there can be, whose sum is more than a weight can be.
    [zero, first].iter().for_each(|&node| frames.set_weight(node, u32::MAX).unwrap());
    held.push(get(Policy::WeightedInterleave(both)).unwrap());
    assert_eq!(node_of(&held[held.len() - 1]), 0);
    frames.set_weight(zero, 1).unwrap();
    frames.set_weight(first, 3).unwrap();
    let nodes: Vec<_> = (0..8).map(|_| get(Policy::WeightedInterleave(both)).unwrap()).collect();
    assert_eq!(nodes.iter().map(node_of).sum::<usize>(), 6);
    held.extend(nodes);
    assert_eq!(get(Policy::Bind(NodeMask::of(NodeId::new(2).unwrap()))), Err(AllocError::NoMemory));
    let counts = frames.numa_counts(first);
    assert_eq!((counts.numa_hit, counts.interleave_hit, counts.other_node), (12, 9, 12));
    for range in held {
        frames.free_range(range).unwrap();
    }
    assert_whole(&frames);
}

#[test]
fn an_exhausted_node_falls_back_unless_bound() {
    let frames = two_nodes();
    let mut held = Vec::new();
    let bound = Request::frames(FrameCount::new(1)).policy(Policy::Bind(NodeMask::of(NodeId::ZERO)));
    while let Ok(range) = frames.alloc_range(&bound) {
        held.push(range);
    }
    assert_eq!(held.len(), 100);
    let far = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
    assert!(far.head() >= Pfn::new(100));
    let (zero, first) = (frames.numa_counts(NodeId::ZERO), frames.numa_counts(NodeId::new(1).unwrap()));
    assert_eq!((zero.numa_hit, zero.numa_foreign, first.numa_miss), (100, 1, 1));
    frames.free(far).unwrap();
    held.into_iter().for_each(|range| frames.free_range(range).unwrap());
    assert_whole(&frames);
}

#[test]
#[cfg_attr(miri, ignore = "too many steps")]
fn watermarks_keep_a_reserve_for_those_that_cannot_wait() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    let marks = Watermarks { min: 16, low: 24, high: 32 };
    frames.set_watermarks(NodeId::ZERO, ZoneKind::Normal, marks).unwrap();
    static TOLD: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    static HOOK: fn(NodeId) = |_| {
        TOLD.fetch_add(1, Ordering::Relaxed);
    };
    frames.set_low_hook(&HOOK);
    let mut held = Vec::new();
    while let Ok(pfn) = frames.alloc_raw(Order::ZERO, AllocFlags::empty()) {
        held.push(pfn);
    }
    assert_eq!(held.len(), 128 - 16);
    assert!(TOLD.load(Ordering::Relaxed) > 0, "background reclaim is told");
    while let Ok(pfn) = frames.alloc_raw(Order::ZERO, AllocFlags::ATOMIC) {
        held.push(pfn);
    }
    assert_eq!(held.len(), 128 - 8);
    frames.free_bulk(&held).unwrap();
    assert_whole(&frames);
}

#[test]
fn what_cannot_be_set_up_says_why() {
    let frames = Frames::<Sim, Tiny>::new();
    assert_eq!(frames.alloc(Order::ZERO, AllocFlags::empty()), Err(AllocError::NotReady));
    assert_eq!(free_one(&frames, Pfn::new(1)), Err(FreeError::NotManaged(Pfn::new(1))));
    let needed_bytes = Frames::<Sim, Tiny>::base_metadata_size(span(0, 256), 1, 1);
    let short = frames.init(span(0, 256), 1, 1, bytes(needed_bytes - 1));
    assert_eq!(short, Err(SetupError::MetadataTooSmall { needed_bytes }));
    frames.init(span(0, 256), 1, 1, bytes(needed_bytes)).unwrap();
    assert_eq!(frames.init(span(0, 256), 1, 1, bytes(needed_bytes)), Err(SetupError::State));
    add(&frames, NodeId::ZERO, ZoneKind::Normal, span(64, 64), &[]);
    let bad = |node, memory| frames.add_memory(node, ZoneKind::Normal, memory, &[], bytes(1 << 16));
    assert_eq!(bad(NodeId::ZERO, span(0, 65)), Err(SetupError::Overlap(span(64, 1))));
    assert_eq!(bad(NodeId::ZERO, span(250, 7)), Err(SetupError::OutsideSpan(span(250, 7))));
    assert_eq!(bad(NodeId::ZERO, span(200, 56)), Ok(()));
    let ghost = NodeId::new(1).unwrap();
    assert_eq!(bad(ghost, span(0, 1)), Err(SetupError::NoSuchNode(ghost)));
    assert_eq!(frames.set_cpu_node(CpuId::new(1), NodeId::ZERO), Err(SetupError::TooManyCpus(CpuId::new(1))));
    assert_eq!(
        frames.set_distance(NodeId::ZERO, NodeId::ZERO, 20),
        Err(SetupError::BadDistance(NodeId::ZERO, NodeId::ZERO))
    );
    assert_whole(&frames);
}

#[test]
fn reserved_ranges_may_overlap_and_reach_beyond() {
    let frames = Frames::<Sim, Tiny>::new();
    frames.init(span(0, 256), 1, 1, bytes(Frames::<Sim, Tiny>::base_metadata_size(span(0, 256), 1, 1))).unwrap();
    let reserved = [span(70, 10), span(75, 20), span(0, 66), span(190, 100), span(92, 1)];
    add(&frames, NodeId::ZERO, ZoneKind::Normal, span(60, 140), &reserved);
    let census = frames.census();
    assert_eq!((census.present, census.reserved, census.free), (140, 6 + 25 + 10, 99));
    frames.validate().unwrap();
    frames.release(span(60, 6)).unwrap();
    assert_whole(&frames);
}

#[test]
fn an_interrupt_allocates_and_frees_while_the_allocator_is_interrupted() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    let held = one(&frames);
    let (got, twice) = Sim::interrupting(|| {
        let got = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
        free_one(&frames, held).unwrap();
        (got, free_one(&frames, held))
    });
    assert_eq!(twice, Err(FreeError::AlreadyFree(held, Place::Tree)));
    frames.free(got).unwrap();
    assert_whole(&frames);
}

#[test]
fn an_interrupt_of_the_lock_holder_leaves_its_frees_behind() {
    let frames = machine::<Tiny>(span(0, 128), 1);
    let range = frames.alloc_range(&Request::frames(FrameCount::new(5))).unwrap().into_raw();
    let arena = frames.nodes.arena_of(range.start()).unwrap();
    let inside = arena.with(Access::Try, |_, _| {
        Sim::interrupting(|| {
            let got = frames.alloc_range(&Request::frames(FrameCount::new(1)).below(Pfn::new(64)));
            let freed = frames.free_raw(range.start(), range.count());
            (got, freed, free_one(&frames, range.start()))
        })
    });
    let (got, freed, twice) = inside.unwrap();
    assert_eq!(got, Err(AllocError::WouldBlock));
    assert_eq!(freed, Ok(()));
    assert_eq!(twice, Err(FreeError::AlreadyFree(range.start(), Place::Pending)));
    assert_whole(&frames);
}

#[test]
#[cfg_attr(miri, ignore = "too many frames")]
fn an_interrupt_that_fills_the_pool_before_a_refill_costs_no_frame() {
    for log2 in [0, 1, 3] {
        let frames = machine::<Checked>(span(0, 1 << 16), 1);
        let mut held = Vec::new();
        // What was interrupted has seen an empty magazine each time; the interrupt is the call before.
        for _ in 0..40 {
            held.push(frames.refill_and_take(order(log2), AllocFlags::empty()).unwrap());
        }
        for head in held {
            frames.free(Block::from_raw(head, order(log2)).unwrap()).unwrap();
        }
        assert_whole(&frames);
    }
}

#[test]
fn an_interrupt_leaves_parts_of_a_block_behind() {
    for cut in if cfg!(miri) { 3..4 } else { 1..8 } {
        let frames = machine::<Tiny>(span(0, 128), 1);
        let block = frames.alloc(order(3), AllocFlags::empty()).unwrap().into_raw().0;
        let rest = Pfn::new(block.number() + cut);
        let arena = frames.nodes.arena_of(block).unwrap();
        let left = arena.with(Access::Try, |_, _| {
            Sim::interrupting(|| {
                frames.free_raw(rest, FrameCount::new(8 - cut)).unwrap();
                let twice = frames.free_raw(rest, FrameCount::new(1));
                (twice, frames.free_raw(block, FrameCount::new(cut)))
            })
        });
        let (twice, first) = left.unwrap();
        assert_eq!(twice, Err(FreeError::AlreadyFree(rest, Place::Pending)), "cut at {cut}");
        assert_eq!(first, Ok(()));
        assert_whole(&frames);
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many frames")]
fn no_frame_number_is_taken_for_one_of_an_empty_pool() {
    let frames = machine::<Fast>(span(0, 1 << 16), 1);
    let held = one(&frames);
    for wrong in [usize::MAX - 1, usize::MAX - 300, 1 << 16] {
        let error = FreeError::NotManaged(Pfn::new(wrong));
        assert_eq!(free_one(&frames, Pfn::new(wrong)), Err(error), "while the pool has a tree");
        frames.drain();
        assert_eq!(free_one(&frames, Pfn::new(wrong)), Err(error), "when it has none");
    }
    free_one(&frames, held).unwrap();
    assert_whole(&frames);
}

#[test]
fn the_embedders_word_is_the_embedders() {
    let frames = machine::<Tiny>(span(5, 100), 1);
    let word = frames.embedder_word(Pfn::new(7)).unwrap();
    word.store(9, Ordering::Relaxed);
    assert_eq!(frames.embedder_word(Pfn::new(7)).unwrap().load(Ordering::Relaxed), 9);
    assert!(frames.embedder_word(Pfn::new(4)).is_none());
    assert!(machine::<Checked>(span(0, 10), 1).embedder_word(Pfn::new(1)).is_none());
}

#[test]
#[cfg_attr(miri, ignore = "too many frames")]
fn fast_finds_a_double_free_when_the_frame_reaches_its_tree() {
    let frames = machine::<Fast>(span(0, 4096), 1);
    let pfn = one(&frames);
    free_one(&frames, pfn).unwrap();
    free_one(&frames, pfn).unwrap();
    frames.drain();
    assert_eq!(frames.late_faults(), (1, Some(pfn)));
    assert_eq!(frames.census().free, 4096, "the frame is there once");
    let error = frames.free_raw(Pfn::new(100), FrameCount::new(4)).unwrap_err();
    assert_eq!(error, FreeError::AlreadyFree(Pfn::new(100), Place::Tree));
}

#[test]
fn metadata_stays_within_its_budget() {
    let gib = span(0, 1 << 18);
    let bytes = Frames::<Sim, Checked>::metadata_size(gib, 4, 1);
    let budget = (1usize << 30) * 15 / 10_000;
    assert!(bytes <= budget, "{bytes} of {budget}");
    std::println!("metadata of 1 GiB: {bytes} bytes");
}
