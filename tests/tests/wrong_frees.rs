//! The matrix of wrong frees at levels `Checked` and `Hardened`: every kind, at every size class and large, wherever
//! the object is. Each must be refused at the call, with the right reason, and change nothing. What cannot be seen has
//! a test of its own that says so.
//!
//! Meant to run in release mode too, where no debug assertion helps: `cargo test --release -p pagemill-tests --test
//! wrong_frees`.

#[path = "heap/machine.rs"]
mod machine;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};

use machine::{Fast, Instance, Linear, OneNode, class_of, heap, on_cpu};
use pagemill::{BadFree, BadFreeKind, Checked, Config, Hardened, SizeClass};

const CPUS: usize = 3;

/// [`Hardened`] with hardly any quarantine, so that what is freed gets further.
struct Hard;
impl Config for Hard {
    const HARDENED: bool = true;
    const QUARANTINE_OBJECTS: usize = 1;
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn alloc<C: Config>(heap: &Instance<C>, layout: Layout) -> NonNull<u8> {
    heap.alloc(layout).unwrap()
}

/// A free that nobody promises to be right.
fn free<C: Config>(heap: &Instance<C>, object: NonNull<u8>, layout: Layout) -> Result<(), BadFree> {
    // SAFETY: the tests touch no object, so nothing is lost where a wrong free succeeds but the test.
    unsafe { heap.free(object, layout) }
}

fn at(address: usize) -> NonNull<u8> {
    NonNull::new(std::ptr::without_provenance_mut(address)).unwrap()
}

/// Where an object is after it was freed, and how it got there. `lent` is of the layout, the first of a run of them.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Freed a moment ago, by its owner.
    JustFreed,
    /// In this CPU's pool, under others.
    Pool,
    Depot,
    Slab,
    /// In the pool of a CPU that is not the one that frees again.
    OtherPool,
    /// Freed by another CPU than the one it was lent on, and freed again here.
    FreedElsewhere,
    /// Its slab was released.
    Released,
}

const PLACES: [Place; 7] = [
    Place::JustFreed,
    Place::Pool,
    Place::Depot,
    Place::Slab,
    Place::OtherPool,
    Place::FreedElsewhere,
    Place::Released,
];

/// What a heap has of a size, when some objects are at a certain place.
struct Case<C: Config> {
    heap: &'static Instance<C>,
    layout: Layout,
    /// Objects that are lent to the end, so that their slabs stay.
    kept: Vec<NonNull<u8>>,
}

impl<C: Config> Case<C> {
    /// Objects that were freed and are at `place` now.
    fn put(&mut self, place: Place) -> Vec<NonNull<u8>> {
        let (heap, layout) = (self.heap, self.layout);
        let lend = |count: usize| (0..count).map(|_| alloc(heap, layout)).collect::<Vec<_>>();
        let count = match class_of::<C>(layout) {
            // More than a pool holds, though it be deep.
            Some(class) => ((128 << 10) / class.bytes()).min(1024) + 50,
            None => 3,
        };
        let objects = lend(count);
        let release = |objects: &[NonNull<u8>]| objects.iter().for_each(|&object| free(heap, object, layout).unwrap());
        match place {
            Place::JustFreed => {
                release(&objects[..1]);
                self.kept.extend(&objects[1..]);
                return objects[..1].to_vec();
            }
            Place::Pool => {
                release(&objects[..2]);
                self.kept.extend(&objects[2..]);
                return objects[..2].to_vec();
            }
            Place::Depot => {
                // Until some are there: of what came after that the depot might have enough.
                let is_there = |class: SizeClass| heap.validate().unwrap().class(class).depot > 0;
                let freed = objects.iter().position(|&object| {
                    free(heap, object, layout).unwrap();
                    class_of::<C>(layout).is_some_and(is_there)
                });
                let (freed, kept) = objects.split_at(freed.map_or(objects.len(), |last| last + 1));
                self.kept.extend(kept);
                return freed.to_vec();
            }
            Place::Slab => {
                self.kept.extend(objects.iter().step_by(2));
                let freed: Vec<_> = objects.into_iter().skip(1).step_by(2).collect();
                release(&freed);
                heap.drain_cpu();
                heap.trim();
                return freed;
            }
            Place::OtherPool => {
                on_cpu(1, || release(&objects[..2]));
                self.kept.extend(&objects[2..]);
                return objects[..2].to_vec();
            }
            Place::FreedElsewhere => on_cpu(2, || {
                release(&objects);
                heap.drain_cpu();
            }),
            Place::Released => {
                release(&objects);
                (0..CPUS as u32).for_each(|cpu| on_cpu(cpu, || heap.drain_cpu()));
                heap.drain();
            }
        }
        objects
    }

    /// What was freed is where it was meant to be.
    fn is_at(&self, place: Place) {
        let census = self.heap.validate().unwrap();
        let Some(class) = class_of::<C>(self.layout) else { return };
        let count = census.class(class);
        let right = match place {
            Place::JustFreed | Place::Pool | Place::OtherPool => count.pooled + count.quarantined > 0,
            Place::Depot => count.depot > 0,
            Place::Slab => count.pooled + count.depot == 0 && count.free > 0,
            Place::FreedElsewhere => count.free > 0,
            Place::Released => count.slabs == 0,
        };
        assert!(right, "{:?}: not at {place:?}: {count:?}", self.layout);
    }

    /// Whatever is freed here in this way is refused, whatever it is said to be.
    fn refuse(&self, object: NonNull<u8>, layout: Layout, kinds: &[BadFreeKind], what: &str) {
        for cpu in 0..CPUS as u32 {
            let error = on_cpu(cpu, || free(self.heap, object, layout)).expect_err(what);
            assert!(kinds.contains(&error.kind), "{what}, {:?}: {error}", self.layout);
            assert_eq!(error.address, object.addr().get());
        }
    }

    fn refuse_unsized(&self, object: NonNull<u8>, what: &str) {
        // SAFETY: as in `free`.
        let error = unsafe { self.heap.free_unsized(object) }.expect_err(what);
        assert_eq!(error.address, object.addr().get());
    }

    /// Everything adds up, and comes home.
    fn finish(self) {
        self.heap.validate().unwrap();
        let Self { heap, layout, kept } = self;
        kept.into_iter().for_each(|object| free(heap, object, layout).unwrap());
        (0..CPUS as u32).for_each(|cpu| on_cpu(cpu, || heap.drain_cpu()));
        heap.drain();
        assert_eq!(heap.validate().unwrap().lent(), 0);
    }
}

/// Layouts of every class and some that are large.
fn layouts() -> impl Iterator<Item = Layout> {
    let classes = SizeClass::all().map(SizeClass::bytes);
    classes.chain([32_769, 40_000, 65_536, 100_000, 1 << 20, (1 << 20) + 1]).map(layout)
}

/// Frees again what was freed, at every place.
fn twice<C: Config>() {
    let heap = heap::<C>(16384, CPUS);
    for layout in layouts() {
        let small = class_of::<C>(layout).is_some();
        for place in PLACES {
            let mut case = Case { heap, layout, kept: Vec::new() };
            let objects = case.put(place);
            case.is_at(place);
            let kinds: &[BadFreeKind] = match (small, place) {
                (true, Place::Released | Place::Depot | Place::FreedElsewhere) => {
                    &[BadFreeKind::NotLent, BadFreeKind::Foreign]
                }
                (true, _) => &[BadFreeKind::NotLent],
                (false, _) => &[BadFreeKind::NotLent, BadFreeKind::Foreign],
            };
            for &object in &objects {
                case.refuse(object, layout, kinds, &format!("freed twice, {place:?}"));
                case.refuse_unsized(object, &format!("freed twice, {place:?}, without a layout"));
            }
            case.finish();
        }
    }
}

/// Frees what never was an object, or is one of another kind, while objects are lent and while they are at every place.
fn never<C: Config>() {
    let heap = heap::<C>(16384, CPUS);
    let local = 0u64;
    let boxed = Box::new(0u64);
    for layout in layouts() {
        let mut case = Case { heap, layout, kept: Vec::new() };
        let mut freed: Vec<_> = [Place::Pool, Place::OtherPool, Place::Slab].map(|place| case.put(place)).concat();
        // What was freed first may have been lent since.
        freed.retain(|object| !case.kept.contains(object));
        let lent = case.kept[0];
        for object in case.kept.iter().chain(&freed).copied().collect::<Vec<_>>() {
            let is_freed = freed.contains(&object);
            interior(&case, object, is_freed);
            other_layouts(&case, object, is_freed);
        }
        if let Some(class) = class_of::<C>(layout) {
            never_lent(&case, class);
        }
        let foreign = [
            (&raw const local).addr(),
            (&raw const *boxed).addr(),
            0x10,
            usize::MAX - 7,
            usize::MAX / 2,
            lent.addr().get() ^ 1 << 40,
            lent.addr().get().wrapping_sub(1 << 30),
            lent.addr().get().wrapping_add(1 << 30),
        ];
        for address in foreign {
            case.refuse(at(address), layout, &[BadFreeKind::Foreign], "foreign");
            case.refuse_unsized(at(address), "foreign, without a layout");
        }
        case.finish();
    }
}

/// Addresses inside an object and around its start.
fn interior<C: Config>(case: &Case<C>, object: NonNull<u8>, freed: bool) {
    let (start, size) = (object.addr().get(), case.layout.size());
    // Where the slab is gone nobody knows any more what was there.
    let kinds = [BadFreeKind::Interior, BadFreeKind::Foreign, BadFreeKind::NotLent];
    let inside = [1, 2, 3, 4, 7, 8, 15, 16, 24, 32, 48, 64, 100, size / 2, size / 2 + 1, 4096, 8192, size - 1];
    for offset in inside.into_iter().filter(|&offset| 0 < offset && offset < size) {
        let kinds = if freed { &kinds[..] } else { &kinds[..1] };
        case.refuse(at(start + offset), case.layout, kinds, "inside an object");
        case.refuse_unsized(at(start + offset), "inside an object, without a layout");
    }
    if start % 4096 != 0 && !start.is_multiple_of(size.next_power_of_two()) {
        let kinds = if freed { &kinds[..] } else { &kinds[..2] };
        case.refuse(at(start - 1), case.layout, kinds, "before an object");
    }
}

/// An object as one of every other class and size.
fn other_layouts<C: Config>(case: &Case<C>, object: NonNull<u8>, freed: bool) {
    let own = class_of::<C>(case.layout);
    for other in layouts() {
        let same = match own {
            _ if C::HARDENED => other == case.layout,
            Some(class) => SizeClass::of(other) == Some(class),
            None => SizeClass::of(other).is_none() && other.size().div_ceil(4096) == case.layout.size().div_ceil(4096),
        };
        if same {
            continue;
        }
        let kinds: &[BadFreeKind] = match (own, freed) {
            (_, true) => &[BadFreeKind::NotLent, BadFreeKind::Foreign],
            (Some(_), false) => &[BadFreeKind::WrongClass],
            (None, false) => &[BadFreeKind::WrongSize],
        };
        let error = free(case.heap, object, other).expect_err("another layout");
        assert!(kinds.contains(&error.kind), "{:?} as {other:?}: {error}", case.layout);
    }
}

/// Slots of the slab of a lent object that were never lent.
fn never_lent<C: Config>(case: &Case<C>, class: SizeClass) {
    let known: Vec<_> = case.kept.iter().map(|object| object.addr().get()).collect();
    let first = known[0];
    let slab = free(case.heap, at(first + class.bytes() / 2 + 1), case.layout).unwrap_err();
    let start = if slab.block == 0 { first } else { slab.block };
    for slot in 0..32 {
        let address = start + slot * class.bytes();
        if known.contains(&address) {
            continue;
        }
        let kinds = [BadFreeKind::NotLent, BadFreeKind::Foreign, BadFreeKind::Interior, BadFreeKind::WrongClass];
        case.refuse(at(address), case.layout, &kinds, "never lent");
    }
}

macro_rules! at_every_config {
    ($($name:ident: $test:ident<$config:ty>,)*) => {$(
        #[test]
        fn $name() {
            $test::<$config>();
        }
    )*};
}

at_every_config! {
    what_is_freed_twice_is_refused: twice<Checked>,
    what_is_freed_twice_is_refused_on_one_node: twice<OneNode>,
    what_is_freed_twice_is_refused_by_linear_marks: twice<Linear>,
    what_is_freed_twice_is_refused_hardened: twice<Hard>,
    what_is_not_lent_is_refused: never<Checked>,
    what_is_not_lent_is_refused_on_one_node: never<OneNode>,
    what_is_not_lent_is_refused_by_linear_marks: never<Linear>,
    what_is_not_lent_is_refused_hardened: never<Hard>,
}

/// Objects of every class and large, of every length of slack, on whichever CPU: what is written beyond the end is seen
/// at the free, another size of the same class too; what is not written is freed.
fn beyond<C: Config>() {
    let heap = heap::<C>(16384, CPUS);
    for layout in layouts().flat_map(|full| [0, 1, 3, 7, 9].map(|less| layout(full.size().saturating_sub(less)))) {
        let case = Case { heap, layout, kept: vec![alloc(heap, layout)] };
        let object = alloc(heap, layout);
        for beyond in [0, 1, 7] {
            // SAFETY: behind the object's end there is more of its slot, or a guard.
            let place = unsafe { object.add(layout.size() + beyond) };
            // SAFETY: as above: nobody else's, and written by the heap.
            let before = unsafe { place.read() };
            for value in [0, !before, before ^ 1] {
                // SAFETY: as above; it is the mistake that is to be found.
                unsafe { place.write(value) };
                case.refuse(object, layout, &[BadFreeKind::Overrun], "written beyond its end");
                case.refuse_unsized(object, "written beyond its end, without a layout");
            }
            // SAFETY: as above.
            unsafe { place.write(before) };
        }
        let other = self::layout(layout.size() + 1);
        let same = class_of::<C>(other) == class_of::<C>(layout);
        let kind = if same { BadFreeKind::WrongSize } else { BadFreeKind::WrongClass };
        case.refuse(object, other, &[kind, BadFreeKind::WrongClass], "another size");
        on_cpu(1, || free(heap, object, layout)).expect("a right free was refused");
        case.finish();
    }
}

#[test]
fn what_is_written_beyond_its_end_is_seen() {
    beyond::<Hard>();
    beyond::<Hardened>();
}

/// Keeps its slabs, so that what was written there is found.
struct Keeps;
impl Config for Keeps {
    const HARDENED: bool = true;
    const KEEP_EMPTY_SLABS: usize = 1 << 20;
}

thread_local! {
    static WRITTEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A byte that is written to a freed object, wherever that is, is found before the object is lent again, and it is not.
#[test]
fn what_is_written_after_its_free_is_found_before_it_is_lent() {
    static HOOK: fn(BadFree) = |fault| {
        if fault.kind == BadFreeKind::WrittenAfterFree {
            WRITTEN.set(WRITTEN.get() + 1);
        }
    };
    let heap = heap::<Keeps>(32768, CPUS);
    heap.set_fault_hook(&HOOK);
    let mut found = 0;
    for layout in layouts().filter(|&layout| class_of::<Keeps>(layout).is_some()) {
        for place in [Place::JustFreed, Place::Pool, Place::Depot, Place::Slab, Place::OtherPool, Place::FreedElsewhere]
        {
            let mut case = Case { heap, layout, kept: Vec::new() };
            let freed = case.put(place);
            // One whose slab was not released on the way: what lies in free frames is nobody's any more.
            let in_slab = |object: &NonNull<u8>| free(heap, *object, layout).unwrap_err().block != 0;
            let Some(victim) = freed.into_iter().find(in_slab) else {
                case.finish();
                continue;
            };
            // SAFETY: the first byte of a slot; it is the mistake that is to be found.
            let byte = unsafe { victim.as_ref() };
            // SAFETY: as above.
            unsafe { victim.write(byte ^ 0x10) };
            (0..CPUS as u32).for_each(|cpu| on_cpu(cpu, || heap.drain_cpu()));
            heap.validate().unwrap();
            WRITTEN.set(0);
            while WRITTEN.get() == 0 {
                assert!(case.kept.len() < 10_000, "{layout:?} {place:?}: never found");
                case.kept.push(alloc(heap, layout));
            }
            found += 1;
            assert!(!case.kept.contains(&victim));
            let Case { kept, .. } = case;
            kept.into_iter().for_each(|object| free(heap, object, layout).unwrap());
            heap.validate().unwrap();
        }
    }
    let census = heap.validate().unwrap();
    let condemned: usize = SizeClass::all().map(|class| census.class(class).condemned).sum();
    assert_eq!(condemned, found);
    assert!(found > 4 * SizeClass::all().count(), "{found}");
}

/// Freed again while the quarantine has it.
#[test]
fn what_is_held_back_is_not_lent() {
    let heap = heap::<Hardened>(16384, CPUS);
    for layout in layouts() {
        let mut case = Case { heap, layout, kept: Vec::new() };
        let freed = case.put(Place::Pool);
        if let Some(class) = class_of::<Hardened>(layout) {
            assert!(heap.census().class(class).quarantined > 0);
        }
        for &object in &freed {
            case.refuse(object, layout, &[BadFreeKind::NotLent], "freed twice, held back");
            case.refuse_unsized(object, "freed twice, held back, without a layout");
        }
        case.finish();
    }
}

/// A limit: once an address is lent again, a stale free of it is somebody else's right free. His own is then refused.
fn lent_again<C: Config>() {
    let heap = heap::<C>(4096, CPUS);
    for class in SizeClass::all() {
        let layout = layout(class.bytes());
        let stale = alloc(heap, layout);
        free(heap, stale, layout).unwrap();
        let other = alloc(heap, layout);
        assert_eq!(stale, other, "the last that was freed is lent first");
        assert_eq!(free(heap, stale, layout), Ok(()), "not seen");
        let error = free(heap, other, layout).unwrap_err();
        assert_eq!(error.kind, BadFreeKind::NotLent, "seen by the owner's own free");
    }
    heap.validate().unwrap();
}

/// A limit: a wrong size of the same class is the right class.
fn same_class<C: Config>() {
    let heap = heap::<C>(4096, CPUS);
    for class in SizeClass::all() {
        let object = alloc(heap, layout(class.bytes()));
        assert_eq!(free(heap, object, layout(class.bytes() - 1)), Ok(()), "not seen");
    }
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

/// A limit: of two frees of one object at the same moment most are seen at the call, and hardly any of the rest is not
/// seen at the slab.
fn simultaneous<C: Config>() {
    const ROUNDS: usize = 20_000;
    let heap = heap::<C>(16384, CPUS);
    static LATE: AtomicU64 = AtomicU64::new(0);
    let size = layout(64);
    let objects: Vec<usize> = (0..ROUNDS).map(|_| alloc(heap, size).addr().get()).collect();
    let (objects, barrier) = (Arc::new(objects), Arc::new(Barrier::new(2)));
    let freers: Vec<_> = (1..=2)
        .map(|cpu| {
            let (objects, barrier) = (objects.clone(), barrier.clone());
            std::thread::spawn(move || {
                machine::become_cpu(cpu);
                barrier.wait();
                let refused = objects.iter().filter(|&&object| free(heap, at(object), size).is_err()).count();
                heap.drain_cpu();
                refused
            })
        })
        .collect();
    let refused: usize = freers.into_iter().map(|freer| freer.join().unwrap()).sum();
    assert!(refused <= ROUNDS, "a right free was refused");
    assert!(!C::HARDENED || refused == ROUNDS, "here marks are taken by an exchange");
    assert!(refused * 100 >= ROUNDS * 99, "only {refused} of {ROUNDS} were refused at the call");
    heap.trim();
    match heap.validate() {
        Ok(census) => assert_eq!((refused, census.lent()), (ROUNDS, 0)),
        Err(pagemill::HeapInvalid::LateFaults(late)) => {
            LATE.fetch_add(late, Ordering::Relaxed);
            assert_eq!(late as usize, ROUNDS - refused, "the rest is seen at the slab");
        }
        Err(other) => panic!("{other}"),
    }
}

at_every_config! {
    limit_a_stale_free_after_the_address_was_lent_again: lent_again<Checked>,
    limit_a_stale_free_after_the_address_was_lent_again_linear: lent_again<Linear>,
    limit_a_wrong_size_of_the_same_class: same_class<Checked>,
    limit_a_wrong_size_of_the_same_class_linear: same_class<Linear>,
    limit_two_frees_at_the_same_moment: simultaneous<Checked>,
    limit_two_frees_at_the_same_moment_linear: simultaneous<Linear>,
    no_limit_two_frees_at_the_same_moment_hardened: simultaneous<Hardened>,
}

/// At `Fast` a free of what is outside the span is refused at the call; what is no slot's start, or is in its slab
/// already, is found when it gets to the slab; the hook hears of it, with nothing held.
#[test]
fn fast_finds_wrong_frees_at_the_slab() {
    static HEARD: AtomicU64 = AtomicU64::new(0);
    static HOOK: fn(BadFree) = |_| {
        // A hook may use the heap: nothing is held here.
        let other = SHARED.get().unwrap().try_alloc(layout(100)).unwrap();
        free(SHARED.get().unwrap(), other, layout(100)).unwrap();
        HEARD.fetch_add(1, Ordering::Relaxed);
    };
    static SHARED: std::sync::OnceLock<&'static Instance<Fast>> = std::sync::OnceLock::new();
    let heap = SHARED.get_or_init(|| heap::<Fast>(4096, CPUS));
    heap.set_fault_hook(&HOOK);
    let small = layout(100);
    assert_eq!(free(heap, at(0x10), small).unwrap_err().kind, BadFreeKind::Foreign);
    assert_eq!(HEARD.load(Ordering::Relaxed), 1);
    let objects: Vec<_> = (0..8).map(|_| alloc(heap, small)).collect();
    for &object in &objects {
        free(heap, object, small).unwrap();
    }
    free(heap, objects[3], small).unwrap();
    free(heap, at(objects[4].addr().get() + 16), small).unwrap();
    heap.drain_cpu();
    heap.trim();
    assert!(HEARD.load(Ordering::Relaxed) >= 2, "the hook was told");
    assert_eq!(heap.validate(), Err(pagemill::HeapInvalid::LateFaults(2)));
}
