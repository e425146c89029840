//! Bytes become requests to a small heap, beside a map of what is lent and what stands in it: no object overlaps
//! another or changes under its owner, no right free is refused, no wrong one accepted, every invariant after every few
//! steps, and everything home at the end.
#![no_main]

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use libfuzzer_sys::fuzz_target;
use pagemill::{
    Checked, Config, Context, CpuId, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId, Pfn, Platform, SizeClass,
    ZoneKind,
};

const CPUS: usize = 2;
const FRAMES: usize = 512;
/// What the memory is aligned to: the largest slab.
const ALIGN: usize = 128 << 10;

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::Task) };
}

struct Machine;

// SAFETY: one thread, which is one CPU at a time; `BUSY` says whether it is claimed.
unsafe impl Platform for Machine {
    type Lock = spin::Mutex<()>;

    fn enter() -> Option<CpuId> {
        (!BUSY.replace(true)).then(|| CpuId::new(CPU.get()))
    }

    fn leave(_cpu: CpuId) {
        BUSY.set(false);
    }

    fn context() -> Context {
        CONTEXT.get()
    }
}

/// The marks beside the span, on one node.
struct Linear;
impl Config for Linear {
    const LINEAR_SHADOW: bool = true;
    const NUMA: bool = false;
}

/// Runs `work` as code that interrupted the allocator, or plainly.
fn by<R>(interrupting: bool, work: impl FnOnce() -> R) -> R {
    if !interrupting {
        return work();
    }
    let (busy, context) = (BUSY.replace(true), CONTEXT.replace(Context::Nmi));
    let result = work();
    CONTEXT.set(context);
    BUSY.set(busy);
    result
}

/// The bytes, one number after the other; zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(first)
    }

    fn word(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }

    fn seldom(&mut self) -> bool {
        self.byte() % 8 == 0
    }

    fn layout(&mut self) -> Layout {
        let size = match self.byte() {
            short @ 0..160 => short,
            long @ 160..250 => (long - 159) * 8 + self.word() % 33_000,
            _ => self.word() * 4,
        };
        let align = 1 << (self.byte() % if self.seldom() { 17 } else { 6 });
        Layout::from_size_align(size, align).unwrap()
    }
}

/// Whether two layouts are the same to a free.
fn alike(one: Layout, other: Layout) -> bool {
    let least = |layout: Layout| Layout::from_size_align(layout.size().max(1), layout.align()).unwrap();
    match (SizeClass::of(least(one)), SizeClass::of(least(other))) {
        (Some(one), Some(other)) => one == other,
        (None, None) => least(one).size().div_ceil(4096) == least(other).size().div_ceil(4096),
        _ => false,
    }
}

struct Run<'m, C: Config> {
    heap: &'m Heap<'m, Machine, C>,
    /// What is lent: how to reach it, its layout, and the byte that all of it holds.
    lent: BTreeMap<usize, (NonNull<u8>, Layout, u8)>,
    next: u8,
}

impl<C: Config> Run<'_, C> {
    fn pick(&self, pick: usize) -> Option<usize> {
        self.lent.keys().nth(pick.checked_rem(self.lent.len())?).copied()
    }

    fn lend(&mut self, object: NonNull<u8>, layout: Layout) {
        let address = object.addr().get();
        assert_eq!(address % layout.align(), 0);
        let below = self.lent.range(..address + layout.size().max(1)).next_back();
        assert!(below.is_none_or(|(&at, (_, layout, _))| at + layout.size().max(1) <= address), "overlap");
        self.next = self.next.wrapping_add(1).max(1);
        // SAFETY: it was just lent and has so many bytes.
        unsafe { object.write_bytes(self.next, layout.size()) };
        self.lent.insert(address, (object, layout, self.next));
    }

    fn holds(object: NonNull<u8>, size: usize, byte: u8) {
        // SAFETY: so many bytes of an object that is lent, all of them written.
        let bytes = unsafe { NonNull::slice_from_raw_parts(object, size).as_ref() };
        assert!(bytes.iter().all(|&found| found == byte), "written by another");
    }

    fn free(&mut self, address: usize, interrupting: bool) {
        let Some((object, layout, byte)) = self.lent.remove(&address) else { return };
        Self::holds(object, layout.size(), byte);
        // SAFETY: it is lent, and forgotten here.
        let freed = by(interrupting, || unsafe { self.heap.free(object, layout) });
        assert_eq!(freed, Ok(()), "a right free was refused");
        // SAFETY: it is not lent now, so nothing is lost if this is refused.
        let again = by(interrupting, || unsafe { self.heap.free(object, layout) });
        assert!(again.is_err(), "freed twice");
    }

    fn free_wrongly(&mut self, input: &mut Input<'_>) {
        let (Some(address), offset, layout) = (self.pick(input.byte()), input.word(), input.layout()) else { return };
        let wrong = address.wrapping_add(offset).wrapping_sub(4096);
        if self.lent.get(&wrong).is_some_and(|&(_, own, _)| alike(own, layout)) {
            return self.free(wrong, false);
        }
        let Some(object) = NonNull::new(std::ptr::without_provenance_mut(wrong)) else { return };
        // SAFETY: nothing of that layout is lent there.
        assert!(unsafe { self.heap.free(object, layout) }.is_err(), "{wrong:#x} as {layout:?}");
    }

    fn realloc(&mut self, input: &mut Input<'_>) {
        let (Some(address), size) = (self.pick(input.byte()), 1 + input.word()) else { return };
        let (object, layout, byte) = self.lent[&address];
        if layout.size() == 0 {
            return;
        }
        // SAFETY: it is lent, and forgotten if it moved.
        let Ok(moved) = (unsafe { self.heap.realloc(object, layout, size) }) else { return };
        Self::holds(moved, size.min(layout.size()), byte);
        self.lent.remove(&address);
        self.lend(moved, Layout::from_size_align(size, layout.align()).unwrap());
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=5 => {
                let (layout, interrupting) = (input.layout(), input.seldom());
                if let Ok(object) = by(interrupting, || self.heap.alloc(layout)) {
                    self.lend(object, layout);
                }
            }
            6 => {
                let layout = input.layout();
                if let Ok(object) = self.heap.alloc_zeroed(layout) {
                    Self::holds(object, layout.size(), 0);
                    self.lend(object, layout);
                }
            }
            7..=10 => {
                if let Some(address) = self.pick(input.byte()) {
                    self.free(address, input.seldom());
                }
            }
            11 => self.realloc(input),
            12 => self.free_wrongly(input),
            13 => CPU.set(input.byte() as u32 % CPUS as u32),
            14 => self.free_many(input.byte()),
            _ => match input.byte() % 4 {
                0 => self.heap.drain(),
                1 => self.heap.drain_cpu(),
                2 => self.heap.poll(),
                _ => self.heap.trim(),
            },
        }
    }

    fn free_many(&mut self, count: usize) {
        for address in self.lent.keys().copied().take(count % 32).collect::<Vec<_>>() {
            self.free(address, false);
        }
    }

    fn validate(&self) {
        let small =
            |layout: Layout| SizeClass::of(Layout::from_size_align(layout.size().max(1), layout.align()).unwrap());
        let lent = self.lent.values().filter(|&&(_, layout, _)| small(layout).is_some()).count();
        assert_eq!(self.heap.validate().unwrap().lent(), lent);
        self.heap.frames().validate().unwrap();
    }

    /// Everything home.
    fn finish(&mut self) {
        self.free_all();
        for cpu in 0..CPUS as u32 {
            CPU.set(cpu);
            self.heap.drain_cpu();
        }
        self.heap.drain();
        self.validate();
        let census = self.heap.census();
        assert!(SizeClass::all().all(|class| census.class(class).slabs == 0), "an empty slab was forgotten");
    }

    fn free_all(&mut self) {
        while let Some((&address, _)) = self.lent.first_key_value() {
            self.free(address, false);
        }
    }
}

fn bytes(buffer: &mut Vec<MaybeUninit<u8>>, count: usize) -> Metadata<'_> {
    buffer.resize(count, MaybeUninit::uninit());
    Metadata::new(buffer)
}

/// The whole of one input at one level.
fn fuzz<C: Config>(data: &[u8]) {
    CPU.set(0);
    let [mut base, mut more, mut own, mut room] = [const { Vec::new() }; 4];
    let memory = FrameSpan::new(Pfn::new(0), FrameCount::new(FRAMES)).unwrap();
    let frames = Frames::<Machine, C>::new();
    let size = Frames::<Machine, C>::base_metadata_size(memory, CPUS, 1);
    frames.init(memory, CPUS, 1, bytes(&mut base, size)).unwrap();
    let size = Frames::<Machine, C>::memory_metadata_size(memory);
    frames.add_memory(NodeId::ZERO, ZoneKind::Normal, memory, &[], bytes(&mut more, size)).unwrap();
    room.resize(FRAMES * C::FRAME_BYTES + ALIGN, MaybeUninit::<u8>::uninit());
    let start = room.as_mut_ptr();
    let start = start.wrapping_add(start.align_offset(ALIGN)).cast();
    let heap = Heap::new(&frames);
    let metadata = bytes(&mut own, Heap::<Machine, C>::metadata_size(memory, CPUS, 1));
    // SAFETY: so many bytes from there on are in `room`, which outlives the heap.
    unsafe { heap.init(start, memory, CPUS, 1, metadata) }.unwrap();
    let mut run = Run { heap: &heap, lent: BTreeMap::new(), next: 0 };
    let mut input = Input(data);
    let mut steps = 0;
    while !input.0.is_empty() {
        run.step(&mut input);
        steps += 1;
        if steps % 16 == 0 {
            run.validate();
        }
    }
    run.finish();
}

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((level, data)) if level % 2 == 1 => fuzz::<Linear>(data),
    Some((_, data)) => fuzz::<Checked>(data),
    None => {}
});
