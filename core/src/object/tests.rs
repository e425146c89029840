use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec::Vec;

use super::*;
use crate::error::BadFreeKind;
use crate::frames::Frames;
use crate::reclaim::Shrinker;
use crate::testing::{Fast, Roomy as Checked, Sim, heap, keep};

std::thread_local! {
    static MADE: Cell<usize> = const { Cell::new(0) };
    static GONE: Cell<usize> = const { Cell::new(0) };
    /// The constructor that panics, counted from 1.
    static MAKE_FAILS_AT: Cell<usize> = const { Cell::new(0) };
    static GO_FAILS_AT: Cell<usize> = const { Cell::new(0) };
}

fn tick(counter: &Cell<usize>, fails_at: &Cell<usize>) {
    counter.set(counter.get() + 1);
    assert!(counter.get() != fails_at.get(), "as the test wants it");
}

/// An object that owns memory of its own, so that a leak or a second destructor shows.
struct Thing<const PAD: usize> {
    number: Box<usize>,
    _pad: [u8; PAD],
}

impl<const PAD: usize> Thing<PAD> {
    fn new() -> Self {
        MADE.with(|made| MAKE_FAILS_AT.with(|at| tick(made, at)));
        Self { number: Box::new(7), _pad: [0; PAD] }
    }
}

impl<const PAD: usize> Drop for Thing<PAD> {
    fn drop(&mut self) {
        assert_eq!(*self.number, 7, "destructed as constructed");
        GONE.with(|gone| GO_FAILS_AT.with(|at| tick(gone, at)));
    }
}

const PLAIN: CacheOptions = CacheOptions::new("things");

type Things<const PAD: usize, C = Checked> = ObjectCache<'static, Thing<PAD>, Sim, C>;

/// Frames of a machine that has enough of them: Miri sets them up one by one.
const FRAMES: usize = if cfg!(miri) { 256 } else { 2048 };

/// A cache of objects of which a slab has few.
fn things<const PAD: usize>(options: CacheOptions) -> Things<PAD> {
    ObjectCache::new(heap(FRAMES, 1), options, Thing::new)
}

/// Frames in use, of those that do not describe slabs.
pub(super) fn frames_lent<C: Config>(heap: &Heap<'static, Sim, C>) -> usize {
    heap.drain();
    let census = heap.validate().unwrap();
    // Most of an arena is not there, and Miri takes half a minute to look at it.
    if !cfg!(miri) {
        heap.frames().validate().unwrap();
    }
    heap.frames().census().lent() - census.descriptor_bytes / C::FRAME_BYTES
}

#[test]
fn constructors_run_once_a_slot_and_destructors_when_its_slab_goes() {
    let cache = things::<4000>(PLAIN);
    let slots = cache.info().unwrap().slab_slots;
    for _ in 0..3 * slots {
        assert_eq!(*cache.alloc().unwrap().number, 7);
    }
    assert_eq!((MADE.get(), GONE.get()), (slots, 0), "one slab, used again and again");
    let held: Vec<_> = (0..slots + 1).map(|_| cache.alloc().unwrap()).collect();
    assert_eq!(MADE.get(), 2 * slots);
    let info = cache.info().unwrap();
    assert_eq!((info.active, info.total, info.slabs, info.empty_slabs), (slots + 1, 2 * slots, 2, 0));
    assert_eq!(info.allocations, (4 * slots + 1) as u64);
    drop(held);
    assert_eq!(GONE.get(), slots, "one empty slab is kept, the other one went");
    cache.validate().unwrap();
    assert_eq!(cache.shrink().get(), info.slab_bytes / 4096);
    assert_eq!(GONE.get(), 2 * slots);
    assert_eq!(cache.info().unwrap().slabs, 0);
    assert_eq!(frames_lent(cache.heap()), 0);
}

#[test]
fn objects_stay_as_their_last_user_left_them() {
    let cache: ObjectCache<'_, u64, Sim, Checked> = ObjectCache::new(heap(FRAMES, 1), PLAIN, || 1);
    let mut object = cache.alloc().unwrap();
    assert_eq!(*object, 1);
    *object = 2;
    let place = object.as_ptr();
    drop(object);
    let object = cache.alloc().unwrap();
    assert_eq!((object.as_ptr(), *object), (place, 2));
    let raw = object.into_raw();
    assert_eq!(cache.info().unwrap().active, 1);
    // SAFETY: it is from there.
    drop(unsafe { ObjectBox::from_raw(&cache, raw) });
    assert_eq!(cache.info().unwrap().active, 0);
}

#[test]
fn slabs_start_in_turn_at_every_colour() {
    let cache = things::<1000>(PLAIN.colours(4).aligned(32));
    let info = cache.info().unwrap();
    assert_eq!((info.colours, info.align_bytes, info.slot_bytes), (4, 32, 1024));
    let held: Vec<_> = (0..6 * info.slab_slots).map(|_| cache.alloc().unwrap()).collect();
    let offset = |object: &ObjectBox<'_, _, Things<1000>>| object.as_ptr().addr().get() % info.slab_bytes;
    let offsets: Vec<_> = held.chunks(info.slab_slots).map(|slab| slab.iter().map(offset).min().unwrap()).collect();
    assert_eq!(offsets, [0, 64, 128, 192, 0, 64]);
    cache.validate().unwrap();
    drop(held);
    cache.destroy().unwrap();
}

#[test]
fn alignment_and_every_size() {
    fn check<const SIZE: usize>(heap: &'static Heap<'static, Sim, Checked>) {
        let cache: ObjectCache<'_, [u8; SIZE], Sim, Checked> =
            ObjectCache::new(heap, PLAIN.line_aligned(), || [3; SIZE]);
        let info = cache.info().unwrap();
        let mut held: Vec<_> = (0..info.slab_slots.min(40) + 1).map(|_| cache.alloc().unwrap()).collect();
        for object in &mut held {
            assert!(object.as_ptr().addr().get().is_multiple_of(info.align_bytes));
            assert!(crate::testing::is_all(&object[..], 3));
            object.fill(4);
        }
        let mut starts: Vec<_> = held.iter().map(|object| object.as_ptr().addr().get()).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[0] + SIZE <= pair[1]));
        held.iter_mut().for_each(|object| object.fill(3));
        cache.validate().unwrap();
        drop(held);
        cache.destroy().unwrap();
    }
    let heap = heap::<Checked>(FRAMES, 1);
    check::<100>(heap);
    check::<3000>(heap);
    // Miri would write each of some thousand objects byte by byte.
    if !cfg!(miri) {
        check::<0>(heap);
        check::<1>(heap);
        check::<24>(heap);
        check::<1000>(heap);
        check::<5000>(heap);
        check::<21_000>(heap);
        check::<32_768>(heap);
    }
    assert_eq!(frames_lent(heap), 0);
}

#[test]
fn bulk_is_all_or_nothing() {
    let heap = heap::<Checked>(256, 1);
    let cache: ObjectCache<'_, [u64; 500], Sim, Checked> = ObjectCache::new(heap, PLAIN, || [0; 500]);
    let mut few = [None; 20];
    cache.alloc_bulk(&mut few).unwrap();
    assert_eq!(few.iter().flatten().collect::<HashSet<_>>().len(), 20);
    let mut many = [Some(few[0].unwrap()); 1000];
    assert_eq!(cache.alloc_bulk(&mut many), Err(AllocError::NoMemory));
    assert!(many.iter().all(Option::is_none));
    assert_eq!(cache.info().unwrap().active, 20);
    cache.validate().unwrap();

    let mut objects: Vec<_> = few.into_iter().flatten().rev().collect();
    let other: ObjectCache<'_, [u64; 500], Sim, Checked> = ObjectCache::new(heap, PLAIN, || [0; 500]);
    let foreign = other.alloc_raw().unwrap();
    for (wrong, kind) in [(objects[3], BadFreeKind::NotLent), (foreign, BadFreeKind::Foreign)] {
        objects.push(wrong);
        // SAFETY: all but one are from there, and none is used any more.
        let refused = unsafe { cache.free_bulk(&mut objects) }.unwrap_err();
        assert_eq!((refused.kind, refused.address), (kind, wrong.addr().get()));
        assert_eq!(cache.info().unwrap().active, 20, "nothing has changed");
        let place = objects.iter().position(|&object| object == wrong).unwrap();
        objects.remove(place);
    }
    // SAFETY: as above, without that one.
    unsafe { cache.free_bulk(&mut objects) }.unwrap();
    assert_eq!(cache.info().unwrap().active, 0);
    // SAFETY: it is from there.
    unsafe { other.free_raw(foreign) }.unwrap();
    cache.validate().unwrap();
    cache.destroy().unwrap();
    other.destroy().unwrap();
    assert_eq!(frames_lent(heap), 0);
}

#[test]
#[cfg_attr(miri, ignore = "some hundred requests until memory ends")]
fn exhaustion_is_an_error_and_recovers() {
    let heap = heap::<Checked>(256, 1);
    let cache: Things<2000> = ObjectCache::new(heap, PLAIN, Thing::new);
    for _ in 0..2 {
        let mut held = Vec::new();
        while let Ok(object) = cache.alloc() {
            held.push(object);
        }
        assert!(held.len() * 2016 > 200 << 12, "{}", held.len());
        assert_eq!(cache.alloc_raw(), Err(AllocError::NoMemory));
        cache.validate().unwrap();
    }
    cache.destroy().unwrap();
    assert_eq!((frames_lent(heap), MADE.get()), (0, GONE.get()));
}

#[test]
#[cfg_attr(miri, ignore = "some hundred requests until memory ends")]
fn idle_slabs_of_a_cache_serve_others_as_a_shrinker() {
    let heap = heap::<Checked>(256, 1);
    // Kept for ever, as the registration asks for; only empty slabs could be leaked.
    let cache: &'static Things<4000> = keep(ObjectCache::new(heap, PLAIN.keep_empty(100), Thing::new));
    let shrinker = keep(Shrinker::new(cache));
    heap.add_shrinker(shrinker).unwrap();
    let mut held = Vec::new();
    while let Ok(object) = cache.alloc() {
        held.push(object);
    }
    let slabs = cache.info().unwrap().slabs;
    drop(held);
    assert_eq!(cache.info().unwrap().empty_slabs, slabs, "kept");
    let layout = Layout::from_size_align(100 << 12, 1).unwrap();
    let large = heap.alloc(layout).unwrap();
    assert!(cache.info().unwrap().slabs < slabs);
    // SAFETY: just got.
    unsafe { heap.free(large, layout) }.unwrap();
    heap.remove_shrinker(shrinker).unwrap();
    cache.shrink();
    assert_eq!((frames_lent(heap), MADE.get()), (0, GONE.get()));
}

#[test]
fn a_cache_with_lent_objects_is_not_destroyed() {
    let cache = things::<4000>(PLAIN);
    let slots = cache.info().unwrap().slab_slots;
    let objects: Vec<_> = (0..2 * slots + 3).map(|_| cache.alloc_raw().unwrap()).collect();
    let leak = cache.destroy().unwrap_err();
    assert_eq!((leak.count(), leak.addresses().len()), (objects.len(), 8));
    assert!(leak.addresses().iter().all(|&address| objects.iter().any(|object| object.addr().get() == address)));
    let text = leak.to_string();
    assert!(
        text.starts_with(&format!("{} objects are still lent: 0x", objects.len())) && text.ends_with('…'),
        "{text}"
    );
    let cache = leak.into_cache();
    cache.validate().unwrap();
    for &object in &objects[1..] {
        // SAFETY: it is from there.
        unsafe { cache.free_raw(object) }.unwrap();
    }
    let leak = cache.destroy().unwrap_err();
    assert_eq!((leak.count(), leak.addresses()), (1, &[objects[0].addr().get()][..]));
    let cache = leak.into_cache();
    // SAFETY: it is from there.
    unsafe { cache.free_raw(objects[0]) }.unwrap();
    let heap = cache.heap();
    cache.destroy().unwrap();
    assert_eq!((frames_lent(heap), MADE.get()), (0, GONE.get()));
}

fn wrong_frees<C: Config>() {
    let heap = heap::<C>(FRAMES, 1);
    let cache: ObjectCache<'_, [u8; 1000], Sim, C> = ObjectCache::new(heap, PLAIN.colours(2), || [0; 1000]);
    let other: ObjectCache<'_, [u8; 1000], Sim, C> = ObjectCache::new(heap, PLAIN, || [0; 1000]);
    let slots = cache.info().unwrap().slab_slots;
    // The first slab starts at its first byte, the second one not.
    let objects: Vec<_> = (0..slots + 1).map(|_| cache.alloc_raw().unwrap()).collect();
    let foreign = other.alloc_raw().unwrap();
    let on_stack = [0u8; 1000];
    let small = heap.alloc(Layout::new::<[u8; 1000]>()).unwrap().cast();
    let kind = |object: NonNull<[u8; 1000]>| {
        // SAFETY: what is refused goes nowhere.
        unsafe { cache.free_raw(object) }.unwrap_err().kind
    };
    let beside = |bytes| NonNull::new(objects[slots].as_ptr().cast::<u8>().wrapping_offset(bytes).cast()).unwrap();
    assert_eq!(kind(beside(8)), BadFreeKind::Interior);
    assert_eq!(kind(beside(1)), BadFreeKind::Interior);
    assert_eq!(kind(beside(-64)), BadFreeKind::Interior, "before the first slot");
    assert_eq!(kind(beside(1000)), BadFreeKind::NotLent, "never lent");
    assert_eq!(kind(beside(1000 * slots as isize)), BadFreeKind::Interior, "behind the last slot");
    assert_eq!(kind(foreign), BadFreeKind::Foreign);
    assert_eq!(kind(small), BadFreeKind::Foreign);
    assert_eq!(kind(NonNull::from_ref(&on_stack)), BadFreeKind::Foreign);
    assert_eq!(kind(NonNull::dangling()), BadFreeKind::Foreign);
    for object in objects {
        // SAFETY: it is from there.
        unsafe { cache.free_raw(object) }.unwrap();
        assert!(matches!(kind(object), BadFreeKind::NotLent | BadFreeKind::Foreign), "freed, or its slab gone");
    }
    if C::CHECKED {
        // SAFETY: what is refused goes nowhere.
        let refused = unsafe { heap.free(foreign.cast(), Layout::new::<[u8; 1000]>()) }.unwrap_err();
        assert_eq!(refused.kind, BadFreeKind::Foreign);
        // SAFETY: as above.
        assert!(unsafe { heap.free_unsized(foreign.cast()) }.is_err());
        assert_eq!(heap.usable_size(foreign.cast()), None);
    }
    // SAFETY: they are from there.
    unsafe { other.free_raw(foreign) }.unwrap();
    // SAFETY: as above.
    unsafe { heap.free(small.cast(), Layout::new::<[u8; 1000]>()) }.unwrap();
    cache.validate().unwrap();
    cache.destroy().unwrap();
    other.destroy().unwrap();
    assert_eq!(frames_lent(heap), 0);
}

#[test]
fn wrong_frees_are_refused() {
    wrong_frees::<Checked>();
    wrong_frees::<Fast>();
}

#[test]
fn what_no_slab_is_cut_into_is_impossible() {
    let heap = heap::<Checked>(256, 1);
    let large: ObjectCache<'_, [u8; 40_000], Sim, Checked> = ObjectCache::new(heap, PLAIN, || [0; 40_000]);
    assert_eq!(large.alloc_raw(), Err(AllocError::Impossible));
    let odd: ObjectCache<'_, u8, Sim, Checked> = ObjectCache::new(heap, PLAIN.aligned(3), || 0);
    assert_eq!(odd.alloc_raw(), Err(AllocError::Impossible));
    assert_eq!((odd.info().unwrap().slabs, odd.shrink()), (0, FrameCount::ZERO));
    odd.validate().unwrap();
    odd.destroy().unwrap();
    let frames: &'static Frames<'static, Sim, Checked> = keep(Frames::new());
    let early: &'static Heap<'static, Sim, Checked> = keep(Heap::new(frames));
    let cache: ObjectCache<'_, u8, Sim, Checked> = ObjectCache::new(early, PLAIN, || 0);
    assert_eq!(cache.alloc_raw(), Err(AllocError::NotReady));
    cache.destroy().unwrap();
}

#[test]
fn a_panic_in_a_constructor_leaves_nothing_behind() {
    let cache = things::<4000>(PLAIN);
    let slots = cache.info().unwrap().slab_slots;
    MAKE_FAILS_AT.set(slots - 1);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.alloc_raw())).is_err());
    assert_eq!((MADE.get(), GONE.get()), (slots - 1, slots - 2), "those before it are destructed");
    assert_eq!((cache.info().unwrap().slabs, frames_lent(cache.heap())), (0, 0));
    cache.validate().unwrap();

    // In the middle of a bulk request: what it had is given back.
    MAKE_FAILS_AT.set(MADE.get() + slots + 2);
    let mut places = [None; 100];
    assert!(catch_unwind(AssertUnwindSafe(|| cache.alloc_bulk(&mut places))).is_err());
    let info = cache.info().unwrap();
    assert_eq!((info.active, info.slabs), (0, 1));
    assert!(places.iter().all(Option::is_none));
    MAKE_FAILS_AT.set(0);
    assert_eq!(*cache.alloc().unwrap().number, 7, "and it serves");
    let heap = cache.heap();
    cache.destroy().unwrap();
    // Two constructors have panicked, so two objects were never there.
    assert_eq!((frames_lent(heap), MADE.get()), (0, GONE.get() + 2));
}

#[test]
fn a_panic_in_a_destructor_leaves_nothing_behind() {
    let cache = things::<4000>(PLAIN);
    let slots = cache.info().unwrap().slab_slots;
    drop(cache.alloc().unwrap());
    GO_FAILS_AT.set(3);
    assert!(catch_unwind(AssertUnwindSafe(|| cache.shrink())).is_err());
    assert_eq!((MADE.get(), GONE.get()), (slots, slots), "the others are destructed all the same");
    assert_eq!((cache.info().unwrap().slabs, frames_lent(cache.heap())), (0, 0));
    drop(cache.alloc().unwrap());
    cache.validate().unwrap();
    cache.destroy().unwrap();
}

#[test]
fn what_interrupts_the_allocator_gets_constructed_objects_alone() {
    let cache = things::<4000>(PLAIN);
    assert_eq!(Sim::interrupting(|| cache.alloc_raw()), Err(AllocError::WouldBlock), "no constructor there");
    let first = cache.alloc().unwrap();
    let second = Sim::interrupting(|| cache.alloc_raw()).unwrap();
    // SAFETY: it is from there.
    Sim::interrupting(|| unsafe { cache.free_raw(second) }).unwrap();
    Sim::interrupting(|| drop(first));
    assert_eq!((MADE.get(), GONE.get()), (cache.info().unwrap().slab_slots, 0), "no destructor either");
    cache.destroy().unwrap();
}

#[test]
fn concurrent_threads_pass_objects_on() {
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    struct Counted(AtomicUsize);
    impl Drop for Counted {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::Relaxed);
        }
    }
    const THREADS: u32 = 4;
    let heap = heap::<Checked>(FRAMES, THREADS as usize);
    let cache: ObjectCache<'_, Counted, Sim, Checked> = ObjectCache::new(heap, PLAIN.line_aligned(), || {
        LIVE.fetch_add(1, Ordering::Relaxed);
        Counted(AtomicUsize::new(0))
    });
    let (give, take) = std::sync::mpsc::sync_channel(64);
    let take = std::sync::Mutex::new(take);
    std::thread::scope(|scope| {
        let (cache, take) = (&cache, &take);
        for cpu in 0..THREADS {
            let give = give.clone();
            scope.spawn(move || {
                Sim::become_cpu(cpu);
                for _ in 0..if cfg!(miri) { 4 } else { 5000 } {
                    let mut places = [None; 5];
                    cache.alloc_bulk(&mut places).unwrap();
                    // SAFETY: just got.
                    let ours = places.into_iter().flatten().map(|object| unsafe { ObjectBox::from_raw(cache, object) });
                    for object in ours {
                        assert_eq!(object.0.fetch_add(1, Ordering::Relaxed), 0, "nobody else has it");
                        if let Err(std::sync::mpsc::TrySendError::Full(object)) = give.try_send(object) {
                            object.0.store(0, Ordering::Relaxed);
                        }
                    }
                    while let Ok(theirs) = take.lock().unwrap().try_recv() {
                        theirs.0.store(0, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    while let Ok(object) = take.lock().unwrap().try_recv() {
        object.0.store(0, Ordering::Relaxed);
    }
    cache.validate().unwrap();
    assert_eq!(LIVE.load(Ordering::Relaxed), cache.info().unwrap().total);
    drop((give, take));
    cache.destroy().unwrap();
    assert_eq!((LIVE.load(Ordering::Relaxed), frames_lent(heap)), (0, 0));
}

#[test]
#[cfg_attr(miri, ignore = "some hundred requests until memory ends")]
fn a_memory_pool_serves_when_memory_has_ended() {
    let heap = heap::<Checked>(256, 1);
    let cache: Things<2000> = ObjectCache::new(heap, PLAIN, Thing::new);
    let pool = MemPool::<_, _, 4, _>::new(&cache);
    pool.fill().unwrap();
    assert_eq!(pool.reserved(), 4);
    let mut hoard = Vec::new();
    while let Ok(object) = cache.alloc() {
        hoard.push(object);
    }
    for _ in 0..3 {
        let held: Vec<_> = (0..4).map(|_| pool.alloc().unwrap()).collect();
        assert_eq!((pool.alloc_raw(), pool.reserved()), (Err(AllocError::NoMemory), 0));
        assert!(held.iter().all(|object| *object.number == 7));
        drop(held);
        assert_eq!(pool.reserved(), 4, "refilled first");
    }
    // Any context does.
    let object = Sim::interrupting(|| pool.alloc_raw()).unwrap();
    // SAFETY: it is from there.
    Sim::interrupting(|| unsafe { pool.free_raw(object) }).unwrap();
    assert_eq!(pool.reserved(), 4);
    drop(hoard);
    let object = pool.alloc().unwrap();
    assert_eq!(pool.reserved(), 4, "the cache has some again");
    drop(object);
    pool.fill().unwrap();
    drop(pool);
    cache.validate().unwrap();
    cache.destroy().unwrap();
    assert_eq!((frames_lent(heap), MADE.get()), (0, GONE.get()));
}

#[test]
fn a_memory_pool_refuses_wrong_frees() {
    let cache = things::<100>(PLAIN);
    let pool = MemPool::<_, _, 2, _>::new(&cache);
    pool.fill().unwrap();
    let objects = [0; 3].map(|_| pool.alloc_raw().unwrap());
    let spare = [0; 2].map(|_| pool.take_reserved().unwrap());
    let free = |object| {
        // SAFETY: what is wrong is refused.
        unsafe { pool.free_raw(object) }.map_err(|fault| fault.kind)
    };
    assert_eq!(free(objects[0]), Ok(()));
    assert_eq!(free(objects[0]), Err(BadFreeKind::NotLent), "it lies in the reserve");
    assert_eq!((free(objects[1]), pool.reserved()), (Ok(()), 2));
    assert_eq!(free(objects[1]), Err(BadFreeKind::NotLent), "there too, which is full");
    assert_eq!(free(objects[2]), Ok(()));
    assert_eq!(free(objects[2]), Err(BadFreeKind::NotLent), "it is in its slab");
    assert_eq!(free(NonNull::dangling()), Err(BadFreeKind::Foreign));
    for object in spare {
        // SAFETY: it is from there.
        unsafe { cache.free_raw(object) }.unwrap();
    }
    drop(pool);
    cache.destroy().unwrap();
}

#[test]
fn info_reads_as_a_line_of_slabinfo() {
    let cache = things::<100>(PLAIN);
    let _one = cache.alloc().unwrap();
    let line = cache.info().unwrap().to_string();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["things", "1", "292", "112", "292", "32768", "1"]);
}
