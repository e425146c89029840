use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::vec::Vec;

use super::*;
use crate::config::Hardened;
use crate::testing::{Sim, heap, heap_at};

/// As processes have it: the marks in arrays. The poison is not zero.
struct Linear;
impl Config for Linear {
    const HARDENED: bool = true;
    const LINEAR_SHADOW: bool = true;
    const NUMA: bool = false;
    const POISON: u8 = 0xdb;
    const KEEP_EMPTY_SLABS: usize = 1 << 20;
}

/// Nothing is held back.
struct AtOnce;
impl Config for AtOnce {
    const HARDENED: bool = true;
    const QUARANTINE_OBJECTS: usize = 0;
    // Slabs stay, so that what was written is met by a request.
    const KEEP_EMPTY_SLABS: usize = 1 << 20;
}

type Instance<C> = &'static Heap<'static, Sim, C>;

const FRAMES: usize = if cfg!(miri) { 512 } else { 4096 };

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

fn free<C: Config>(heap: Instance<C>, object: NonNull<u8>, layout: Layout) -> Result<(), BadFreeKind> {
    // SAFETY: a test that frees wrongly does not use what it gets afterwards.
    unsafe { heap.free(object, layout) }.map_err(|fault| fault.kind)
}

/// The byte `offset` bytes from the start of an object.
fn byte<C: Config>(heap: Instance<C>, object: NonNull<u8>, offset: isize) -> *mut u8 {
    heap.window.pointer(object.addr().get().wrapping_add_signed(offset))
}

fn get<C: Config>(heap: Instance<C>, object: NonNull<u8>, offset: isize) -> u8 {
    // SAFETY: memory of the heap that has been written, and that no other thread uses.
    unsafe { byte(heap, object, offset).read() }
}

fn set<C: Config>(heap: Instance<C>, object: NonNull<u8>, offset: isize, value: u8) {
    // SAFETY: as above.
    unsafe { byte(heap, object, offset).write(value) };
}

fn comes_home<C: Config>(heap: Instance<C>) {
    heap.drain_cpu();
    heap.drain();
    let census = heap.validate().unwrap();
    assert_eq!((census.lent(), census.stuck_bytes), (0, 0));
    assert_eq!(SizeClass::all().map(|class| census.class(class).slabs).sum::<usize>(), 0);
    heap.frames().validate().unwrap();
}

/// Sizes of every class, of the edges of some, and large.
fn sizes() -> Vec<usize> {
    if cfg!(miri) {
        // Every byte is slow there.
        return [0, 1, 8, 24, 40, 1016, 32_761].to_vec();
    }
    let classes = SizeClass::all().map(|class| class.bytes() - TRAILER_BYTES);
    let classes = classes.flat_map(|size| [size, size.saturating_sub(1)]);
    classes.chain([1, 2, 5, 8, 15, 16, 24, 32_761, 32_768, 40_000, 40_960, 65_537]).collect()
}

std::thread_local! {
    static HEARD: RefCell<Vec<BadFree>> = const { RefCell::new(Vec::new()) };
}

static HOOK: fn(BadFree) = |fault| HEARD.with_borrow_mut(|heard| heard.push(fault));

fn heard() -> Vec<BadFreeKind> {
    HEARD.take().into_iter().map(|fault| fault.kind).collect()
}

fn overrun<C: Config>() {
    let heap = heap::<C>(FRAMES, 1);
    for size in sizes() {
        for align in [1, 16, 64] {
            let layout = layout(size, align);
            let object = heap.alloc(layout).unwrap();
            assert!(object.addr().get().is_multiple_of(align));
            assert_eq!(heap.usable_size(object), Some(size));
            for beyond in [0, 1, 7] {
                let before = get(heap, object, (size + beyond) as isize);
                for value in [0, before ^ 1, before ^ 0x80] {
                    set(heap, object, (size + beyond) as isize, value);
                    assert_eq!(free(heap, object, layout), Err(BadFreeKind::Overrun), "{size} {align} {beyond}");
                    // SAFETY: as in `free`.
                    assert!(unsafe { heap.free_unsized(object) }.is_err());
                    // SAFETY: as in `free`.
                    assert!(unsafe { heap.realloc(object, layout, size + 1) }.is_err());
                }
                set(heap, object, (size + beyond) as isize, before);
            }
            // What is refused has changed nothing.
            heap.validate().unwrap();
            assert_eq!(free(heap, object, layout), Ok(()));
            assert_eq!(free(heap, object, layout), Err(BadFreeKind::NotLent), "{size} {align}");
        }
    }
    comes_home(heap);
}

#[test]
fn one_byte_beyond_the_end_is_seen() {
    overrun::<Hardened>();
    overrun::<Linear>();
}

/// The largest frames there can be: of a block of no bytes, a whole one is slack.
struct LargeFrames;
impl Config for LargeFrames {
    const HARDENED: bool = true;
    const FRAME_BYTES: usize = 64 << 10;
    const SLAB_BYTES: usize = 64 << 10;
}

#[test]
#[cfg_attr(miri, ignore = "not with the sizes of this geometry")]
fn a_block_of_no_bytes_may_have_a_large_frame() {
    let heap = heap::<LargeFrames>(64, 1);
    let layout = layout(0, 64 << 10);
    let object = heap.alloc(layout).unwrap();
    assert_eq!(heap.usable_size(object), Some(0));
    set(heap, object, 0, 1);
    assert_eq!(free(heap, object, layout), Err(BadFreeKind::Overrun));
}

#[test]
fn a_byte_before_a_large_block_is_seen() {
    let heap = heap::<Hardened>(FRAMES, 1);
    let layout = layout(100_000, 1);
    let object = heap.alloc(layout).unwrap();
    for offset in [-1, -4096, 26 * 4096 - 1 - 4096, 26 * 4096 - 1] {
        let before = get(heap, object, offset);
        set(heap, object, offset, before ^ 4);
        assert_eq!(free(heap, object, layout), Err(BadFreeKind::Overrun), "{offset}");
        set(heap, object, offset, before);
    }
    assert_eq!(free(heap, object, layout), Ok(()));
    comes_home(heap);
}

#[test]
fn another_size_is_a_wrong_one() {
    let heap = heap::<Hardened>(FRAMES, 1);
    heap.set_fault_hook(&HOOK);
    for size in sizes() {
        let object = heap.alloc(layout(size, 1)).unwrap();
        for other in [size + 1, size.wrapping_sub(1)].into_iter().filter(|&other| other < 1 << 20) {
            let same = slot_class(layout(size, 1)) == slot_class(layout(other, 1));
            let kind = free(heap, object, layout(other, 1)).unwrap_err();
            assert!(
                kind == if same { BadFreeKind::WrongSize } else { BadFreeKind::WrongClass } || size > 32_000,
                "{size}"
            );
            // SAFETY: as in `free`.
            let changed = unsafe { heap.realloc(object, layout(other, 1), 10) };
            assert_eq!(changed, Err(AllocError::Impossible));
            assert_eq!(heard(), [kind, kind]);
        }
        // SAFETY: it is the test's.
        unsafe { heap.free_unsized(object) }.unwrap();
    }
    comes_home(heap);
}

fn written_after_free<C: Config>() {
    let heap = heap::<C>(FRAMES, 1);
    heap.set_fault_hook(&HOOK);
    let mut condemned = 0;
    for class in SizeClass::all().filter(|class| class.bytes() <= 4096).step_by(if cfg!(miri) { 7 } else { 1 }) {
        let layout = layout(class.bytes() - TRAILER_BYTES, 1);
        for offset in [0, class.bytes() / 2, class.bytes() - 1] {
            let object = heap.alloc(layout).unwrap();
            free(heap, object, layout).unwrap();
            heap.drain_cpu();
            let value = get(heap, object, offset as isize);
            assert_eq!(value, C::POISON);
            set(heap, object, offset as isize, value ^ 8);
            condemned += 1;
            // It comes sooner or later, and is not lent.
            let mut lent = Vec::new();
            while heap.census().class(class).condemned == offset_index(offset, class) {
                lent.push(heap.alloc(layout).unwrap());
            }
            assert_eq!(heard(), [BadFreeKind::WrittenAfterFree]);
            assert!(!lent.contains(&object));
            lent.into_iter().for_each(|object| free(heap, object, layout).unwrap());
            assert_eq!(free(heap, object, layout), Err(BadFreeKind::NotLent));
            assert_eq!(heard(), [BadFreeKind::NotLent]);
        }
    }
    heap.drain();
    let census = heap.validate().unwrap();
    assert_eq!(census.lent(), 0);
    assert_eq!(SizeClass::all().map(|class| census.class(class).condemned).sum::<usize>(), condemned);
}

/// How many were condemned before this one.
fn offset_index(offset: usize, class: SizeClass) -> usize {
    [0, class.bytes() / 2, class.bytes() - 1].iter().position(|&each| each == offset).unwrap()
}

#[test]
fn what_was_written_after_its_free_is_never_lent() {
    written_after_free::<AtOnce>();
    written_after_free::<Linear>();
}

/// As most heaps have it: slabs go when they are empty.
struct Sparing;
impl Config for Sparing {
    const HARDENED: bool = true;
    const KEEP_EMPTY_SLABS: usize = 0;
    const POISON: u8 = 0xdb;
}

#[test]
fn what_was_written_after_its_free_is_seen_when_its_slab_goes() {
    let heap = heap::<Sparing>(FRAMES, 1);
    heap.set_fault_hook(&HOOK);
    for class in SizeClass::all().step_by(if cfg!(miri) { 7 } else { 1 }) {
        let layout = layout(class.bytes() - TRAILER_BYTES, 1);
        let objects: Vec<_> = (0..3).map(|_| heap.alloc(layout).unwrap()).collect();
        objects.iter().for_each(|&object| free(heap, object, layout).unwrap());
        comes_home(heap);
        assert_eq!(heard(), [], "class of {} bytes", class.bytes());
        let objects: Vec<_> = (0..3).map(|_| heap.alloc(layout).unwrap()).collect();
        objects.iter().for_each(|&object| free(heap, object, layout).unwrap());
        set(heap, objects[1], class.bytes() as isize / 2, 1);
        comes_home(heap);
        let faults = HEARD.take();
        let found: Vec<_> = faults.iter().map(|fault| (fault.kind, fault.address, fault.object_bytes)).collect();
        assert_eq!(found, [(BadFreeKind::WrittenAfterFree, objects[1].addr().get(), class.bytes())]);
    }
}

#[test]
fn what_is_freed_is_overwritten_and_what_is_lent_anew_tells_no_canaries() {
    let heap = heap::<Linear>(FRAMES, 1);
    let small = layout(3, 1);
    let object = heap.alloc(small).unwrap();
    (0..3).for_each(|offset| set(heap, object, offset, 1));
    // SAFETY: it is the test's, and stays where it is.
    let grown = unsafe { heap.realloc(object, small, 7) }.unwrap();
    assert_eq!((grown, heap.usable_size(grown)), (object, Some(7)));
    let found: Vec<_> = (0..7).map(|offset| get(heap, object, offset)).collect();
    assert_eq!(found, [1, 1, 1, Linear::POISON, Linear::POISON, Linear::POISON, Linear::POISON]);
    free(heap, object, layout(7, 1)).unwrap();
    assert!((0..16).all(|offset| get(heap, object, offset) == Linear::POISON));
    let zeroed = heap.alloc_zeroed(layout(100, 8)).unwrap();
    assert!((0..100).all(|offset| get(heap, zeroed, offset) == 0));
    free(heap, zeroed, layout(100, 8)).unwrap();
    let large = layout(50_000, 1);
    let object = heap.alloc(large).unwrap();
    (0..50_000).for_each(|offset| set(heap, object, offset, 1));
    // SAFETY: as above.
    let grown = unsafe { heap.realloc(object, large, 53_000) }.unwrap();
    assert_eq!((grown, heap.usable_size(grown)), (object, Some(53_000)));
    assert!((50_000..53_000).all(|offset| get(heap, object, offset) == Linear::POISON));
    free(heap, object, layout(53_000, 1)).unwrap();
    comes_home(heap);
}

#[test]
fn what_is_freed_is_held_back_but_not_too_much() {
    let heap = heap::<Hardened>(FRAMES, 1);
    let held = || {
        let census = heap.validate().unwrap();
        let count = |class| census.class(class).quarantined;
        let bytes = SizeClass::all().map(|class| count(class) * class.bytes()).sum::<usize>();
        (SizeClass::all().map(count).sum::<usize>(), bytes)
    };
    for size in [24, 1000, 20_000] {
        let layout = layout(size, 1);
        let objects: Vec<_> = (0..if cfg!(miri) { 5 } else { 400 }).map(|_| heap.alloc(layout).unwrap()).collect();
        for object in objects {
            free(heap, object, layout).unwrap();
            assert_eq!(free(heap, object, layout), Err(BadFreeKind::NotLent), "in quarantine");
        }
        let (count, bytes) = held();
        assert!((1..=Hardened::QUARANTINE_OBJECTS).contains(&count), "{count}");
        assert!(bytes <= Hardened::QUARANTINE_BYTES, "{bytes}");
    }
    let one = heap.alloc(layout(24, 1)).unwrap();
    heap.drain_cpu();
    assert_eq!(held().0, 0);
    // Nobody who interrupted the allocator has a quarantine.
    Sim::interrupting(|| free(heap, one, layout(24, 1))).unwrap();
    assert_eq!(held().0, 0);
    comes_home(heap);
}

#[test]
fn what_is_held_back_is_there_when_memory_ends() {
    let heap = heap::<Hardened>(256, 1);
    let small = layout(20_000, 1);
    let mut lent = Vec::new();
    while let Ok(object) = heap.alloc(small) {
        lent.push(object);
    }
    let count = lent.len();
    for _ in 0..3 {
        lent.drain(..).for_each(|object| free(heap, object, small).unwrap());
        lent.extend(core::iter::repeat_with(|| heap.alloc(small)).map_while(Result::ok));
        assert!(lent.len() + 1 >= count, "{} of {count}", lent.len());
    }
    lent.drain(..).for_each(|object| free(heap, object, small).unwrap());
    comes_home(heap);
}

#[test]
fn slots_come_in_another_order_with_another_secret() {
    use crate::testing::{bytes, keep, machine, span};
    let order = |secret: u64| {
        let memory = span(0, FRAMES);
        let heap: Instance<AtOnce> = keep(Heap::new(keep(machine(memory, 1))));
        heap.set_secret(secret).unwrap();
        let base = std::vec![0u64; FRAMES * 512 + (64 << 10)].leak().as_mut_ptr().cast::<u8>();
        let base = base.wrapping_add(base.align_offset(128 << 10));
        let metadata = bytes(Heap::<Sim, AtOnce>::metadata_size(memory, 1, 1));
        // SAFETY: the memory was made for this instance, and has room for all its frames.
        unsafe { heap.init(base, memory, 1, 1, metadata) }.unwrap();
        assert_eq!(heap.set_secret(1), Err(SetupError::State));
        let objects: Vec<_> = (0..200).map(|_| heap.alloc(layout(40, 1)).unwrap()).collect();
        let order: Vec<_> = objects.iter().map(|object| object.addr().get() - base.addr()).collect();
        objects.into_iter().for_each(|object| free(heap, object, layout(40, 1)).unwrap());
        comes_home(heap);
        order
    };
    let (one, same, other) = (order(1), order(1), order(2));
    assert_eq!(one, same);
    assert_ne!(one, other);
    assert!(!one.is_sorted() && !other.is_sorted());
}

#[test]
fn large_blocks_of_every_alignment_come_home() {
    blocks_of_every_alignment(heap::<Hardened>(if cfg!(miri) { 512 } else { 16384 }, 1));
    if !cfg!(miri) {
        // Frame 0 is less aligned than some requests.
        blocks_of_every_alignment(heap_at::<Hardened>(16384, 1, 256 << 10));
    }
}

fn blocks_of_every_alignment(heap: Instance<Hardened>) {
    let aligns = [1, 4096, 8192, 65_536, 1 << 20, 2 << 20, 16 << 20];
    for (size, align) in [0, 1, 4096, 40_000, 65_536, 1_000_000].into_iter().flat_map(|size| aligns.map(|a| (size, a)))
    {
        let layout = layout(size, align);
        if cfg!(miri) && size.max(align) > 100_000 {
            continue;
        }
        let object = heap.alloc(layout).unwrap();
        assert!(object.addr().get().is_multiple_of(align), "{layout:?}");
        assert_eq!(heap.usable_size(object), Some(size));
        if slot_class(layout).is_none() {
            let wrong = |offset: isize| NonNull::new(byte(heap, object, offset)).unwrap();
            let kinds = [-4096, 1, 4096].map(|offset| free(heap, wrong(offset), layout).unwrap_err());
            assert_eq!(kinds, [BadFreeKind::Interior; 3], "{layout:?}");
            assert_eq!(free(heap, object, self::layout(8, 1)), Err(BadFreeKind::WrongSize));
        }
        set(heap, object, -1, get(heap, object, -1));
        free(heap, object, layout).unwrap();
        assert_eq!(free(heap, object, layout), Err(BadFreeKind::NotLent), "{layout:?}");
    }
    assert_eq!(heap.kept_bytes(), 0);
    comes_home(heap);
}

std::thread_local! {
    static CLOSED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static MAY_CLOSE: Cell<usize> = const { Cell::new(usize::MAX) };
    static MAY_OPEN: Cell<bool> = const { Cell::new(true) };
}

static PAGES: PageHook = PageHook {
    close: |page, bytes| {
        assert_eq!(bytes, 4096);
        let left = MAY_CLOSE.get();
        MAY_CLOSE.set(left.saturating_sub(1));
        if left != 0 {
            CLOSED.with_borrow_mut(|closed| closed.push(page.addr()));
        }
        left != 0
    },
    open: |page, _| {
        CLOSED.with_borrow_mut(|closed| {
            let place = closed.iter().position(|&each| each == page.addr()).expect("it was closed");
            closed.swap_remove(place);
        });
        MAY_OPEN.get()
    },
    erase: |_, _| false,
};

#[test]
fn guards_are_closed_as_long_as_their_block_is_lent() {
    let heap = heap::<Hardened>(FRAMES, 1);
    heap.set_page_hook(&PAGES);
    let large = layout(40_000, 1);
    let object = heap.alloc(large).unwrap();
    let start = object.addr().get();
    CLOSED.with_borrow(|closed| assert_eq!(*closed, [start - 4096, start + 40_960]));
    // A closed guard is not looked at.
    free(heap, object, large).unwrap();
    assert!(CLOSED.with_borrow(Vec::is_empty));
    MAY_CLOSE.set(1);
    let object = heap.alloc(large).unwrap();
    assert_eq!(CLOSED.with_borrow(Vec::len), 1);
    let before = get(heap, object, 40_960);
    set(heap, object, 40_960, before ^ 1);
    assert_eq!(free(heap, object, large), Err(BadFreeKind::Overrun), "the other one is filled");
    set(heap, object, 40_960, before);
    free(heap, object, large).unwrap();
    comes_home(heap);
    MAY_CLOSE.set(usize::MAX);
    let object = heap.alloc(large).unwrap();
    MAY_OPEN.set(false);
    free(heap, object, large).unwrap();
    MAY_OPEN.set(true);
    assert_eq!(free(heap, object, large), Err(BadFreeKind::NotLent));
    assert_eq!(heap.validate().unwrap().stuck_bytes, 12 * 4096);
    heap.frames().validate().unwrap();
}
