//! Memory where none is expected, runs longer than an arena, lists that are wrong, others who never stop.

use std::boxed::Box;
use std::cell::RefCell;
use std::ptr;
use std::vec::Vec;

use super::*;
use crate::flags::AllocFlags;
use crate::frame::FrameSpan;
use crate::frames::Frames;
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::order::{Block, Order};
use crate::testing::{Sim, add, bytes, heap, keep, metadata_of_heap, span};

const FRAME: usize = 4096;
/// Large objects of ten frames.
const LARGE: Layout = match Layout::from_size_align(10 * FRAME, 1) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

/// A heap over frames with nothing behind them, which is enough for large objects.
#[allow(unsafe_code)]
fn hollow<C: Config>(base: usize, count: usize, reserved: &[FrameSpan]) -> &'static Heap<'static, Sim, C> {
    Sim::become_cpu(0);
    let memory = span(0, count);
    let frames: &'static Frames<'static, Sim, C> = keep(Frames::new());
    frames.init(memory, 1, 1, bytes(Frames::<Sim, C>::base_metadata_size(memory, 1, 1))).unwrap();
    add(frames, NodeId::ZERO, ZoneKind::Normal, memory, reserved);
    let heap: &'static Heap<'static, Sim, C> = keep(Heap::new(frames));
    let metadata = metadata_of_heap(Heap::<Sim, C>::metadata_size(memory, 1, 1));
    // SAFETY: only large objects are requested, whose bytes nobody touches.
    unsafe { heap.init(ptr::without_provenance_mut(base), memory, 1, 1, metadata) }.unwrap();
    heap
}

fn all_of<C: Config>(heap: &Heap<'static, Sim, C>, layout: Layout) -> Vec<usize> {
    std::iter::from_fn(|| heap.alloc_address(layout).ok()).collect()
}

/// Fresh frames are zero, so that requests for zeros go another way.
struct Zeros;
impl Config for Zeros {
    const FRESH_FRAMES_ARE_ZERO: bool = true;
}

fn no_object_lies_at_null<C: Config>() {
    let heap = hollow::<C>(0, 64, &[]);
    for _ in 0..if cfg!(miri) { 1 } else { 3 } {
        let lent: Vec<_> = std::iter::from_fn(|| heap.alloc_large_zeroed(LARGE).ok().map(|(address, _)| address))
            .chain(all_of(heap, LARGE))
            .collect();
        assert_eq!(lent.len(), 3, "each is cut from sixteen frames, four of which there are");
        assert!(lent.iter().all(|&address| address >= FRAME), "{lent:x?}");
        let refused = heap.free_address(0, LARGE).unwrap_err();
        assert!(!C::CHECKED || refused.kind == BadFreeKind::Foreign, "{refused:?}");
        lent.into_iter().for_each(|address| heap.free_address(address, LARGE).unwrap());
        heap.drain();
        heap.frames().validate().unwrap();
        assert_eq!(heap.frames().census().lent(), 1, "the frame at null, and no other");
    }
}

#[test]
fn memory_may_begin_at_the_address_0() {
    no_object_lies_at_null::<Checked>();
    no_object_lies_at_null::<Zeros>();
    no_object_lies_at_null::<crate::config::Fast>();
}

std::thread_local! {
    static TAKEN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// The first frames that are found lie at null.
#[test]
#[allow(unsafe_code)]
fn who_is_behind_memory_at_the_address_0_is_told_of_the_first_frames_too() {
    Sim::become_cpu(0);
    let memory = span(0, 64);
    let taken: fn(*mut u8, usize) = |start, bytes| TAKEN.with_borrow_mut(|taken| taken.extend([start.addr(), bytes]));
    let backing = Backing { supply: |_, _| false, taken: Some(taken), released: || (), describe: None, moves: None };
    let frames = keep(crate::testing::machine::<Checked>(memory, 1));
    let heap: &'static Heap<'static, Sim, Checked> = keep(Heap::with_backing(frames, backing));
    let metadata = metadata_of_heap(Heap::<Sim, Checked>::metadata_size(memory, 1, 1));
    // SAFETY: only a large object is requested, whose bytes nobody touches.
    unsafe { heap.init(ptr::without_provenance_mut(0), memory, 1, 1, metadata) }.unwrap();
    let lent = heap.alloc_address(LARGE).unwrap();
    assert_eq!(TAKEN.take(), [lent, 10 * FRAME]);
}

#[test]
fn reserved_frames_are_not_of_the_heap() {
    let heap = hollow::<Checked>(1 << 30, 64, &[span(8, 8)]);
    let kind = |frame: usize, layout| heap.free_address((1 << 30) + frame * FRAME, layout).unwrap_err().kind;
    let small = Layout::from_size_align(100, 1).unwrap();
    for frame in 8..16 {
        assert_eq!((kind(frame, small), kind(frame, LARGE)), (BadFreeKind::Foreign, BadFreeKind::Foreign));
    }
    assert_eq!(kind(7, LARGE), BadFreeKind::NotLent, "free, and the heap's to lend");
}

/// Trees of 8 frames, arenas of 64.
struct Tiny;
impl Config for Tiny {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

#[test]
fn a_large_object_may_take_several_arenas() {
    let heap = hollow::<Tiny>(1 << 30, 256, &[]);
    let sizes = if cfg!(miri) { &[65][..] } else { &[64, 65, 128, 200, 256][..] };
    for &frames in sizes {
        let layout = Layout::from_size_align(frames * FRAME, 1).unwrap();
        let address = heap.alloc_address(layout).unwrap();
        assert_eq!(heap.alloc_address(Layout::from_size_align((257 - frames) * FRAME, 1).unwrap()).ok(), None);
        heap.free_address(address, layout).unwrap();
        heap.drain();
        heap.validate().unwrap();
        assert_eq!(heap.frames().census().lent(), 0);
    }
}

#[test]
fn a_kept_block_that_somebody_has_is_found() {
    let heap = hollow::<Checked>(1 << 30, 64, &[]);
    let lent: Vec<_> = (0..3).map(|_| heap.alloc_address(LARGE).unwrap()).collect();
    let second = heap.large_span(lent[1]).unwrap();
    lent.iter().for_each(|&address| heap.free_address(address, LARGE).unwrap());
    heap.validate().unwrap();
    heap.frames.lend_again(second, second.count());
    assert_eq!(heap.validate(), Err(HeapInvalid::Kept(lent[1])));
    assert!(heap.frames.set_aside(second.start()));
    heap.validate().unwrap();
}

/// A heap, and objects that another CPU puts into its depot one by one.
type Other = (&'static Heap<'static, Sim, Checked>, Vec<usize>);

std::thread_local! {
    static OTHER: RefCell<Option<Other>> = const { RefCell::new(None) };
}

#[test]
fn a_depot_is_emptied_though_others_fill_it() {
    let heap = heap::<Checked>(64, 1);
    let layout = Layout::from_size_align(1024, 8).unwrap();
    let class = SizeClass::of(layout).unwrap();
    let lent: Vec<_> = (0..20).map(|_| heap.alloc_address(layout).unwrap()).collect();
    // Freed as far as the heap's users are concerned.
    lent.iter().for_each(|&address| assert!(heap.unmark(class, address)));
    OTHER.set(Some((heap, lent)));
    let put = move || {
        OTHER.with_borrow_mut(|other| {
            let (heap, lent) = other.as_mut().unwrap();
            let Some(address) = lent.pop() else { return };
            let pinned = Sim::pin().unwrap();
            assert_eq!(heap.depot(NodeId::ZERO).unwrap().put(&pinned, 0, class, &[address]), 1);
        });
    };
    (0..3).for_each(|_| put());
    Sim::when_leaving(Some(Box::new(put)));
    heap.empty_depot(NodeId::ZERO, class);
    Sim::when_leaving(None);
    let left = OTHER.with_borrow(|other| other.as_ref().unwrap().1.len());
    assert!((1..=16).contains(&left), "some were put in meanwhile, and not all of them waited for: {left}");
    while OTHER.with_borrow(|other| !other.as_ref().unwrap().1.is_empty()) {
        put();
    }
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

/// What describes slabs stays where it is for ever, and is made when memory is nearly gone, too.
#[test]
#[cfg_attr(miri, ignore = "as many objects as frames")]
fn descriptors_pin_few_huge_frames() {
    const CPUS: u32 = 4;
    let heap = heap::<Checked>(32 * 512, CPUS as usize);
    for size in [FRAME, 1024, 64] {
        let layout = Layout::from_size_align(size, 1).unwrap();
        let one = |turn: u32| {
            Sim::become_cpu(turn % CPUS);
            heap.alloc_address(layout).ok()
        };
        let lent: Vec<_> = (0..).map_while(one).collect();
        lent.into_iter().for_each(|address| heap.free_address(address, layout).unwrap());
        (0..CPUS).for_each(|cpu| {
            Sim::become_cpu(cpu);
            heap.drain_cpu();
            heap.frames().drain_cpu();
        });
        heap.trim();
    }
    let huge = Order::new(9).unwrap();
    let whole = std::iter::from_fn(|| heap.frames().alloc(huge, AllocFlags::empty()).ok().map(Block::into_raw));
    let whole = whole.count();
    assert!(whole >= 26, "{whole} of 32");
}

/// Who may not reclaim finds what others have put aside, though it is too little to be shared.
#[test]
fn the_last_objects_of_a_depot_are_anybodys() {
    let heap = heap::<Checked>(64, 2);
    let layout = Layout::from_size_align(64, 8).unwrap();
    let class = SizeClass::of(layout).unwrap();
    let ask = || heap.answer(layout, false).address().ok();
    Sim::become_cpu(0);
    let lent: Vec<_> = std::iter::from_fn(ask).collect();
    let (few, others) = lent.split_at(3);
    few.iter().for_each(|&address| {
        assert!(heap.unmark(class, address));
        let pinned = Sim::pin().unwrap();
        assert_eq!(heap.depot(NodeId::ZERO).unwrap().put(&pinned, 0, class, &[address]), 1);
    });
    Sim::become_cpu(1);
    let mut again: Vec<_> = std::iter::from_fn(ask).collect();
    again.sort_unstable();
    assert_eq!(again, few);
    again.iter().chain(others).for_each(|&address| heap.free_address(address, layout).unwrap());
    heap.drain();
    Sim::become_cpu(0);
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}
