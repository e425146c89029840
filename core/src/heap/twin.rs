//! The heap beside a naive twin: a map of what is lent, with what stands in it.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::vec::Vec;

use proptest::prelude::*;

use super::sample::tests as samples;
use super::*;
use crate::config::Hardened;
use crate::harden::slot_class;
use crate::testing::{Checked, Fast, Sim, heap, is_all};

const CPUS: u32 = 3;
/// Little enough that requests fail now and then.
const FRAMES: usize = if cfg!(miri) { 192 } else { 1024 };

/// The most steps of a case, and the most bytes of an object: little under Miri, which fills them a hundred times
/// slower.
const STEPS: usize = if cfg!(miri) { 40 } else { 200 };
const MOST_BYTES: usize = if cfg!(miri) { 40_000 } else { 300_000 };

/// As processes have it, but poisoned with something that is not zero, and with little held back.
struct HardLinear;
impl Config for HardLinear {
    const HARDENED: bool = true;
    const LINEAR_SHADOW: bool = true;
    const NUMA: bool = false;
    const POISON: u8 = 0xa5;
    const QUARANTINE_OBJECTS: usize = 7;
    const QUARANTINE_BYTES: usize = 4096;
    const SAMPLED: bool = true;
}

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        layout: Layout,
        zeroed: bool,
        interrupting: bool,
    },
    Free {
        pick: usize,
        interrupting: bool,
    },
    Realloc {
        pick: usize,
        size: usize,
    },
    /// A free of something beside the `pick`th object, or with another layout.
    Wrong {
        pick: usize,
        offset: usize,
        layout: Layout,
    },
    Again {
        interrupting: bool,
    },
    Cpu(u32),
    Drain,
    DrainCpu,
    Poll,
    Trim,
}

fn layouts() -> impl Strategy<Value = Layout> {
    let size = prop_oneof![6 => 0..200usize, 4 => 0..5000usize, 2 => 0..40_000usize, 1 => 0..MOST_BYTES];
    let align = prop_oneof![6 => 0..5u32, 1 => 0..17u32];
    (size, align).prop_map(|(size, align)| Layout::from_size_align(size, 1 << align).unwrap())
}

fn ops() -> impl Strategy<Value = Op> {
    let pick = || any::<usize>();
    let seldom = || prop::bool::weighted(0.1);
    prop_oneof![
        12 => (layouts(), seldom(), seldom())
            .prop_map(|(layout, zeroed, interrupting)| Op::Alloc { layout, zeroed, interrupting }),
        9 => (pick(), seldom()).prop_map(|(pick, interrupting)| Op::Free { pick, interrupting }),
        3 => (pick(), 1..60_000usize).prop_map(|(pick, size)| Op::Realloc { pick, size }),
        2 => (pick(), 0..9000usize, layouts()).prop_map(|(pick, offset, layout)| Op::Wrong { pick, offset, layout }),
        1 => seldom().prop_map(|interrupting| Op::Again { interrupting }),
        3 => (0..CPUS).prop_map(Op::Cpu),
        1 => prop_oneof![Just(Op::Drain), Just(Op::DrainCpu), Just(Op::Poll), Just(Op::Trim)],
    ]
}

/// Whether two layouts are the same to a free.
fn alike<C: Config>(one: Layout, other: Layout) -> bool {
    if C::HARDENED {
        return one.size() == other.size() && slot_class(one) == slot_class(other);
    }
    let least = |layout: Layout| Layout::from_size_align(layout.size().max(1), layout.align()).unwrap();
    match (SizeClass::of(least(one)), SizeClass::of(least(other))) {
        (Some(one), Some(other)) => one == other,
        (None, None) => least(one).size().div_ceil(4096) == least(other).size().div_ceil(4096),
        _ => false,
    }
}

/// A heap and its twin.
struct Pair<C: Config> {
    heap: &'static Heap<'static, Sim, C>,
    /// What is lent: its layout and the byte that all of it holds.
    lent: BTreeMap<usize, (Layout, u8)>,
    /// What was freed last, if it was not lent again.
    freed: Option<(usize, Layout)>,
    next: u8,
}

fn by<R>(interrupting: bool, work: impl FnOnce() -> R) -> R {
    if interrupting { Sim::interrupting(work) } else { work() }
}

impl<C: Config> Pair<C> {
    fn new() -> Self {
        Sim::become_cpu(0);
        let heap = heap::<C>(FRAMES, CPUS as usize);
        samples::watch(heap, 2000);
        Self { heap, lent: BTreeMap::new(), freed: None, next: 1 }
    }

    fn pick(&self, pick: usize) -> Option<(usize, Layout)> {
        let place = pick.checked_rem(self.lent.len())?;
        self.lent.iter().nth(place).map(|(&address, &(layout, _))| (address, layout))
    }

    /// An object has just been lent: it is aligned and overlaps nothing, and is filled.
    fn lend(&mut self, object: NonNull<u8>, layout: Layout) {
        let address = object.addr().get();
        assert!(address.is_multiple_of(layout.align()), "{address:#x} for {layout:?}");
        let end = address + layout.size().max(1);
        let below = self.lent.range(..end).next_back();
        assert!(below.is_none_or(|(&at, (layout, _))| at + layout.size().max(1) <= address), "overlap");
        self.next = self.next.wrapping_add(1).max(1);
        // SAFETY: it has so many bytes, and is the twin's.
        unsafe { object.write_bytes(self.next, layout.size()) };
        self.lent.insert(address, (layout, self.next));
        self.freed = self.freed.filter(|&(freed, _)| freed != address);
    }

    /// Checks that the first `size` bytes are as the twin left them.
    fn is_untouched(&self, object: NonNull<u8>, size: usize, byte: u8) {
        // SAFETY: an object of the twin's, of at least so many bytes, all of them written.
        let bytes = unsafe { NonNull::slice_from_raw_parts(object, size).as_ref() };
        assert!(is_all(bytes, byte), "{object:?} was written by another");
    }

    fn pointer(&self, address: usize) -> NonNull<u8> {
        NonNull::new(self.heap.window.pointer(address)).unwrap()
    }

    fn free(&mut self, address: usize, interrupting: bool) {
        let (layout, byte) = self.lent.remove(&address).unwrap();
        let object = self.pointer(address);
        self.is_untouched(object, layout.size(), byte);
        // SAFETY: it is the twin's, who forgets it.
        let freed = by(interrupting, || unsafe { self.heap.free(object, layout) });
        assert_eq!(freed, Ok(()), "a right free was refused");
        self.freed = Some((address, layout));
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Alloc { layout, zeroed: false, interrupting } => {
                if let Ok(object) = by(interrupting, || self.heap.alloc(layout)) {
                    self.lend(object, layout);
                }
            }
            Op::Alloc { layout, zeroed: true, interrupting } => {
                if let Ok(object) = by(interrupting, || self.heap.alloc_zeroed(layout)) {
                    self.is_untouched(object, layout.size(), 0);
                    self.lend(object, layout);
                }
            }
            Op::Free { pick, interrupting } => {
                if let Some((address, _)) = self.pick(pick) {
                    self.free(address, interrupting);
                }
            }
            Op::Realloc { pick, size } => self.realloc(pick, size),
            Op::Wrong { pick, offset, layout } => self.free_wrongly(pick, offset, layout),
            Op::Again { interrupting } => {
                if let Some((address, layout)) = self.freed.filter(|_| C::CHECKED) {
                    // SAFETY: nobody has it; whether the heap knows that is the question.
                    let freed = by(interrupting, || unsafe { self.heap.free(self.pointer(address), layout) });
                    assert!(freed.is_err(), "{address:#x} was freed twice");
                }
            }
            Op::Cpu(cpu) => Sim::become_cpu(cpu),
            Op::Drain => self.heap.drain(),
            Op::DrainCpu => self.heap.drain_cpu(),
            Op::Poll => self.heap.poll(),
            Op::Trim => self.heap.trim(),
        }
    }

    fn realloc(&mut self, pick: usize, size: usize) {
        let Some((address, layout)) = self.pick(pick).filter(|(_, layout)| layout.size() != 0) else { return };
        let byte = self.lent[&address].1;
        let object = self.pointer(address);
        // SAFETY: it is the twin's.
        let Ok(moved) = (unsafe { self.heap.realloc(object, layout, size) }) else { return };
        self.is_untouched(moved, size.min(layout.size()), byte);
        self.lent.remove(&address);
        if moved != object {
            self.freed = Some((address, layout));
        }
        self.lend(moved, Layout::from_size_align(size, layout.align()).unwrap());
    }

    fn free_wrongly(&mut self, pick: usize, offset: usize, layout: Layout) {
        let Some((address, own)) = self.pick(pick).filter(|_| C::CHECKED) else { return };
        let wrong = address + offset;
        let right = self.lent.get(&wrong).is_some_and(|&(own, _)| alike::<C>(own, layout));
        if right {
            return self.free(wrong, false);
        }
        // SAFETY: as above.
        let freed = unsafe { self.heap.free(self.pointer(wrong), layout) };
        assert!(freed.is_err(), "{address:#x} of {own:?}, freed {offset} bytes further as {layout:?}");
    }

    fn validate(&self) {
        let small = |layout: &Layout| match C::HARDENED {
            true => slot_class(*layout).is_some(),
            false => SizeClass::of(crate::large::at_least_a_byte(*layout)).is_some(),
        };
        let lent = self.lent.values().filter(|(layout, _)| small(layout)).count();
        assert_eq!(self.heap.validate().unwrap().lent(), lent);
        self.heap.frames().validate().unwrap();
        samples::live(|live| assert!(live.keys().all(|address| self.lent.contains_key(address)), "{live:x?}"));
    }

    fn finish(mut self) {
        let left: Vec<_> = self.lent.keys().copied().collect();
        left.into_iter().for_each(|address| self.free(address, false));
        for cpu in 0..CPUS {
            Sim::become_cpu(cpu);
            self.heap.drain_cpu();
        }
        self.heap.drain();
        self.validate();
        let slabs: usize = SizeClass::all().map(|class| self.heap.census().class(class).slabs).sum();
        assert_eq!(slabs, 0, "an empty slab was forgotten");
        samples::live(|live| assert!(live.is_empty(), "{live:x?}"));
    }
}

fn run<C: Config>(ops: Vec<Op>) {
    let mut pair = Pair::<C>::new();
    for (step, op) in ops.into_iter().enumerate() {
        pair.step(op);
        if step % 8 == 7 && !(cfg!(miri) && step % 64 != 63) {
            pair.validate();
        }
    }
    pair.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_heap_agrees_with_its_twin(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<Checked>(ops);
    }

    #[test]
    fn the_heap_agrees_with_its_twin_with_linear_marks(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<samples::Linear>(ops);
    }

    #[test]
    #[cfg_attr(miri, ignore = "the other twins have samples too")]
    fn the_heap_agrees_with_its_twin_sampled(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<samples::Slabs>(ops);
    }

    #[test]
    fn the_heap_agrees_with_its_twin_hardened(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<Hardened>(ops);
    }

    #[test]
    fn the_heap_agrees_with_its_twin_hardened_with_linear_marks(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<HardLinear>(ops);
    }

    #[test]
    fn the_heap_agrees_with_its_twin_unchecked(ops in prop::collection::vec(ops(), 1..STEPS)) {
        run::<Fast>(ops);
    }
}

/// Nobody asks CPU 1 again after it has honoured a request: its slabs come home all the same.
#[test]
fn who_honours_a_request_gives_the_slabs_back_too() {
    let heap = heap::<Checked>(FRAMES, 2);
    let layout = Layout::from_size_align(1024, 8).unwrap();
    Sim::become_cpu(1);
    let lent: Vec<_> = (0..100).map(|_| heap.alloc_address(layout).unwrap()).collect();
    lent.into_iter().for_each(|object| heap.free_address(object, layout).unwrap());
    Sim::become_cpu(0);
    heap.drain();
    let slabs = || SizeClass::all().map(|class| heap.census().class(class).slabs).sum::<usize>();
    assert_ne!(slabs(), 0, "CPU 1 holds some");
    Sim::become_cpu(1);
    heap.poll();
    assert_eq!(slabs(), 0);
}

/// A heap for the lower half of what its frames have takes nothing of the other half.
#[test]
fn frames_beyond_the_span_are_not_taken() {
    use crate::testing::{bytes, keep, machine, span};
    Sim::become_cpu(0);
    let frames: &'static Frames<'static, Sim, Checked> = keep(machine(span(0, FRAMES), 1));
    let heap: &'static Heap<'static, Sim, Checked> = keep(Heap::new(frames));
    let half = span(0, FRAMES / 2);
    let base = core::ptr::without_provenance_mut(1 << 30);
    let metadata = bytes(Heap::<Sim, Checked>::metadata_size(half, 1, 1));
    // SAFETY: large objects, which the heap itself does not touch, are all that is requested, and nobody else does.
    unsafe { heap.init(base, half, 1, 1, metadata) }.unwrap();
    let layout = Layout::from_size_align(64 << 10, 8).unwrap();
    let mut lent = Vec::new();
    while let Ok(address) = heap.alloc_address(layout) {
        lent.push(address);
    }
    let end = heap.window.base() + half.end().number() * 4096;
    assert!(!lent.is_empty() && lent.iter().all(|&address| address + layout.size() <= end));
    lent.into_iter().for_each(|address| heap.free_address(address, layout).unwrap());
}
