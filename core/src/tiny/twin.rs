//! The heap against a map of who has which unit, which answers by looking at each.

#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;

use proptest::prelude::*;

use super::tests::{Heap, Ram, add, assert_valid, free, layout};
use super::{AllocError, BadFreeKind, UNIT_BYTES};

/// An allocation, filled with bytes that are its own.
#[derive(Clone, Copy)]
struct Object {
    memory: NonNull<u8>,
    layout: Layout,
    fill: u8,
}

impl Object {
    fn address(&self) -> usize {
        self.memory.addr().get()
    }

    /// The units it has, by number in the address space.
    fn units(&self) -> core::ops::Range<usize> {
        let first = self.address() / UNIT_BYTES;
        first..first + units(self.layout.size())
    }

    fn write(&self) {
        // SAFETY: lent, and as long as the layout says.
        unsafe { self.memory.write_bytes(self.fill, self.layout.size()) };
    }

    fn read(&self, count: usize) {
        // SAFETY: lent, as long as that and written.
        let bytes = unsafe { core::slice::from_raw_parts(self.memory.as_ptr(), count) };
        assert!(crate::testing::is_all(bytes, self.fill), "somebody else's bytes");
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT_BYTES).max(1)
}

struct Twin {
    /// The units of each region that can be lent.
    regions: Vec<core::ops::Range<usize>>,
    objects: Vec<Object>,
}

impl Twin {
    fn is_free(&self, unit: usize) -> bool {
        self.regions.iter().any(|region| region.contains(&unit))
            && !self.objects.iter().any(|object| object.units().contains(&unit))
    }

    /// Whether some region has as many free units in a row, from a multiple of the alignment on.
    fn has_room(&self, layout: Layout) -> bool {
        let align = layout.align().div_ceil(UNIT_BYTES);
        self.regions.iter().any(|region| {
            let mut starts = (region.start.next_multiple_of(align)..region.end).step_by(align);
            starts.any(|start| {
                let end = start + units(layout.size());
                end <= region.end && (start..end).all(|unit| self.is_free(unit))
            })
        })
    }

    fn has_room_behind(&self, object: &Object, to: usize) -> bool {
        let units_now = object.units();
        let region = self.regions.iter().find(|region| region.contains(&units_now.start)).unwrap();
        let end = units_now.start + to;
        end <= region.end && (units_now.end..end).all(|unit| self.is_free(unit))
    }

    fn free_bytes(&self) -> usize {
        let all: usize = self.regions.iter().map(|region| region.len()).sum();
        (all - self.objects.iter().map(|object| object.units().len()).sum::<usize>()) * UNIT_BYTES
    }
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { bytes: usize, log2_align: u32, zeroed: bool },
    Free { which: usize },
    Realloc { which: usize, bytes: usize },
    FreeWrongly { unit: usize, offset: usize, bytes: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || prop_oneof![4 => 0usize..300, 2 => 0usize..4000, 1 => 0usize..60_000];
    let alloc = (bytes(), prop_oneof![4 => 0u32..7, 1 => 0u32..16], any::<bool>());
    let step = prop_oneof![
        6 => alloc.prop_map(|(bytes, log2_align, zeroed)| Step::Alloc { bytes, log2_align, zeroed }),
        4 => any::<usize>().prop_map(|which| Step::Free { which }),
        3 => (any::<usize>(), bytes()).prop_map(|(which, bytes)| Step::Realloc { which, bytes }),
        2 => (any::<usize>(), prop_oneof![Just(0), 0..UNIT_BYTES], 0usize..300)
            .prop_map(|(unit, offset, bytes)| Step::FreeWrongly { unit, offset, bytes }),
    ];
    proptest::collection::vec(step, 1..if cfg!(miri) { 30 } else { 150 })
}

fn run(regions: &[(usize, usize)], steps: Vec<Step>) {
    let ram = Ram::new(1 << 18);
    let heap = Heap::new();
    let mut twin = Twin { regions: Vec::new(), objects: Vec::new() };
    for &(from, bytes) in regions {
        add(&heap, &ram, from, bytes).unwrap();
        let lent = heap.census().unwrap().bytes / UNIT_BYTES - twin.regions.iter().map(|r| r.len()).sum::<usize>();
        // Its state lies at the start.
        let end = (ram.start() + from + bytes) / UNIT_BYTES;
        twin.regions.push(end - lent..end);
    }
    for (number, step) in steps.into_iter().enumerate() {
        let fill = number as u8 | 1;
        match step {
            Step::Alloc { bytes, log2_align, zeroed } => alloc(&heap, &mut twin, bytes, log2_align, zeroed, fill),
            Step::Free { which } if !twin.objects.is_empty() => {
                let which = which % twin.objects.len();
                let object = twin.objects.swap_remove(which);
                object.read(object.layout.size());
                assert_eq!(free(&heap, object.memory, object.layout), Ok(()));
            }
            Step::Realloc { which, bytes } if !twin.objects.is_empty() => {
                let which = which % twin.objects.len();
                realloc(&heap, &mut twin, which, bytes);
            }
            Step::FreeWrongly { unit, offset, bytes } => free_wrongly(&heap, &ram, &mut twin, unit, offset, bytes),
            _ => {}
        }
        assert_valid(&heap);
        let census = heap.census().unwrap();
        assert_eq!((census.free_bytes, census.allocations), (twin.free_bytes(), twin.objects.len()));
    }
    for object in twin.objects {
        object.read(object.layout.size());
        assert_eq!(free(&heap, object.memory, object.layout), Ok(()));
    }
    let census = heap.census().unwrap();
    assert_eq!(census.free_bytes, census.bytes);
    assert_valid(&heap);
}

fn alloc(heap: &Heap, twin: &mut Twin, bytes: usize, log2_align: u32, zeroed: bool, fill: u8) {
    let layout = layout(bytes, 1 << log2_align);
    let memory = if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) };
    assert_eq!(memory.is_ok(), twin.has_room(layout), "{layout:?}");
    let Ok(memory) = memory else { return assert_eq!(memory, Err(AllocError::NoMemory)) };
    let object = Object { memory, layout, fill };
    assert!(object.address().is_multiple_of(layout.align()));
    assert!(object.units().all(|unit| twin.is_free(unit)), "lent twice");
    if zeroed {
        Object { fill: 0, ..object }.read(bytes);
    }
    object.write();
    twin.objects.push(object);
}

fn realloc(heap: &Heap, twin: &mut Twin, which: usize, bytes: usize) {
    let object = twin.objects[which];
    let layout = layout(bytes, object.layout.align());
    // SAFETY: lent with this layout; used at its new place from now on.
    let moved = unsafe { heap.realloc(object.memory, object.layout, bytes) };
    let stays = twin.has_room_behind(&object, units(bytes));
    assert_eq!(moved.is_ok(), stays || twin.has_room(layout), "{layout:?}");
    let Ok(memory) = moved else { return object.read(object.layout.size()) };
    assert_eq!(memory == object.memory, stays);
    let before = twin.objects.swap_remove(which);
    let object = Object { memory, layout, ..before };
    assert!(object.address().is_multiple_of(layout.align()));
    assert!(object.units().all(|unit| twin.is_free(unit)), "lent twice");
    object.read(bytes.min(before.layout.size()));
    object.write();
    twin.objects.push(object);
}

fn free_wrongly(heap: &Heap, ram: &Ram, twin: &mut Twin, unit: usize, offset: usize, bytes: usize) {
    let address = ram.start() + unit % (1 << 12) * UNIT_BYTES + offset;
    let memory = NonNull::new(ram.region(0, 1).cast::<u8>().with_addr(address)).unwrap();
    let unit = address / UNIT_BYTES;
    let holder = twin.objects.iter().position(|object| object.units().contains(&unit));
    let expected = match holder {
        None if twin.regions.iter().any(|region| region.contains(&unit)) => Err(BadFreeKind::NotLent),
        None => Err(BadFreeKind::Foreign),
        Some(holder) if twin.objects[holder].address() != address => Err(BadFreeKind::Interior),
        Some(holder) if twin.objects[holder].units().len() != units(bytes) => Err(BadFreeKind::WrongSize),
        Some(holder) => {
            twin.objects.swap_remove(holder);
            Ok(())
        }
    };
    assert_eq!(free(heap, memory, layout(bytes, 1)), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 200 }, ..ProptestConfig::default() })]

    #[test]
    fn a_small_region_agrees_with_its_twin(from in 0usize..5000, bytes in 600usize..6000, steps in steps()) {
        run(&[(from, bytes)], steps);
    }

    #[test]
    #[cfg_attr(miri, ignore = "takes minutes, and has no pointers that the others do not have")]
    fn several_trees_agree_with_their_twin(from in 0usize..5000, bytes in 33_000usize..110_000, steps in steps()) {
        run(&[(from, bytes)], steps);
    }

    #[test]
    fn several_regions_agree_with_their_twin(sizes in proptest::collection::vec(600usize..20_000, 2..5), steps in steps()) {
        let mut from = 0;
        let regions: Vec<_> = sizes
            .into_iter()
            .map(|bytes| {
                from += bytes + 7;
                (from - bytes, bytes)
            })
            .collect();
        run(&regions, steps);
    }
}
