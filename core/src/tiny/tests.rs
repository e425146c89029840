#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;

/// The heap of the tests: a lock that is found held is not waited for.
pub(super) type Heap = TinyHeap<spin::Mutex<()>>;

/// Memory to make regions of. Must outlive the heap that has them.
pub(super) struct Ram {
    base: *mut u8,
    layout: Layout,
}

impl Ram {
    pub(super) fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 1 << 16).unwrap();
        // SAFETY: it has bytes.
        let base = unsafe { std::alloc::alloc(layout) };
        assert!(!base.is_null());
        // So that nothing depends on its being zero.
        // SAFETY: as long as it was asked for.
        unsafe { base.write_bytes(0xa5, bytes) };
        Self { base, layout }
    }

    pub(super) fn region(&self, from: usize, bytes: usize) -> *mut [u8] {
        assert!(from + bytes <= self.layout.size());
        core::ptr::slice_from_raw_parts_mut(self.base.wrapping_add(from), bytes)
    }

    pub(super) fn start(&self) -> usize {
        self.base.addr()
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
    }
}

// SAFETY: the memory is used only through the heap that was given regions of it.
unsafe impl Sync for Ram {}

pub(super) fn layout(bytes: usize, align: usize) -> Layout {
    Layout::from_size_align(bytes, align).unwrap()
}

/// Adds a part of `ram`.
pub(super) fn add(heap: &Heap, ram: &Ram, from: usize, bytes: usize) -> Result<(), RegionError> {
    // SAFETY: the tests keep the memory until they are done with the heap, and use it through the heap alone.
    unsafe { heap.add_region(ram.region(from, bytes)) }
}

/// Frees, as a caller that no longer uses it, or as one that is wrong.
pub(super) fn free(heap: &Heap, address: NonNull<u8>, layout: Layout) -> Result<(), BadFreeKind> {
    // SAFETY: the tests do not use what they have freed.
    unsafe { heap.free(address, layout) }.map_err(|bad| {
        assert_eq!(bad.address, address.addr().get());
        bad.kind
    })
}

/// Checks the invariants. It looks at every unit, which takes Miri too long in all but small regions.
pub(super) fn assert_valid(heap: &Heap) {
    if !cfg!(miri) || heap.census().unwrap().bytes < 8192 {
        heap.validate().unwrap();
    }
}

fn whole(heap: &Heap) {
    assert_valid(heap);
    let census = heap.census().unwrap();
    assert_eq!((census.free_bytes, census.allocations), (census.bytes, 0));
}

fn heap_of(ram: &Ram, from: usize, bytes: usize) -> Heap {
    let heap = Heap::new();
    add(&heap, ram, from, bytes).unwrap();
    heap
}

#[test]
fn most_of_a_region_can_be_used() {
    let ram = Ram::new(1 << 17);
    let sizes = [(4, 75), (32, 90), (100, 95)];
    // Each unit costs Miri some milliseconds.
    for &(kib, percent) in if cfg!(miri) { &sizes[..1] } else { &sizes[..] } {
        let offsets = if cfg!(miri) { &[0, 4095][..] } else { &[0, 1, 8, 63, 64, 127, 2048, 4032, 4095][..] };
        for &from in offsets {
            let bytes = kib << 10;
            let heap = heap_of(&ram, from, bytes);
            let unit = layout(64, 64);
            let mut units: Vec<_> = core::iter::from_fn(|| heap.alloc(unit).ok()).collect();
            assert!(units.len() * 64 * 100 >= bytes * percent, "{kib} KiB from {from}: {} units", units.len());
            // Taken in any order and given back in another.
            units.sort_by_key(|unit| unit.addr().get() * 31 % 97);
            units.iter().for_each(|&object| free(&heap, object, unit).unwrap());
            whole(&heap);
            let census = heap.census().unwrap();
            assert_eq!(census.largest_free_bytes, units.len() * 64);
            let all = layout(census.bytes, 8);
            let object = heap.alloc(all).unwrap();
            assert_eq!(heap.alloc(unit), Err(AllocError::NoMemory));
            free(&heap, object, all).unwrap();
            whole(&heap);
        }
    }
}

#[test]
fn the_state_is_as_small_as_documented() {
    for (kib, most) in [(4, 330), (32, 500), (100, 1340), (2048, 22 << 10)] {
        let plan = region::Plan::new::<spin::Mutex<()>>(1 << 20, kib << 10).unwrap();
        assert!(plan.metadata_bytes <= most, "{kib} KiB: {} bytes", plan.metadata_bytes);
    }
}

#[test]
fn alignment_is_kept_up_to_what_the_region_has() {
    let ram = Ram::new(1 << 18);
    let heap = heap_of(&ram, 0, 1 << 18);
    let mut held = Vec::new();
    for log2_align in 0..=14 {
        for bytes in [1, 64, 100, 5000] {
            let layout = layout(bytes, 1 << log2_align);
            let object = heap.alloc(layout).unwrap();
            assert!(object.addr().get().is_multiple_of(layout.align()));
            held.push((object, layout));
        }
        assert_valid(&heap);
    }
    held.into_iter().for_each(|(object, layout)| free(&heap, object, layout).unwrap());
    // 256 KiB from a multiple of 64 KiB have four multiples of it, the first of which is the region's state.
    assert_eq!(heap.alloc(layout(1, 1 << 40)), Err(AllocError::NoMemory));
    assert_eq!(heap.alloc(layout(1, 1 << 62)), Err(AllocError::NoMemory));
    let thirds: Vec<_> = core::iter::from_fn(|| heap.alloc(layout(1, 1 << 16)).ok()).collect();
    assert_eq!(thirds.len(), 3);
    thirds.into_iter().for_each(|object| free(&heap, object, layout(1, 1 << 16)).unwrap());
    whole(&heap);
}

#[test]
fn sizes_from_nothing_to_everything() {
    let ram = Ram::new(4096);
    let heap = heap_of(&ram, 0, 4096);
    let nothing = heap.alloc(layout(0, 1)).unwrap();
    let other = heap.alloc(layout(0, 1)).unwrap();
    assert_ne!(nothing, other);
    assert_eq!(heap.usable_size(nothing), Some(64));
    free(&heap, nothing, layout(0, 1)).unwrap();
    free(&heap, other, layout(64, 1)).unwrap();
    for bytes in [4096, 1 << 20, 1 << 40, isize::MAX as usize] {
        assert_eq!(heap.alloc(layout(bytes, 1)), Err(AllocError::NoMemory));
    }
    whole(&heap);
}

#[test]
fn what_remains_of_blocks_serves_a_run_of_any_length() {
    let ram = Ram::new(1 << 15);
    let heap = heap_of(&ram, 0, 1 << 15);
    let unit = layout(64, 64);
    let units: Vec<_> = core::iter::from_fn(|| heap.alloc(unit).ok()).collect();
    // Units 101 to 147 are no block, but 47 in a row.
    units[101..148].iter().for_each(|&object| free(&heap, object, unit).unwrap());
    assert_eq!(heap.alloc(layout(48 * 64, 64)), Err(AllocError::NoMemory));
    let run = heap.alloc(layout(47 * 64, 64)).unwrap();
    assert_eq!(run, units[101]);
    assert_eq!(heap.census().unwrap().free_bytes, 0);
    // No block holds three units: the run of three is taken, not the longer one before it.
    let first = 4 - units[0].addr().get() / 64 % 4;
    [1, 2, 3, 4, 5, 17, 18, 19].iter().for_each(|&at| free(&heap, units[first + at], unit).unwrap());
    assert_eq!(heap.alloc(layout(129, 64)), Ok(units[first + 17]));
    assert_eq!(heap.alloc(layout(257, 64)), Ok(units[first + 1]));
    assert_valid(&heap);
}

#[test]
fn wrong_frees_change_nothing() {
    let ram = Ram::new(1 << 17);
    let heap = heap_of(&ram, 64, 100 << 10);
    let three = layout(150, 8);
    let object = heap.alloc(three).unwrap();
    let neighbour = heap.alloc(three).unwrap();
    let freed = heap.alloc(layout(64, 8)).unwrap();
    free(&heap, freed, layout(64, 8)).unwrap();
    let before = heap.census().unwrap();
    let at = |offset: isize| NonNull::new(object.as_ptr().wrapping_offset(offset)).unwrap();
    let outside = |address: usize| NonNull::new(ram.base.wrapping_add(address)).unwrap();
    let wrong = [
        (freed, layout(64, 8), BadFreeKind::NotLent),
        (at(64 * 8), layout(64, 8), BadFreeKind::NotLent),
        (at(64 * 8 + 1), layout(64, 8), BadFreeKind::NotLent),
        (at(64), three, BadFreeKind::Interior),
        (at(128), layout(22, 8), BadFreeKind::Interior),
        (at(1), three, BadFreeKind::Interior),
        (at(191), three, BadFreeKind::Interior),
        (object, layout(128, 8), BadFreeKind::WrongSize),
        (object, layout(193, 8), BadFreeKind::WrongSize),
        (object, layout(64 * 6, 8), BadFreeKind::WrongSize),
        (object, layout(isize::MAX as usize, 1), BadFreeKind::WrongSize),
        // Before the region, its state, its end, and anywhere.
        (outside(0), three, BadFreeKind::Foreign),
        (outside(64), three, BadFreeKind::Foreign),
        (outside(64 + (100 << 10)), three, BadFreeKind::Foreign),
        (NonNull::dangling(), three, BadFreeKind::Foreign),
        (NonNull::new(core::ptr::without_provenance_mut(usize::MAX)).unwrap(), three, BadFreeKind::Foreign),
    ];
    for (address, layout, kind) in wrong {
        assert_eq!(free(&heap, address, layout), Err(kind), "{address:?} {layout:?}");
        // SAFETY: it is refused, or is of the right size otherwise.
        let moved = unsafe { heap.realloc(address, layout, 1000) };
        assert_eq!(moved, Err(AllocError::Impossible));
        assert_valid(&heap);
        assert_eq!(heap.census().unwrap(), before);
    }
    // SAFETY: they are not used any more.
    let unsized_frees = [at(64), object, object].map(|address| unsafe { heap.free_unsized(address) });
    let kinds = unsized_frees.map(|freed| freed.err().map(|bad| bad.kind));
    assert_eq!(kinds, [Some(BadFreeKind::Interior), None, Some(BadFreeKind::NotLent)]);
    free(&heap, neighbour, three).unwrap();
    whole(&heap);
}

std::thread_local! {
    static FAULTS: RefCell<Vec<BadFree>> = const { RefCell::new(Vec::new()) };
}

static HOOK: fn(BadFree) = |bad| FAULTS.with_borrow_mut(|faults| faults.push(bad));

#[test]
fn the_hook_learns_what_global_alloc_cannot_say() {
    let ram = Ram::new(4096);
    let heap = heap_of(&ram, 0, 4096);
    heap.set_fault_hook(&HOOK);
    let layout = layout(100, 8);
    let alloc = |bytes: usize| {
        // SAFETY: a layout of some bytes.
        unsafe { GlobalAlloc::alloc(&heap, Layout::from_size_align(bytes, 8).unwrap()) }
    };
    // SAFETY: what is refused stays as it is, and null is no allocation.
    let dealloc = |object: *mut u8| unsafe { heap.dealloc(object, layout) };
    let object = alloc(100);
    // SAFETY: it is refused.
    assert!(unsafe { GlobalAlloc::realloc(&heap, object.wrapping_add(64), layout, 10) }.is_null());
    [object, object, core::ptr::null_mut()].into_iter().for_each(dealloc);
    let faults = FAULTS.take().into_iter().map(|bad| (bad.address.wrapping_sub(object.addr()), bad.kind));
    let null = 0usize.wrapping_sub(object.addr());
    assert!(faults.eq([(64, BadFreeKind::Interior), (0, BadFreeKind::NotLent), (null, BadFreeKind::Foreign)]));
    assert!(alloc(5000).is_null());
    // SAFETY: a layout of some bytes.
    let zeroed = unsafe { GlobalAlloc::alloc_zeroed(&heap, layout) };
    // SAFETY: lent, as long and written.
    assert_eq!(unsafe { core::slice::from_raw_parts(zeroed, 100) }, [0; 100]);
    dealloc(zeroed);
    whole(&heap);
}

#[test]
fn realloc_stays_where_it_can_and_keeps_the_content() {
    let ram = Ram::new(1 << 15);
    let heap = heap_of(&ram, 0, 1 << 15);
    // SAFETY: what is moved is used at its new place only, with its new size.
    let realloc = |object: NonNull<u8>, from: usize, to: usize| unsafe { heap.realloc(object, layout(from, 8), to) };
    let object = heap.alloc(layout(60, 8)).unwrap();
    let bytes: Vec<u8> = (0..60).collect();
    // SAFETY: lent, and as long.
    unsafe { object.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), 60) };
    let content = |object: NonNull<u8>, count: usize| {
        // SAFETY: lent, as long and written.
        assert_eq!(unsafe { core::slice::from_raw_parts(object.as_ptr(), count) }, &bytes[..count]);
    };
    // The same unit, more units, over the rest of a block, fewer.
    for (from, to) in [(60, 64), (64, 65), (65, 3000), (3000, 129), (129, 100)] {
        assert_eq!(realloc(object, from, to), Ok(object));
        assert_eq!(heap.usable_size(object), Some(to.next_multiple_of(64)));
        assert_valid(&heap);
    }
    // Somebody is in the way.
    let next = heap.alloc(layout(64, 64)).unwrap();
    assert_eq!(next.addr().get(), object.addr().get() + 128);
    let moved = realloc(object, 100, 200).unwrap();
    assert_ne!(moved, object);
    content(moved, 60);
    assert_eq!(free(&heap, object, layout(100, 8)), Err(BadFreeKind::NotLent));
    // Not to be had: it stays as it was.
    assert_eq!(realloc(moved, 200, 1 << 15), Err(AllocError::NoMemory));
    assert_eq!(realloc(moved, 200, isize::MAX as usize), Err(AllocError::Impossible));
    content(moved, 60);
    // To the last unit, and not one further.
    let room = ram.start() + (1 << 15) - moved.addr().get();
    assert_eq!(realloc(moved, 200, room + 1), Err(AllocError::NoMemory));
    assert_eq!(realloc(moved, 200, room), Ok(moved));
    content(moved, 60);
    free(&heap, next, layout(64, 64)).unwrap();
    free(&heap, moved, layout(room, 8)).unwrap();
    whole(&heap);
}

#[test]
#[cfg(feature = "allocator-api2")]
fn the_allocator_trait_has_memory_of_any_layout() {
    use allocator_api2::alloc::Allocator;

    let ram = Ram::new(1 << 13);
    let heap = heap_of(&ram, 0, 1 << 13);
    let heap = &heap;
    let (none, some, more) = (layout(0, 32), layout(100, 8), layout(700, 256));
    let nothing = heap.allocate(none).unwrap();
    assert!(nothing.is_empty() && nothing.cast::<u8>().addr().get().is_multiple_of(32));
    // SAFETY: each is what the call before it has lent, with its layout.
    let object = unsafe { heap.grow_zeroed(nothing.cast(), none, some) }.unwrap();
    // SAFETY: lent and zeroed.
    assert_eq!(unsafe { object.as_ref() }, [0; 100]);
    // SAFETY: as above.
    unsafe { object.cast::<u8>().write_bytes(7, 100) };
    // SAFETY: as above.
    let grown = unsafe { heap.grow(object.cast(), some, more) }.unwrap();
    assert!(grown.cast::<u8>().addr().get().is_multiple_of(256));
    // SAFETY: as above.
    let shrunk = unsafe { heap.shrink(grown.cast(), more, some) }.unwrap();
    // SAFETY: as above.
    assert_eq!(unsafe { shrunk.as_ref() }, [7; 100]);
    // SAFETY: as above.
    assert!(unsafe { heap.grow(shrunk.cast(), some, layout(1 << 20, 8)) }.is_err());
    // SAFETY: as above.
    let nothing = unsafe { heap.shrink(shrunk.cast(), some, none) }.unwrap();
    // SAFETY: as above.
    unsafe { heap.deallocate(nothing.cast(), none) };
    let zeroed = heap.allocate_zeroed(some).unwrap();
    // SAFETY: as above.
    unsafe { heap.deallocate(zeroed.cast(), some) };
    whole(heap);
}

#[test]
fn regions_are_refused_for_a_reason() {
    let ram = Ram::new(1 << 17);
    let heap = Heap::new();
    assert_eq!(heap.alloc(layout(1, 1)), Err(AllocError::NotReady));
    assert_eq!(free(&heap, NonNull::dangling(), layout(1, 1)), Err(BadFreeKind::Foreign));
    assert_eq!(heap.census(), Ok(TinyCensus::default()));
    let null = core::ptr::slice_from_raw_parts_mut(core::ptr::null_mut(), 4096);
    let wrapping = core::ptr::slice_from_raw_parts_mut(core::ptr::without_provenance_mut(usize::MAX - 100), 101);
    let last = core::ptr::slice_from_raw_parts_mut(core::ptr::without_provenance_mut(usize::MAX - 100), 90);
    for (region, error) in
        [(null, RegionError::TooSmall), (wrapping, RegionError::TooLarge), (last, RegionError::TooSmall)]
    {
        // SAFETY: it is refused without being touched.
        assert_eq!(unsafe { heap.add_region(region) }, Err(error));
    }
    for bytes in [0, 1, 64, 300] {
        assert_eq!(add(&heap, &ram, 0, bytes), Err(RegionError::TooSmall));
    }
    assert_eq!(heap.alloc(layout(1, 1)), Err(AllocError::NotReady));
    add(&heap, &ram, 8192, 8192).unwrap();
    for (from, bytes) in [(8192, 8192), (0, 8193), (16383, 4096), (10000, 1000), (0, 1 << 17)] {
        assert_eq!(add(&heap, &ram, from, bytes), Err(RegionError::Overlap), "{from} {bytes}");
    }
    add(&heap, &ram, 0, 8192).unwrap();
    add(&heap, &ram, 16384, 4096).unwrap();
    whole(&heap);
    // All three lend, each to its end, and no allocation reaches from one into the next.
    let objects: Vec<_> = core::iter::from_fn(|| heap.alloc(layout(1000, 8)).ok()).collect();
    assert!(objects.len() >= 6 + 6 + 3);
    objects.into_iter().for_each(|object| free(&heap, object, layout(1000, 8)).unwrap());
    whole(&heap);
}

#[test]
fn the_smallest_region_has_one_unit() {
    let ram = Ram::new(1 << 13);
    for from in [0, 1, 40, 4000, 4095] {
        let bytes = (1..4096).find(|&bytes| region::Plan::new::<spin::Mutex<()>>(ram.start() + from, bytes).is_ok());
        let heap = heap_of(&ram, from, bytes.unwrap());
        let object = heap.alloc(layout(64, 64)).unwrap();
        assert_eq!(heap.alloc(layout(1, 1)), Err(AllocError::NoMemory));
        free(&heap, object, layout(64, 64)).unwrap();
        whole(&heap);
    }
}

/// Runs `work` as an interrupt that stopped the holder of the lock of the heap's only region.
fn interrupting<R>(heap: &Heap, work: impl FnOnce() -> R) -> R {
    let region = heap.regions().next().unwrap();
    region.with(Context::Nmi, |_| work()).expect("nobody else holds it")
}

#[test]
fn an_interrupt_that_finds_the_lock_held_never_waits() {
    let ram = Ram::new(1 << 13);
    let heap = heap_of(&ram, 0, 1 << 13);
    let layout = layout(100, 8);
    let [kept, object, other] = [(); 3].map(|()| heap.alloc(layout).unwrap());
    interrupting(&heap, || {
        assert_eq!(heap.alloc(layout), Err(AllocError::WouldBlock));
        assert_eq!(heap.census(), Err(AllocError::WouldBlock));
        for (bytes, result) in [(1000, Err(AllocError::WouldBlock)), (128, Ok(kept))] {
            // SAFETY: it stays where it is.
            assert_eq!(unsafe { heap.realloc(kept, layout, bytes) }, result);
        }
        // A free waits in the pending map, and is checked by the marks.
        free(&heap, object, layout).unwrap();
        assert_eq!(free(&heap, object, layout), Err(BadFreeKind::NotLent));
        let inside = NonNull::new(other.as_ptr().wrapping_add(64)).unwrap();
        assert_eq!(free(&heap, inside, layout), Err(BadFreeKind::Interior));
        assert_eq!(free(&heap, other, Layout::new::<u64>()), Err(BadFreeKind::WrongSize));
        free(&heap, other, layout).unwrap();
    });
    // Its holder has taken both along as it let go.
    assert_eq!(heap.census().unwrap().allocations, 1);
    assert_eq!(free(&heap, object, layout), Err(BadFreeKind::NotLent));
    free(&heap, kept, layout).unwrap();
    whole(&heap);
}

#[test]
fn another_region_serves_while_a_lock_is_held() {
    let ram = Ram::new(1 << 14);
    let heap = heap_of(&ram, 0, 1 << 13);
    add(&heap, &ram, 1 << 13, 1 << 13).unwrap();
    let object = interrupting(&heap, || {
        let object = heap.alloc(layout(64, 8)).unwrap();
        assert_eq!(heap.alloc(layout(1 << 14, 8)), Err(AllocError::WouldBlock));
        assert_eq!(add(&heap, &ram, 0, 64), Err(RegionError::TooSmall));
        object
    });
    assert!(object.addr().get() < ram.start() + (1 << 13));
    free(&heap, object, layout(64, 8)).unwrap();
    whole(&heap);
}

#[test]
fn a_race_of_two_frees_is_told_when_it_comes_to_light() {
    let ram = Ram::new(1 << 13);
    let heap = heap_of(&ram, 0, 1 << 13);
    heap.set_fault_hook(&HOOK);
    let layout = layout(100, 8);
    let object = heap.alloc(layout).unwrap();
    let region = heap.regions().next().unwrap();
    // One free has been checked and posted after the other, under the lock, had cleared the marks.
    region.with(Context::Nmi, |_| free(&heap, object, layout).unwrap()).unwrap();
    region.with(Context::Nmi, |_| region.repost(object.addr().get())).unwrap();
    assert_valid(&heap);
    let next = heap.alloc(layout).unwrap();
    let faults = FAULTS.take().into_iter().map(|bad| (bad.address, bad.kind));
    assert!(faults.eq([(object.addr().get(), BadFreeKind::NotLent)]));
    free(&heap, next, layout).unwrap();
    assert_eq!(FAULTS.take(), []);
    whole(&heap);
}

#[test]
fn concurrent_owners_keep_their_bytes() {
    let ram = Ram::new(1 << 16);
    let heap = TinyHeap::<spin::Mutex<()>>::with_context(|| Context::Task);
    add(&heap, &ram, 0, 1 << 16).unwrap();
    let rounds = if cfg!(miri) { 40 } else { 20_000 };
    let mailbox = std::sync::Mutex::new(Vec::<(usize, Layout, u8)>::new());
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let (heap, mailbox, ram) = (&heap, &mailbox, &ram);
            scope.spawn(move || {
                let pointer = |address: usize| NonNull::new(ram.base.with_addr(address)).unwrap();
                let mut seed = u64::from(thread) + 1;
                for round in 0..rounds {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    let layout = layout(1 + (seed >> 33) as usize % 700, 1 << (seed >> 60));
                    let fill = thread.wrapping_mul(85).wrapping_add(round as u8);
                    if let Ok(object) = heap.alloc(layout) {
                        // SAFETY: lent, and as long.
                        unsafe { object.write_bytes(fill, layout.size()) };
                        mailbox.lock().unwrap().push((object.addr().get(), layout, fill));
                    }
                    // Freed by whoever comes, most of them while others hold the lock.
                    let mut letters = mailbox.lock().unwrap();
                    let letter = if letters.len() > 8 { Some(letters.swap_remove(seed as usize % 8)) } else { None };
                    drop(letters);
                    if let Some((address, layout, fill)) = letter {
                        let object = pointer(address);
                        // SAFETY: lent, as long and written, and handed over by the mailbox.
                        let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), layout.size()) };
                        assert!(crate::testing::is_all(bytes, fill));
                        free(heap, object, layout).unwrap();
                    }
                }
            });
        }
    });
    for (address, layout, _) in mailbox.into_inner().unwrap() {
        free(&heap, NonNull::new(ram.base.with_addr(address)).unwrap(), layout).unwrap();
    }
    whole(&heap);
}

#[test]
fn a_wrong_free_names_what_is_there() {
    let ram = Ram::new(4096);
    let heap = heap_of(&ram, 0, 4096);
    let object = heap.alloc(layout(100, 8)).unwrap();
    let inside = NonNull::new(object.as_ptr().wrapping_add(70)).unwrap();
    let address = inside.addr().get();
    // SAFETY: it is refused.
    let bad = unsafe { heap.free(inside, layout(100, 8)) };
    let block = object.addr().get();
    assert_eq!(bad, Err(BadFree { kind: BadFreeKind::Interior, address, object_bytes: 128, block }));
    free(&heap, object, layout(100, 8)).unwrap();
}

#[test]
fn the_errors_say_what_is_wrong() {
    let errors = [RegionError::TooSmall, RegionError::TooLarge, RegionError::Overlap, RegionError::WouldBlock];
    let texts: BTreeMap<_, _> = errors.map(|error| (std::format!("{error}"), error)).into();
    assert_eq!(texts.len(), 4);
}
