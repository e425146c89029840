//! How many samples there are, and of what. All numbers follow from the seeds of the CPUs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::vec::Vec;

use core::alloc::Layout;

use super::*;
use crate::config::{Fast, Hardened};
use crate::error::BadFreeKind;
use crate::testing::{SLAB_BYTES, Sim, heap, keep};

std::thread_local! {
    /// The samples that are lent, by address.
    static LIVE: RefCell<BTreeMap<usize, Sample>> = const { RefCell::new(BTreeMap::new()) };
    static TOLD: Cell<usize> = const { Cell::new(0) };
    /// What the hook says of objects and of frees.
    static WANTED: Cell<bool> = const { Cell::new(true) };
    static PASSED_ON: Cell<Option<u8>> = const { Cell::new(Some(0)) };
}

const HOOK: SampleHook = SampleHook {
    lent: |sample| {
        TOLD.set(TOLD.get() + 1);
        if WANTED.get() {
            let before = LIVE.with_borrow_mut(|live| live.insert(sample.address, sample));
            assert_eq!(before, None, "it was told of a free");
        }
        WANTED.get()
    },
    freed: |address| {
        LIVE.with_borrow_mut(|live| live.remove(&address)).expect("a sample");
        PASSED_ON.get()
    },
    freed_large: |address| {
        LIVE.with_borrow_mut(|live| live.remove(&address));
    },
};

/// Notes the samples of a heap of the calling thread's.
pub(in super::super) fn watch<C: Config>(heap: &Heap<'static, Sim, C>, mean: usize) {
    LIVE.take();
    TOLD.set(0);
    WANTED.set(true);
    PASSED_ON.set(Some(0));
    heap.set_sample_hook(keep(HOOK));
    heap.sample_every(mean);
}

/// Shows the samples that are lent.
pub(in super::super) fn live<R>(look: impl FnOnce(&BTreeMap<usize, Sample>) -> R) -> R {
    LIVE.with_borrow(look)
}

/// As processes have it.
pub(in super::super) struct Linear;
impl Config for Linear {
    const SLAB_BYTES: usize = SLAB_BYTES;
    const LINEAR_SHADOW: bool = true;
    const NUMA: bool = false;
    const SAMPLED: bool = true;
}

/// The marks in slabs.
pub(in super::super) struct Slabs;
impl Config for Slabs {
    const SLAB_BYTES: usize = SLAB_BYTES;
    const SAMPLED: bool = true;
}

struct Hard;
impl Config for Hard {
    const HARDENED: bool = true;
    const SAMPLED: bool = true;
    // What waits there loses its mark.
    const QUARANTINE_OBJECTS: usize = 0;
}

struct Unchecked;
impl Config for Unchecked {
    const CHECKED: bool = false;
    const SAMPLED: bool = true;
}

const MEAN: usize = 512;

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 8).unwrap()
}

fn watched<C: Config>(mean: usize) -> &'static Heap<'static, Sim, C> {
    Sim::become_cpu(0);
    let heap = heap::<C>(if cfg!(miri) { 64 } else { 8192 }, 2);
    watch(heap, mean);
    heap
}

/// What the live samples say of how many bytes are lent.
fn estimate(mean: usize) -> f64 {
    let weight = |bytes: usize| bytes as f64 / (1.0 - (-(bytes as f64) / mean as f64).exp());
    live(|live| live.values().map(|sample| weight(sample.bytes)).sum())
}

fn assert_near(estimate: f64, truth: usize, tolerance: f64) {
    let ratio = estimate / truth as f64;
    assert!((ratio - 1.0).abs() < tolerance, "{estimate} for {truth}");
}

/// How many objects there are in a test that counts.
const OBJECTS: usize = 20_000;
const TOLERANCE: f64 = 0.1;

fn bytes_are_told_from_a_few_objects<C: Config>() {
    for bytes in [16, 112, 1024] {
        let heap = watched::<C>(MEAN);
        let layout = layout(bytes);
        let lent: Vec<_> = (0..OBJECTS).map_while(|_| heap.alloc_address(layout).ok()).collect();
        assert_near(estimate(MEAN), lent.len() * bytes, TOLERANCE);
        heap.validate().unwrap();
        lent.into_iter().for_each(|object| heap.free_address(object, layout).unwrap());
        assert!(live(BTreeMap::is_empty));
        heap.drain();
        heap.validate().unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn bytes_are_told_from_a_few_objects_with_linear_marks() {
    bytes_are_told_from_a_few_objects::<Linear>();
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn bytes_are_told_from_a_few_objects_with_marks_in_slabs() {
    bytes_are_told_from_a_few_objects::<Slabs>();
}

/// No refill, no spill: all that changes comes out of the stacks.
#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn objects_that_take_the_place_of_others_are_as_likely() {
    let heap = watched::<Linear>(MEAN);
    let layout = layout(112);
    let mut lent: Vec<_> = (0..OBJECTS).map(|_| heap.alloc_address(layout).unwrap()).collect();
    for turn in 0..8 * OBJECTS {
        let place = turn * 7919 % lent.len();
        heap.free_address(lent[place], layout).unwrap();
        lent[place] = heap.alloc_address(layout).unwrap();
    }
    assert_near(estimate(MEAN), lent.len() * 112, TOLERANCE);
}

/// What stays has always been somebody else's a moment before.
#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn a_leak_behind_objects_that_come_and_go_is_seen() {
    let heap = watched::<Linear>(MEAN);
    let layout = layout(112);
    for _ in 0..OBJECTS {
        let brief: Vec<_> = (0..5).map(|_| heap.alloc_address(layout).unwrap()).collect();
        brief.into_iter().for_each(|object| heap.free_address(object, layout).unwrap());
        heap.alloc_address(layout).unwrap();
    }
    assert_near(estimate(MEAN), OBJECTS * 112, TOLERANCE);
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn large_objects_are_told() {
    for sampled in [true, false] {
        let heap = watched::<Unchecked>(if sampled { 60_000 } else { 0 });
        let large = layout(50_000);
        let mut truth = 0;
        for _ in 0..400 {
            if let Ok(address) = heap.alloc_address(large) {
                truth += 13 * 4096;
                if truth % 3 == 0 {
                    heap.free_address(address, large).unwrap();
                    truth -= 13 * 4096;
                }
            }
        }
        let small = heap.alloc_address(layout(8)).unwrap();
        heap.free_address(small, layout(8)).unwrap();
        match sampled {
            true => assert_near(estimate(60_000), truth, TOLERANCE * 2.0),
            false => assert!(live(BTreeMap::is_empty)),
        }
    }
}

/// With a gap of nothing each object is a sample, whatever way it takes.
fn each_is_a_sample<C: Config>() {
    let heap = watched::<C>(1);
    let object = |bytes| heap.alloc(layout(bytes)).unwrap();
    let objects: Vec<_> =
        [8, 100, 4000, 40_000].into_iter().cycle().take(40).map(|bytes| (object(bytes), bytes)).collect();
    let large_alone = !C::CHECKED;
    live(|live| assert_eq!(live.len(), if large_alone { 10 } else { 40 }));
    heap.validate().unwrap();
    for (object, bytes) in objects {
        assert!(heap.usable_size(object).unwrap() >= bytes);
        free(heap, object, bytes).unwrap();
        if C::CHECKED {
            assert_eq!(free(heap, object, bytes).unwrap_err().kind, BadFreeKind::NotLent);
        }
    }
    assert!(live(BTreeMap::is_empty));
    heap.drain();
    heap.validate().unwrap();
}

#[allow(unsafe_code)]
fn free<C: Config>(
    heap: &Heap<'static, Sim, C>,
    object: core::ptr::NonNull<u8>,
    bytes: usize,
) -> Result<(), crate::error::BadFree> {
    // SAFETY: the tests use no object any more that they have freed, or free again.
    unsafe { heap.free(object, layout(bytes)) }
}

#[allow(unsafe_code)]
fn sizes_change<C: Config>() {
    let heap = watched::<C>(1);
    for (from, to) in [(100, 104), (100, 400), (400, 50_000), (50_000, 60_000), (60_000, 50_000), (60_000, 100)] {
        let object = heap.alloc(layout(from)).unwrap();
        // SAFETY: the test's own object.
        let changed = unsafe { heap.realloc(object, layout(from), to) }.unwrap();
        live(|live| {
            let sample = live.get(&changed.addr().get()).unwrap_or_else(|| panic!("{from} to {to}"));
            assert!(live.len() == 1 && sample.bytes >= to, "{live:?}");
        });
        heap.validate().unwrap();
        free(heap, changed, to).unwrap();
        assert!(live(BTreeMap::is_empty));
    }
    let zeroed = heap.alloc_zeroed(layout(70_000)).unwrap();
    assert_eq!(live(BTreeMap::len), 1);
    free(heap, zeroed, 70_000).unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn each_object_may_be_a_sample() {
    each_is_a_sample::<Linear>();
    each_is_a_sample::<Slabs>();
    each_is_a_sample::<Hard>();
    each_is_a_sample::<Unchecked>();
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn samples_change_their_size() {
    sizes_change::<Linear>();
    sizes_change::<Slabs>();
    sizes_change::<Hard>();
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn a_wrong_free_of_a_sample_is_refused() {
    let heap = watched::<Linear>(1);
    let lent = heap.alloc_address(layout(100)).unwrap();
    let kind = |address, bytes| heap.free_address(address, layout(bytes)).unwrap_err().kind;
    assert_eq!(kind(lent, 90), BadFreeKind::WrongClass, "a class of the same octave");
    assert_eq!(kind(lent, 8), BadFreeKind::WrongClass);
    assert_eq!(kind(lent + 8, 100), BadFreeKind::Interior);
    assert_eq!(live(BTreeMap::len), 1);
    heap.free_address(lent, layout(100)).unwrap();
    assert_eq!(kind(lent, 100), BadFreeKind::NotLent);
    heap.validate().unwrap();
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn what_is_said_of_a_free_is_passed_on() {
    let heap = watched::<Linear>(1);
    let layout = layout(100);
    let lent = heap.alloc_address(layout).unwrap();
    PASSED_ON.set(Some(63));
    heap.free_address(lent, layout).unwrap();
    heap.sample_every(0);
    assert_eq!(heap.alloc_address(layout), Ok(lent));
    assert_eq!(live(|live| live[&lent].passed_on), 63, "marked before nobody wanted any more");
    heap.free_address(lent, layout).unwrap();
    assert_eq!((heap.alloc_address(layout), live(BTreeMap::len)), (Ok(lent), 0));
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn who_wants_no_sample_is_told_of_no_free() {
    let heap = watched::<Linear>(1);
    WANTED.set(false);
    let lent: Vec<_> = (0..300).map(|_| heap.alloc_address(layout(64)).unwrap()).collect();
    assert_eq!(TOLD.get(), 300);
    // The hook would not know them.
    lent.into_iter().for_each(|object| heap.free_address(object, layout(64)).unwrap());
    heap.validate().unwrap();
}

#[test]
fn an_interrupt_is_not_told() {
    let heap = watched::<Linear>(1);
    let lent = heap.alloc_address(layout(64)).unwrap();
    let other = Sim::interrupting(|| heap.alloc_address(layout(64)));
    assert_eq!(live(BTreeMap::len), 1);
    Sim::interrupting(|| heap.free_address(lent, layout(64))).unwrap();
    assert_eq!(live(BTreeMap::len), 0, "but of frees");
    other.into_iter().for_each(|other| heap.free_address(other, layout(64)).unwrap());
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn nothing_is_told_where_nothing_is_sampled() {
    let heap = watched::<Hardened>(1);
    let lent = heap.alloc(layout(64)).unwrap();
    free(heap, lent, 64).unwrap();
    let fast = watched::<Fast>(1);
    fast.free_address(fast.alloc_address(layout(50_000)).unwrap(), layout(50_000)).unwrap();
    assert_eq!(TOLD.get(), 0);
}

#[test]
#[cfg_attr(miri, ignore = "the twins go these ways")]
fn logarithms_are_right() {
    for number in [1, 2, 3, 1000, u64::MAX / 3, u64::MAX] {
        let exact = (number as f64).log2();
        assert!((log2(number) as f64 / f64::from(1 << DIGITS) - exact).abs() < 1e-5, "{number}");
    }
}

/// As another CPU may see it that just needs more.
#[test]
fn the_first_mean_may_be_seen_before_its_wish() {
    let heap = watched::<Linear>(0);
    heap.sampling.wish.store(0, Ordering::Relaxed);
    heap.sampling.mean.store(1, Ordering::Relaxed);
    let lent = [64, 50_000].map(|bytes| heap.alloc_address(layout(bytes)).unwrap());
    assert_eq!(live(BTreeMap::len), 2);
    lent.into_iter().zip([64, 50_000]).for_each(|(object, bytes)| heap.free_address(object, layout(bytes)).unwrap());
}

#[test]
fn a_wrong_free_of_a_large_sample_is_not_told() {
    let heap = watched::<Linear>(1);
    let lent = heap.alloc_address(layout(50_000)).unwrap();
    for wrong in [(lent, 60_000), (lent + 4096, 50_000), (lent, 100)] {
        heap.free_address(wrong.0, layout(wrong.1)).unwrap_err();
        assert_eq!(live(BTreeMap::len), 1, "{wrong:x?}");
    }
    heap.free_address(lent, layout(50_000)).unwrap();
    assert!(live(BTreeMap::is_empty));
}
