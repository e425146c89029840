//! What objects hold, and what Rust's traits promise.

use core::alloc::GlobalAlloc;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::config::Hardened;
use crate::error::BadFreeKind;
use crate::testing::{Checked, Fast, SLAB_BYTES, Sim, heap, is_all};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// As [`Checked`], on memory that starts as zeros.
struct Zeros;
impl Config for Zeros {
    const SLAB_BYTES: usize = SLAB_BYTES;
    const FRESH_FRAMES_ARE_ZERO: bool = true;
    const LARGE_CACHE_BYTES: usize = 256 << 10;
}

/// As [`Zeros`], without checks.
struct FastZeros;
impl Config for FastZeros {
    const SLAB_BYTES: usize = SLAB_BYTES;
    const CHECKED: bool = false;
    const FRESH_FRAMES_ARE_ZERO: bool = true;
}

/// An object as its user sees it.
struct Held {
    object: NonNull<u8>,
    layout: Layout,
    /// What each of its bytes is.
    fill: u8,
    /// How many bytes are: all, but for those of a user who does not know his layout.
    filled: usize,
    /// Its user has forgotten its layout.
    forgotten: bool,
}

impl Held {
    fn bytes(&self) -> &[u8] {
        // SAFETY: lent, and written since.
        unsafe { core::slice::from_raw_parts(self.object.as_ptr(), self.filled) }
    }

    fn fill(&mut self, fill: u8) {
        (self.fill, self.filled) = (fill, self.layout.size());
        // SAFETY: lent.
        unsafe { self.object.write_bytes(fill, self.layout.size()) };
    }

    fn check(&self) {
        assert!(is_aligned(self.object, self.layout), "{:?} at {:?}", self.layout, self.object);
        assert!(is_all(self.bytes(), self.fill), "{:?} at {:?}", self.layout, self.object);
    }
}

fn is_aligned(object: NonNull<u8>, layout: Layout) -> bool {
    object.addr().get().is_multiple_of(layout.align())
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Alloc(usize, usize),
    Zeroed(usize, usize),
    Realloc(usize, usize),
    ReallocUnsized(usize, usize, usize),
    Free(usize),
    FreeUnsized(usize),
    Trim,
}

/// Sizes of every kind: of no bytes, of each class, of a frame and some, of many.
fn sizes() -> impl Strategy<Value = usize> {
    let most = if cfg!(miri) { 60_000 } else { 700_000 };
    prop_oneof![
        4 => 0usize..300,
        3 => 300usize..9000,
        3 => 20_000usize..60_000,
        3 => (8usize..40, -2isize..3).prop_map(|(frames, more)| (frames * 4096).saturating_add_signed(more)),
        1 => 60_000usize..=most,
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let align = || prop_oneof![8 => 0u32..5, 1 => 5u32..17].prop_map(|log2| 1usize << log2);
    let place = 0usize..1000;
    prop_oneof![
        4 => (sizes(), align()).prop_map(|(size, align)| Op::Alloc(size, align)),
        3 => (sizes(), align()).prop_map(|(size, align)| Op::Zeroed(size, align)),
        5 => (place.clone(), sizes()).prop_map(|(place, size)| Op::Realloc(place, size)),
        2 => (place.clone(), sizes(), align()).prop_map(|(place, size, align)| Op::ReallocUnsized(place, size, align)),
        4 => place.clone().prop_map(Op::Free),
        2 => place.prop_map(Op::FreeUnsized),
        1 => Just(Op::Trim),
    ]
}

fn new_object<C: Config>(heap: &Heap<'static, Sim, C>, layout: Layout, zeroed: bool) -> Option<Held> {
    let object = if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) }.ok()?;
    let filled = if zeroed { layout.size() } else { 0 };
    let held = Held { object, layout, fill: 0, filled, forgotten: false };
    held.check();
    assert!(heap.usable_size(object).unwrap() >= layout.size());
    Some(held)
}

fn realloc<C: Config>(heap: &Heap<'static, Sim, C>, held: &mut Held, new_size: usize) {
    // SAFETY: lent with that layout.
    let Ok(moved) = (unsafe { heap.realloc(held.object, held.layout, new_size) }) else { return held.check() };
    held.object = moved;
    held.layout = layout(new_size, held.layout.align());
    held.filled = held.filled.min(new_size);
    held.check();
}

fn realloc_unsized<C: Config>(heap: &Heap<'static, Sim, C>, held: &mut Held, new: Layout) {
    // SAFETY: lent.
    let Ok(moved) = (unsafe { heap.realloc_unsized(held.object, new) }) else { return held.check() };
    *held = Held { object: moved, layout: new, filled: held.filled.min(new.size()), forgotten: true, ..*held };
    held.check();
}

fn free<C: Config>(heap: &Heap<'static, Sim, C>, held: &Held, by_address: bool) {
    held.check();
    let freed = if by_address || held.forgotten {
        // SAFETY: lent, and not used any more.
        unsafe { heap.free_unsized(held.object) }
    } else {
        // SAFETY: as above.
        unsafe { heap.free(held.object, held.layout) }
    };
    assert_eq!(freed, Ok(()));
}

/// Every object keeps what was written into it, whatever happens around it.
fn contents_are_kept<C: Config>(ops: &[Op]) {
    let heap = heap::<C>(if cfg!(miri) { 128 } else { 1500 }, 1);
    let mut objects: Vec<Held> = Vec::new();
    for (step, &op) in (1u8..=255).cycle().zip(ops) {
        let count = objects.len();
        let pick = |place: usize| (count > 0).then(|| place % count);
        match op {
            Op::Alloc(size, align) => objects.extend(new_object(heap, layout(size, align), false)),
            Op::Zeroed(size, align) => objects.extend(new_object(heap, layout(size, align), true)),
            Op::Realloc(place, size) => {
                let Some(place) = pick(place).filter(|&place| !objects[place].forgotten) else { continue };
                realloc(heap, &mut objects[place], size);
                objects[place].fill(step);
                continue;
            }
            Op::ReallocUnsized(place, size, align) => {
                let Some(place) = pick(place) else { continue };
                realloc_unsized(heap, &mut objects[place], layout(size, align));
                objects[place].fill(step);
                continue;
            }
            Op::Free(place) | Op::FreeUnsized(place) => {
                let Some(place) = pick(place) else { continue };
                free(heap, &objects.swap_remove(place), matches!(op, Op::FreeUnsized(_)));
                continue;
            }
            Op::Trim => heap.trim(),
        }
        if objects.len() > count {
            objects[count].fill(step);
        }
    }
    objects.iter().for_each(Held::check);
    heap.validate().unwrap();
    objects.iter().for_each(|held| free(heap, held, false));
    heap.drain();
    let census = heap.validate().unwrap();
    assert_eq!(census.lent(), 0);
    heap.frames().validate().unwrap();
    assert_eq!(heap.frames().census().lent() * 4096, census.descriptor_bytes);
}

/// `cases`, unless the environment says how many.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(if cfg!(miri) { cases.min(4) } else { cases })
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn contents_are_kept_with_checks(ops in proptest::collection::vec(ops(), 1..if cfg!(miri) { 20 } else { 300 })) {
        contents_are_kept::<Checked>(&ops);
    }

    #[test]
    fn contents_are_kept_on_zeros(ops in proptest::collection::vec(ops(), 1..if cfg!(miri) { 20 } else { 300 })) {
        contents_are_kept::<Zeros>(&ops);
    }

    #[test]
    fn contents_are_kept_hardened(ops in proptest::collection::vec(ops(), 1..if cfg!(miri) { 20 } else { 300 })) {
        contents_are_kept::<Hardened>(&ops);
    }

    #[test]
    fn contents_are_kept_without_checks(ops in proptest::collection::vec(ops(), 1..if cfg!(miri) { 2 } else { 300 })) {
        contents_are_kept::<Fast>(&ops);
    }

    #[test]
    fn contents_are_kept_on_zeros_without_checks(
        ops in proptest::collection::vec(ops(), 1..if cfg!(miri) { 2 } else { 300 }),
    ) {
        contents_are_kept::<FastZeros>(&ops);
    }
}

#[test]
fn fresh_zeros_are_left_alone() {
    let heap = heap::<Zeros>(256, 1);
    let object = heap.alloc_zeroed(layout(200_000, 1)).unwrap();
    let (fresh, zero) = heap.alloc_large_zeroed(layout(200_000, 1)).unwrap();
    assert!(zero);
    for place in [object, heap.lend(fresh)] {
        // SAFETY: lent, and zero by the promise.
        let bytes = unsafe { core::slice::from_raw_parts(place.as_ptr(), 200_000) };
        assert!(is_all(bytes, 0));
    }
    // SAFETY: lent.
    unsafe { object.write_bytes(7, 200_000) };
    // SAFETY: lent, and not used any more.
    unsafe { heap.free(object, layout(200_000, 1)) }.unwrap();
    let again = heap.alloc_zeroed(layout(200_000, 1)).unwrap();
    assert_eq!(again, object, "it was kept");
    // SAFETY: lent, and zero by the promise.
    assert!(is_all(unsafe { core::slice::from_raw_parts(again.as_ptr(), 200_000) }, 0));
}

#[test]
fn a_wrong_realloc_is_refused_and_changes_nothing() {
    let heap = heap::<Checked>(1024, 1);
    for size in [100, 100_000] {
        let object = heap.alloc(layout(size, 1)).unwrap();
        // SAFETY: refused.
        let wrong = |object, size| unsafe { heap.realloc(object, layout(size, 1), 3 * size) };
        assert_eq!(wrong(object, size + 5000), Err(AllocError::Impossible));
        assert_eq!(wrong(object.map_addr(|address| address.saturating_add(8)), size), Err(AllocError::Impossible));
        // SAFETY: lent.
        unsafe { heap.free(object, layout(size, 1)) }.unwrap();
        assert_eq!(wrong(object, size), Err(AllocError::Impossible));
        // SAFETY: refused.
        assert_eq!(unsafe { heap.realloc_unsized(object, layout(size, 1)) }, Err(AllocError::Impossible));
        assert_eq!(heap.usable_size(object), None);
    }
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

#[test]
fn global_alloc_answers_null_and_never_unwinds() {
    let heap = heap::<Checked>(256, 1);
    let huge = layout(isize::MAX as usize, 1);
    // SAFETY: the layout has a size.
    assert!(unsafe { GlobalAlloc::alloc(heap, huge) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { GlobalAlloc::alloc_zeroed(heap, huge) }.is_null());
    // SAFETY: as above.
    let object = unsafe { GlobalAlloc::alloc_zeroed(heap, layout(50, 2)) };
    // SAFETY: lent with that layout.
    assert!(unsafe { GlobalAlloc::realloc(heap, object, layout(50, 2), isize::MAX as usize - 1) }.is_null());
    // SAFETY: as above.
    assert!(unsafe { GlobalAlloc::realloc(heap, object, layout(50, 2), usize::MAX) }.is_null());
    // SAFETY: as above.
    let object = unsafe { GlobalAlloc::realloc(heap, object, layout(50, 2), 50_000) };
    // SAFETY: lent, and zero as far as it was.
    assert_eq!(unsafe { core::slice::from_raw_parts(object, 50) }, [0; 50]);
    // SAFETY: lent with that layout, and not used any more.
    unsafe { GlobalAlloc::dealloc(heap, object, layout(50_000, 2)) };
    heap.drain();
    assert_eq!(heap.frames().census().lent() * 4096, heap.validate().unwrap().descriptor_bytes);
}

#[test]
fn small_objects_are_never_moved_by_their_pages() {
    use crate::backing::{Backing, Moves};
    use crate::testing::{heap_over, keep, machine, span};
    Sim::become_cpu(0);
    let moves = Moves {
        least_bytes: 0,
        relocate: |from, to, bytes| {
            assert!(bytes > SizeClass::MAX_BYTES && [from.addr(), to.addr(), bytes].map(|n| n % 4096) == [0; 3]);
            Relocation::Refused
        },
        settle: |_, _| true,
    };
    let backing = Backing { supply: |_, _| false, taken: None, released: || (), describe: None, moves: Some(moves) };
    let memory = span(0, 1024);
    let heap = heap_over(keep(machine::<Checked>(memory, 1)), memory, 1, 1, 0, Some(backing));
    for (from, to) in [(100, 1000), (1000, 100_000), (100_000, 1000), (40_000, 1_000_000)] {
        let object = heap.alloc(layout(from, 8)).unwrap();
        // SAFETY: lent with that layout.
        let moved = unsafe { heap.realloc(object, layout(from, 8), to) }.unwrap();
        // SAFETY: lent with that layout, and not used any more.
        unsafe { heap.free(moved, layout(to, 8)) }.unwrap();
    }
}

static FAULTS: std::sync::Mutex<Vec<BadFreeKind>> = std::sync::Mutex::new(Vec::new());

#[test]
fn a_hook_that_returns_makes_wrong_frees_harmless() {
    let heap = heap::<Checked>(256, 1);
    static HOOK: fn(BadFree) = |fault| FAULTS.lock().unwrap().push(fault.kind);
    heap.set_fault_hook(&HOOK);
    for size in [50, 50_000] {
        // SAFETY: the layout has a size.
        let object = unsafe { GlobalAlloc::alloc(heap, layout(size, 1)) };
        // SAFETY: refused.
        unsafe { GlobalAlloc::dealloc(heap, object.wrapping_add(8), layout(size, 1)) };
        // SAFETY: lent with that layout, and not used any more.
        unsafe { GlobalAlloc::dealloc(heap, object, layout(size, 1)) };
        // SAFETY: refused.
        unsafe { GlobalAlloc::dealloc(heap, object, layout(size, 1)) };
        // SAFETY: refused.
        assert!(unsafe { GlobalAlloc::realloc(heap, object, layout(size, 1), 9) }.is_null());
    }
    let expected = [BadFreeKind::Interior, BadFreeKind::NotLent, BadFreeKind::NotLent].repeat(2);
    assert_eq!(*FAULTS.lock().unwrap(), expected);
    heap.validate().unwrap();
}

/// What ends the program is tried in a program of its own.
#[cfg(not(miri))]
mod deadly {
    use super::*;

    fn twice(heap: &'static Heap<'static, Sim, Checked>, size: usize) {
        // SAFETY: the layout has a size.
        let object = unsafe { GlobalAlloc::alloc(heap, layout(size, 1)) };
        for _ in 0..2 {
            // SAFETY: lent the first time; this heap checks every free.
            unsafe { GlobalAlloc::dealloc(heap, object, layout(size, 1)) };
        }
    }

    #[test]
    #[ignore = "ends the program: run by the test below"]
    fn no_hook() {
        twice(heap::<Checked>(256, 1), 50);
    }

    #[test]
    #[ignore = "as above"]
    fn no_hook_large() {
        twice(heap::<Checked>(256, 1), 50_000);
    }

    #[test]
    #[ignore = "as above"]
    fn hook_unwinds() {
        let heap = heap::<Checked>(256, 1);
        static HOOK: fn(BadFree) = |fault| panic!("hook: {fault}");
        heap.set_fault_hook(&HOOK);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| twice(heap, 50)));
        println!("it got out: {caught:?}");
    }

    #[test]
    fn a_wrong_free_ends_the_program_unless_a_hook_returns() {
        for (name, message) in
            [("no_hook", "freed twice"), ("no_hook_large", "freed twice"), ("hook_unwinds", "hook: ")]
        {
            let program = std::env::current_exe().unwrap();
            let test = std::format!("global::tests::deadly::{name}");
            let output = std::process::Command::new(program)
                .args(["--ignored", "--exact", &test, "--nocapture"])
                .env("RUST_BACKTRACE", "0")
                .output()
                .unwrap();
            let said = std::string::String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && output.status.code().is_none(), "{name}: {:?}", output.status);
            assert!(said.contains(message) && said.contains("bad free: 0x"), "{name}: {said}");
            assert!(!std::string::String::from_utf8_lossy(&output.stdout).contains("it got out"));
        }
    }
}

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
mod allocator;
