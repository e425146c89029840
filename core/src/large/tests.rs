//! Large objects by their addresses. What their bytes say is tested in `global`.

use std::vec::Vec;

use super::*;
use crate::error::SetupError;
use crate::flags::AllocFlags;
use crate::order::Order;
use crate::testing::{Checked, Fast, Sim, heap, heap_at, span};

const FRAME: usize = 4096;
const HUGE: usize = if cfg!(miri) { 16 * FRAME } else { 2 << 20 };
/// Frames of most heaps here.
const FRAMES: usize = if cfg!(miri) { 128 } else { 2048 };

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn plain(size: usize) -> Layout {
    layout(size, 1)
}

/// Everything is back, but what describes slabs.
fn comes_home<C: Config>(heap: &Heap<'static, Sim, C>) {
    heap.drain();
    assert_eq!(heap.kept_bytes(), 0);
    let census = heap.validate().unwrap();
    heap.frames().validate().unwrap();
    assert_eq!(heap.frames().census().lent() * FRAME, census.descriptor_bytes);
}

#[test]
fn a_kept_block_serves_the_next_of_its_size() {
    let heap = heap::<Checked>(FRAMES, 1);
    // For no more is room made among what is kept.
    let size = HUGE.min(Checked::LARGE_CACHE_BYTES / 4);
    let first = heap.alloc_address(plain(size)).unwrap();
    heap.free_address(first, plain(size)).unwrap();
    assert_eq!(heap.kept_bytes(), size);
    heap.validate().unwrap();
    heap.frames().validate().unwrap();
    let other = heap.alloc_address(plain(size - FRAME)).unwrap();
    assert_ne!(other, first);
    let again = heap.alloc_address(plain(size - 1)).unwrap();
    assert_eq!((again, heap.kept_bytes()), (first, 0), "whole frames count");
    heap.free_address(again, plain(size - 1)).unwrap();
    heap.free_address(other, plain(size - FRAME)).unwrap();
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn a_kept_block_serves_only_what_it_is_aligned_for() {
    let heap = heap::<Checked>(FRAMES, 1);
    let size = 16 * FRAME;
    let blocks: Vec<_> = (0..8).map(|_| heap.alloc_address(plain(size)).unwrap()).collect();
    let odd = *blocks.iter().find(|block| !block.is_multiple_of(8 * size)).unwrap();
    heap.free_address(odd, plain(size)).unwrap();
    let strict = heap.alloc_address(layout(size, 8 * size)).unwrap();
    assert!(strict.is_multiple_of(8 * size));
    assert_eq!(heap.kept_bytes(), size);
    assert_eq!(heap.alloc_address(plain(size)), Ok(odd));
    heap.free_address(strict, layout(size, 8 * size)).unwrap();
    blocks.into_iter().for_each(|block| heap.free_address(block, plain(size)).unwrap());
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn what_is_kept_is_bounded_by_bytes_and_by_number() {
    let heap = heap::<Checked>(16384, 1);
    let sizes = (9..=100).chain([400, 512, 1000, 1024, 1025]).map(|frames| frames * FRAME);
    let lent: Vec<_> = sizes.map(|size| (heap.alloc_address(plain(size)).unwrap(), size)).collect();
    for (address, size) in lent {
        heap.free_address(address, plain(size)).unwrap();
        assert!(heap.kept_bytes() <= Checked::LARGE_CACHE_BYTES);
        heap.frames().validate().unwrap();
    }
    let small: Vec<_> = (0..100).map(|_| heap.alloc_address(plain(9 * FRAME)).unwrap()).collect();
    for address in small {
        heap.free_address(address, plain(9 * FRAME)).unwrap();
    }
    assert!(heap.kept_bytes() <= 64 * 9 * FRAME && heap.kept_bytes() >= 60 * 9 * FRAME);
    comes_home(heap);
}

/// Half of the frames that what is kept lies among would do for nobody who wants more than any of it.
#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn what_is_kept_makes_room_for_what_is_larger() {
    let heap = heap::<Checked>(8192, 1);
    let small = 40 * FRAME;
    let lent: Vec<_> = (0..100).map(|_| heap.alloc_address(plain(small)).unwrap()).collect();
    let end = lent.iter().max().unwrap() + small;
    for &address in &lent[..60] {
        heap.free_address(address, plain(small)).unwrap();
    }
    assert!(heap.kept_bytes() > 800 * FRAME);
    let large = plain(1025 * FRAME);
    let address = heap.alloc_address(large).unwrap();
    assert!(address < end && heap.kept_bytes() == 0, "{address:#x} {end:#x}");
    heap.free_address(address, large).unwrap();
    for &address in &lent[60..] {
        heap.free_address(address, plain(small)).unwrap();
    }
    comes_home(heap);
}

/// As in a process: sizes have steps, and one node is all there is.
struct Steps<const CHECKED: bool>;
impl<const ON: bool> Config for Steps<ON> {
    const CHECKED: bool = ON;
    const NUMA: bool = false;
    const LARGE_SIZES_PER_DOUBLING: usize = 8;
}

fn somewhat_smaller_is_served<const ON: bool>(is_handy: bool) {
    let heap = heap::<Steps<ON>>(FRAMES, 1);
    let first = heap.alloc_address(plain(20 * FRAME)).unwrap();
    heap.free_address(first, plain(20 * FRAME)).unwrap();
    if !is_handy {
        heap.ready.take().for_each(|span| heap.put_away(span));
    }
    heap.validate().unwrap();
    let much_smaller = heap.alloc_address(plain(15 * FRAME)).unwrap();
    assert_ne!(much_smaller, first);
    let second = heap.alloc_address(plain(16 * FRAME)).unwrap();
    assert_eq!((second, heap.kept_bytes()), (first, 0));
    // It is one of the size that was asked for, and has more for whoever asks what there is.
    let block = heap.large_span(second).unwrap();
    assert_eq!((block.count().get(), heap.frames.asked_of(block).get()), (20, 16));
    for wrong in [12, 15, 18, 20, 22] {
        let fault = heap.free_address(second, plain(wrong * FRAME)).unwrap_err();
        assert_eq!((fault.kind, fault.object_bytes), (BadFreeKind::WrongSize, 20 * FRAME), "{wrong}");
        assert!(heap.object_of(second, plain(wrong * FRAME)).is_err());
    }
    // Smaller and larger where it is, until it would waste too much.
    for (from, to) in [(16, 20), (20, 16), (16, 18), (18, 30), (30, 9), (9, 16)] {
        let held = heap.object_of(second, plain(from * FRAME)).unwrap();
        if !heap.resize(second, held, plain(to * FRAME)) {
            // The other lies behind it.
            assert!(to == 30 || from == 30 || to == 16, "{from} to {to}");
            continue;
        }
        let (block, asked) = (heap.large_span(second).unwrap(), Heap::<Sim, Steps<ON>>::frames_of(to * FRAME));
        assert!(heap.frames.asked_of(block) == asked && block.count() <= Heap::<Sim, Steps<ON>>::most_for(asked));
        heap.frames().validate().unwrap();
    }
    heap.free_address_unsized(second).unwrap();
    for size in [9, 16, 20] {
        assert_eq!(heap.free_address(second, plain(size * FRAME)).unwrap_err().kind, BadFreeKind::NotLent);
    }
    heap.free_address(much_smaller, plain(15 * FRAME)).unwrap();
    comes_home(heap);
}

#[test]
fn a_freed_block_serves_what_is_somewhat_smaller() {
    for is_handy in [false, true] {
        somewhat_smaller_is_served::<true>(is_handy);
        somewhat_smaller_is_served::<false>(is_handy);
    }
}

/// As [`Checked`], keeps nothing.
struct KeepsNone;
impl Config for KeepsNone {
    const LARGE_CACHE_BYTES: usize = 0;
}

#[test]
fn nothing_is_kept_where_none_may_be() {
    let heap = heap::<KeepsNone>(FRAMES, 1);
    let address = heap.alloc_address(plain(HUGE)).unwrap();
    heap.free_address(address, plain(HUGE)).unwrap();
    assert_eq!(heap.kept_bytes(), 0);
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn what_is_kept_is_there_for_whoever_needs_it() {
    let heap = heap::<Checked>(1024, 1);
    let mut sizes = [1000, 500, 900, 20, 1000].map(|frames| frames * FRAME).into_iter();
    let mut address = heap.alloc_address(plain(1000 * FRAME)).unwrap();
    let mut size = sizes.next().unwrap();
    for next in sizes {
        heap.free_address(address, plain(size)).unwrap();
        address = heap.answer(plain(next), false).address().unwrap();
        size = next;
    }
    heap.free_address(address, plain(size)).unwrap();
    let small: Vec<_> = std::iter::from_fn(|| heap.alloc_address(plain(64)).ok()).take(40_000).collect();
    assert_eq!(small.len(), 40_000, "small objects have the frames that were kept");
    small.into_iter().for_each(|address| heap.free_address(address, plain(64)).unwrap());
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn wrong_frees_are_refused_with_what_is_wrong() {
    let heap = heap::<Checked>(4096, 1);
    let kind = |address, layout| heap.free_address(address, layout).unwrap_err();
    let unsized_kind = |address| heap.free_address_unsized(address).unwrap_err().kind;
    let small = heap.alloc_address(plain(100)).unwrap();
    // The second is of several blocks, and has been grown and shrunk.
    for size in [HUGE, 13 * FRAME, 100_000] {
        let object = heap.alloc_address(plain(size)).unwrap();
        let frames = size.div_ceil(FRAME);
        if let Some(Object::Large(all)) = heap.object_at(object) {
            let larger = heap.resize_large(all, FrameCount::new(frames + 5));
            assert!(larger, "nothing follows it");
            let all = heap.large_span(object).unwrap();
            assert_eq!(all.count().get(), frames + 5);
            assert!(heap.resize_large(all, FrameCount::new(frames)));
        }
        for inside in [1, FRAME - 1, FRAME, FRAME + 8, size / 2 / FRAME * FRAME, (frames - 1) * FRAME] {
            for layout in [plain(size), plain(8), plain(40_000)] {
                let fault = kind(object + inside, layout);
                assert_eq!(fault.kind, BadFreeKind::Interior, "{inside} of {size}");
                assert_eq!((fault.block, fault.object_bytes), (object, frames * FRAME));
            }
            assert_eq!(unsized_kind(object + inside), BadFreeKind::Interior);
        }
        for wrong in [size + FRAME, size - FRAME, 40_000 + 2 * size, 2 * size] {
            assert_eq!(kind(object, plain(wrong)).kind, BadFreeKind::WrongSize);
        }
        // Right past its end, nothing of it.
        assert_eq!(kind(object + frames * FRAME, plain(size)).kind, BadFreeKind::NotLent);
        heap.free_address(object, plain(size)).unwrap();
        assert!(heap.kept_bytes() >= size);
        for _ in 0..2 {
            assert_eq!(kind(object, plain(size)).kind, BadFreeKind::NotLent);
            assert_eq!(kind(object, plain(size + FRAME)).kind, BadFreeKind::NotLent);
            assert_eq!(kind(object + FRAME, plain(size)).kind, BadFreeKind::NotLent);
            assert_eq!(unsized_kind(object), BadFreeKind::NotLent);
            // Once in the heap, once in the frames' trees.
            heap.drain();
        }
        assert_eq!(kind(small, plain(size)).kind, BadFreeKind::WrongClass);
        heap.frames().validate().unwrap();
    }
    heap.free_address(small, plain(100)).unwrap();
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn wrong_frees_are_refused_without_checks_too() {
    // Frames have no words there while they are raw, but large objects have.
    let heap = heap::<Fast>(4096, 1);
    for size in [HUGE, 13 * FRAME] {
        let object = heap.alloc_address(plain(size)).unwrap();
        let kind = |address, size| heap.free_address(address, plain(size)).unwrap_err().kind;
        assert_eq!(kind(object + FRAME, size), BadFreeKind::Interior);
        assert_eq!(kind(object, size + FRAME), BadFreeKind::WrongSize);
        heap.free_address(object, plain(size)).unwrap();
        assert_eq!(kind(object, size), BadFreeKind::NotLent);
        heap.drain();
        assert_eq!(kind(object, size), BadFreeKind::NotLent);
    }
    comes_home(heap);
}

#[test]
fn frames_and_large_objects_are_told_apart() {
    let heap = heap::<Checked>(FRAMES, 1);
    let raw = heap.frames().alloc(Order::new(5).unwrap(), AllocFlags::empty()).unwrap();
    let address = heap.address_of(span(raw.head().number(), 32));
    let kind = |address| heap.free_address(address, plain(32 * FRAME)).unwrap_err().kind;
    assert_eq!(kind(address), BadFreeKind::Foreign, "lent, but not by the heap");
    assert_eq!(kind(heap.window.base() + FRAMES * FRAME), BadFreeKind::Foreign);
    assert_eq!(kind(8), BadFreeKind::Foreign);
    // The frames' users cannot free what the heap has, kept or not.
    let object = heap.alloc_address(plain(32 * FRAME)).unwrap();
    let Some(Object::Large(frames)) = heap.object_at(object) else { panic!("just lent") };
    let (start, count) = (frames.start(), frames.count());
    heap.frames().free_raw(start, count).unwrap_err();
    heap.free_address(object, plain(32 * FRAME)).unwrap();
    heap.frames().free_raw(start, count).unwrap_err();
    heap.frames().free(raw).unwrap();
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn strict_alignment_is_served_wherever_frame_0_lies() {
    for skew in [0, 1 << 20, 8 << 20] {
        let heap = heap_at::<Checked>(60_000, 1, skew);
        let mut lent = Vec::new();
        for align in (0..=23).map(|log2| 1 << log2) {
            for size in [1, 8, 5000, 40_000, 1 << 20] {
                let layout = layout(size, align);
                let address = heap.alloc_address(layout).unwrap();
                assert!(address.is_multiple_of(align), "{layout:?} at {address:#x}");
                lent.push((address, address + size, layout));
            }
        }
        lent.sort_unstable_by_key(|&(start, ..)| start);
        assert!(lent.windows(2).all(|pair| pair[0].1 <= pair[1].0), "apart");
        heap.validate().unwrap();
        heap.frames().validate().unwrap();
        for (address, _, layout) in lent {
            heap.free_address(address, layout).unwrap();
        }
        comes_home(heap);
    }
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn what_nobody_could_serve_is_impossible() {
    let heap = heap::<Checked>(FRAMES, 1);
    for size in [isize::MAX as usize, isize::MAX as usize - 4095, 1 << 62, 1 << 40, (FRAMES + 1) * FRAME] {
        assert_eq!(heap.alloc_address(plain(size)), Err(AllocError::Impossible));
        assert!(heap.alloc_large_zeroed(plain(size)).is_err());
    }
    assert_eq!(heap.alloc_address(plain(FRAMES * FRAME)).unwrap_or(0), heap.window.base(), "all there is");
    heap.free_address(heap.window.base(), plain(FRAMES * FRAME)).unwrap();
    for align in (24..63).map(|log2| 1 << log2) {
        let served = heap.alloc_address(layout(8, align));
        // By chance the heap itself lies at such an address.
        let beyond = align > 1 << 30 && !heap.window.base().is_multiple_of(align);
        assert!(matches!(served, Err(AllocError::NoMemory | AllocError::Impossible)) || !beyond);
        if let Ok(address) = served {
            assert!(address.is_multiple_of(align));
            heap.free_address(address, layout(8, align)).unwrap();
        }
    }
    comes_home(heap);
}

fn grows_and_shrinks_in_place<C: Config>() {
    let heap = heap::<C>(FRAMES, 1);
    let object = heap.alloc_address(plain(10 * FRAME)).unwrap();
    let resize = |from: usize, to: usize| {
        let held = heap.object_of(object, plain(from)).unwrap();
        heap.resize(object, held, plain(to))
    };
    let mut size = 10 * FRAME;
    for frames in [11, 64, 65, 600, 513, 512, 9, 700, 33, 1025, 9] {
        assert!(resize(size, frames * FRAME - 5), "{frames}");
        size = frames * FRAME - 5;
        assert_eq!(heap.large_span(object).unwrap().count().get(), frames);
        heap.frames().validate().unwrap();
        let held = heap.validate().unwrap().descriptor_bytes + frames * FRAME;
        heap.frames().drain();
        if C::CHECKED {
            assert_eq!(heap.frames().census().lent() * FRAME, held, "the tail is given back");
        }
    }
    // What follows is somebody else's, or not there at all.
    let next = heap.alloc_address(plain(40_000)).unwrap();
    assert!(!resize(size, 2000 * FRAME) && !resize(size, 5000 * FRAME) && !resize(size, isize::MAX as usize));
    assert!(resize(size, size), "as it was");
    heap.free_address(next, plain(40_000)).unwrap();
    heap.free_address(object, plain(size)).unwrap();
    comes_home(heap);
}

#[test]
#[cfg_attr(miri, ignore = "looks at thousands of frames, and at no memory")]
fn large_objects_grow_and_shrink_in_place() {
    grows_and_shrinks_in_place::<Checked>();
    grows_and_shrinks_in_place::<Fast>();
}

#[test]
fn growth_leaves_the_reserve_alone() {
    let heap = heap::<Checked>(FRAMES, 1);
    heap.frames().set_default_watermarks();
    let object = heap.alloc_address(plain(10 * FRAME)).unwrap();
    let held = heap.object_of(object, plain(10 * FRAME)).unwrap();
    let free = heap.frames().census().free;
    assert!(!heap.resize(object, held, plain((free + 5) * FRAME)));
    assert!(heap.resize(object, held, plain(free / 2 * FRAME)));
}

#[test]
fn an_interrupt_never_waits() {
    let heap = heap::<Checked>(FRAMES, 1);
    let object = heap.alloc_address(plain(HUGE)).unwrap();
    let held = heap.kept.hold_for_test();
    Sim::interrupting(|| {
        // The lock is held by what it has interrupted: the block is not kept, and none is found.
        heap.free_address(object, plain(HUGE)).unwrap();
        assert_eq!(heap.kept_bytes(), 0);
        let own = heap.alloc_address(plain(HUGE)).unwrap();
        heap.free_address(own, plain(HUGE)).unwrap();
        assert_eq!(heap.free_address(own, plain(HUGE)).unwrap_err().kind, BadFreeKind::NotLent);
    });
    drop(held);
    Sim::interrupting(|| {
        let own = heap.alloc_address(plain(HUGE)).unwrap();
        heap.free_address(own, plain(HUGE)).unwrap();
    });
    assert_eq!(heap.kept_bytes(), HUGE, "nobody held it");
    comes_home(heap);
}

mod concurrent {
    use super::*;

    #[test]
    fn of_two_frees_at_once_one_is_refused() {
        let heap = heap::<Checked>(FRAMES, 2);
        for round in 0..if cfg!(miri) { 5 } else { 2000 } {
            let size = if round % 2 == 0 { HUGE } else { 11 * FRAME };
            let object = heap.alloc_address(plain(size)).unwrap();
            let freed: usize = std::thread::scope(|scope| {
                let threads = [0, 1].map(|cpu| {
                    scope.spawn(move || {
                        Sim::become_cpu(cpu);
                        usize::from(heap.free_address(object, plain(size)).is_ok())
                    })
                });
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(freed, 1);
        }
        comes_home(heap);
    }
}

/// Memory that starts as zeros, in arenas of 64 frames and trees of 8.
struct Zeros<const CHECKED: bool>;
impl<const ON: bool> Config for Zeros<ON> {
    const CHECKED: bool = ON;
    const NUMA: bool = false;
    const LARGE_SIZES_PER_DOUBLING: usize = 8;
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 2;
    const LARGE_CACHE_BYTES: usize = 20 * FRAME;
    const FRESH_FRAMES_ARE_ZERO: bool = true;
}

/// Who has ever had which frame.
struct Touched(Vec<bool>);

impl Touched {
    fn touch(&mut self, frames: FrameSpan) -> bool {
        let part = &mut self.0[frames.start().number()..frames.end().number()];
        let before = part.iter().any(|&touched| touched);
        part.fill(true);
        before
    }
}

/// Large objects and raw frames of all orders come and go by every way there is; each time that frames are said to be
/// fresh, nobody may have had any of them.
fn fresh_is_never_used<const ON: bool>(seed: u64, steps: usize) -> usize {
    let heap = heap::<Zeros<ON>>(300, 1);
    let mut touched = Touched(std::vec![false; 300]);
    let mut rng = Rng(seed);
    let mut objects: Vec<FrameSpan> = Vec::new();
    let mut raw: Vec<FrameSpan> = Vec::new();
    let mut fresh_count = 0;
    for _ in 0..steps {
        match rng.below(12) {
            0..3 => {
                let count = rng.below(70) + 9;
                let Ok((address, fresh)) = heap.alloc_large_zeroed(plain(count * FRAME)) else { continue };
                let frames = heap.large_span(address).unwrap();
                assert!(!(touched.touch(frames) && fresh), "{frames:?} was somebody's");
                fresh_count += usize::from(fresh);
                objects.push(frames);
            }
            3 => {
                let Ok(address) = heap.alloc_address(plain((rng.below(40) + 9) * FRAME)) else { continue };
                objects.push(heap.large_span(address).unwrap());
                touched.touch(*objects.last().unwrap());
            }
            4..6 if !objects.is_empty() => {
                let frames = objects.swap_remove(rng.below(objects.len()));
                let free = || heap.free_address_unsized(heap.address_of(frames)).unwrap();
                if rng.below(5) == 0 { Sim::interrupting(free) } else { free() }
            }
            6 if !objects.is_empty() => {
                let place = rng.below(objects.len());
                let count = FrameCount::new(rng.below(80) + 9);
                if heap.resize_large(objects[place], count) {
                    objects[place] = span(objects[place].start().number(), count.get());
                    touched.touch(objects[place]);
                }
            }
            7 => {
                let order = Order::new(rng.below(7) as u32).unwrap();
                let flags = if rng.below(2) == 0 { AllocFlags::MOVABLE } else { AllocFlags::empty() };
                let Ok(head) = heap.frames().alloc_raw(order, flags) else { continue };
                raw.push(span(head.number(), order.frames()));
                touched.touch(*raw.last().unwrap());
            }
            8 if !raw.is_empty() => {
                let frames = raw.swap_remove(rng.below(raw.len()));
                let free = || heap.frames().free_raw(frames.start(), frames.count()).unwrap();
                if rng.below(4) == 0 { Sim::interrupting(free) } else { free() }
            }
            9 => heap.trim(),
            10 => heap.frames().drain(),
            11 => {
                let part = span(rng.below(290), rng.below(10) + 1);
                if let Ok(()) | Err(SetupError::StillLent(_)) = heap.frames().offline(part) {
                    // An error if all of it is in use: then there is nothing to bring back.
                    let _ = heap.frames().online(part);
                }
            }
            _ => {}
        }
    }
    heap.frames().validate().unwrap();
    fresh_count
}

/// Random enough (xorshift, Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

#[test]
fn frames_that_are_said_to_be_fresh_were_never_used() {
    let (rounds, steps) = if cfg!(miri) { (2, 60) } else { (300, 400) };
    let mut fresh = 0;
    for seed in 1..=rounds {
        fresh += fresh_is_never_used::<true>(seed * 0x9e37_79b9, steps);
        fresh += fresh_is_never_used::<false>(seed * 0x9e37_79b9, steps);
    }
    assert!(fresh > rounds as usize, "{fresh} of {rounds} machines");
}

#[test]
fn first_use_is_known_to_be_fresh() {
    let heap = heap::<Zeros<true>>(512, 1);
    let mut lent = Vec::new();
    for count in [9, 10, 33, 9, 64, 70] {
        let (address, fresh) = heap.alloc_large_zeroed(plain(count * FRAME)).unwrap();
        assert!(fresh, "{count}");
        lent.push((address, count));
    }
    for &(address, count) in &lent {
        heap.free_address(address, plain(count * FRAME)).unwrap();
    }
    heap.drain();
    for (_, count) in lent {
        let (_, fresh) = heap.alloc_large_zeroed(plain(count * FRAME)).unwrap();
        assert!(!fresh, "{count}");
    }
}
