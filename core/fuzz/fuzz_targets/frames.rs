//! Bytes become requests to a small instance, beside a list of what is lent: no frame twice, no right free refused, no
//! wrong free accepted, every invariant after every few steps, and everything home at the end.
#![no_main]

use std::cell::Cell;
use std::mem::MaybeUninit;

use libfuzzer_sys::fuzz_target;
use pagemill::{
    AllocFlags, Config, Context, CpuId, FrameCount, FrameSpan, Frames, Metadata, NodeId, NodeMask, Order, Pfn,
    Platform, Policy, Request, Watermarks, ZoneKind,
};

const CPUS: usize = 2;
const FRAMES: usize = 512;
/// Range by range: start, count, node, kind. Odd borders, a hole, a border inside a tree.
const MEMORY: [(usize, usize, u32, ZoneKind); 4] = [
    (3, 125, 0, ZoneKind::Dma32),
    (131, 90, 0, ZoneKind::Normal),
    (221, 163, 1, ZoneKind::Normal),
    (390, 120, 1, ZoneKind::Movable),
];

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

/// Arenas of 64 frames in trees of 8.
struct Tiny;
impl Config for Tiny {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 2;
}

/// Arenas of 256 frames in trees of a row, in which single frames are merged late.
struct Rows;
impl Config for Rows {
    const HUGE_ORDER: u32 = 6;
    const ARENA_ORDER: u32 = 8;
    const POOL_FRAMES: u32 = 8;
    const REFILL_FRAMES: u32 = 4;
    const DENSE_BELOW_FRAMES: u32 = 16;
}

type Instance<'m, C> = Frames<'m, Machine, C>;

const fn span(start: usize, count: usize) -> Option<FrameSpan> {
    match FrameSpan::new(Pfn::new(start), FrameCount::new(count)) {
        Ok(span) => Some(span),
        Err(_) => None,
    }
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
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A frame number, now and then one that is far away.
    fn frame(&mut self) -> usize {
        match self.byte() {
            255 => usize::MAX - usize::from(self.byte()),
            high => (usize::from(high) << 8 | usize::from(self.byte())) % (FRAMES + 8),
        }
    }

    fn count(&mut self) -> usize {
        match self.byte() {
            long @ 200.. => usize::from(long - 199) * 7,
            short => usize::from(short % 12),
        }
    }

    fn flags(&mut self) -> AllocFlags {
        AllocFlags::from_bits_truncate(u32::from(self.byte()))
    }

    fn policy(&mut self) -> Policy {
        let node = |number: u8| NodeId::new(u32::from(number % 2)).unwrap();
        let mask = |bits: u8| match bits % 3 {
            0 => NodeMask::of(node(0)),
            1 => NodeMask::of(node(1)),
            _ => NodeMask::ALL,
        };
        let byte = self.byte();
        match byte % 6 {
            0 => Policy::Local,
            1 => Policy::Bind(mask(byte / 6)),
            2 => Policy::Preferred(node(byte / 6)),
            3 => Policy::PreferredMany(mask(byte / 6)),
            4 => Policy::Interleave(mask(byte / 6)),
            _ => Policy::WeightedInterleave(mask(byte / 6)),
        }
    }
}

struct Run<'m, C: Config> {
    frames: &'m Instance<'m, C>,
    lent: [bool; FRAMES],
}

impl<C: Config> Run<'_, C> {
    fn lend(&mut self, start: Pfn, count: usize) {
        for frame in start.number()..start.number() + count {
            assert!(!self.lent[frame], "frame {frame} is lent twice");
            self.lent[frame] = true;
        }
    }

    fn free(&mut self, start: usize, count: usize, interrupting: bool) {
        let right = count != 0
            && start.checked_add(count).is_some_and(|end| end <= FRAMES)
            && self.lent[start..start + count].iter().all(|&lent| lent);
        let freed = by(interrupting, || self.frames.free_raw(Pfn::new(start), FrameCount::new(count)));
        assert_eq!(freed.is_ok(), right, "free of {count} from {start}: {freed:?}");
        if right {
            self.lent[start..start + count].fill(false);
        }
    }

    /// The `pick`th run of lent frames.
    fn run(&self, pick: usize) -> Option<(usize, usize)> {
        let lent = |frame: usize| self.lent.get(frame) == Some(&true);
        let starts = || (0..FRAMES).filter(|&frame| lent(frame) && (frame == 0 || !lent(frame - 1)));
        let start = starts().nth(pick % starts().count().max(1))?;
        Some((start, (start..).take_while(|&frame| lent(frame)).count()))
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let frames = self.frames;
        match input.byte() % 16 {
            0..=2 => {
                let (order, flags) = (u32::from(input.byte() % 8), input.flags());
                let order = Order::new(order).unwrap();
                if let Ok(head) = by(input.byte() % 8 == 0, || frames.alloc_raw(order, flags)) {
                    self.lend(head, order.frames());
                }
            }
            3 | 4 => {
                let (count, align) = (input.count(), 1usize << (input.byte() % 8));
                let mut request = Request::frames(FrameCount::new(count)).aligned(align).flags(input.flags());
                request = request.policy(input.policy());
                if input.byte() % 4 == 0 {
                    request = request.below(Pfn::new(input.frame()));
                }
                if let Ok(range) = frames.alloc_range(&request) {
                    assert_eq!(range.span().start().number() % align, 0);
                    self.lend(range.into_raw().start(), count);
                }
            }
            5 => {
                if let Some(wanted) = span(input.frame(), input.count())
                    && let Ok(range) = frames.alloc_at(wanted)
                {
                    self.lend(range.into_raw().start(), wanted.count().get());
                }
            }
            6..=9 => {
                let (pick, from, count) = (usize::from(input.byte()), usize::from(input.byte()), input.count());
                if let Some((start, length)) = self.run(pick) {
                    let from = from % length;
                    self.free(start + from, count.clamp(1, length - from), input.byte() % 8 == 0);
                }
            }
            10 => {
                let (start, count) = (input.frame(), input.count());
                self.free(start, count, input.byte() % 8 == 0);
            }
            11 => drop(span(input.frame(), input.count()).map(|span| frames.reserve(span))),
            12 => drop(span(input.frame(), input.count()).map(|span| frames.release(span))),
            13 => drop(span(input.frame(), input.count()).map(|span| frames.offline(span))),
            14 => drop(span(input.frame(), input.count()).map(|span| frames.online(span))),
            _ => match input.byte() % 4 {
                0 => frames.drain(),
                1 => frames.poll(),
                2 => {
                    let min = usize::from(input.byte() % 32);
                    let marks = Watermarks { min, low: min + 4, high: min + 8 };
                    frames.set_watermarks(NodeId::ZERO, ZoneKind::Normal, marks).unwrap();
                }
                _ => CPU.set(u32::from(input.byte()) % CPUS as u32),
            },
        }
    }

    /// Everything home.
    fn finish(&mut self) {
        while let Some((start, count)) = self.run(0) {
            self.free(start, count, false);
        }
        self.frames.drain();
        for cpu in 0..CPUS as u32 {
            CPU.set(cpu);
            self.frames.poll();
        }
        self.frames.validate().unwrap();
        let census = self.frames.census();
        assert_eq!((census.lent(), census.pooled, census.returning), (0, 0, 0), "{census:?}");
    }
}

fn bytes(buffer: &mut Vec<MaybeUninit<u8>>, count: usize) -> Metadata<'_> {
    buffer.resize(count, MaybeUninit::uninit());
    Metadata::new(buffer)
}

/// The whole of one input on one geometry.
fn fuzz<C: Config>(data: &[u8]) {
    CPU.set(0);
    let mut buffers = [const { Vec::new() }; MEMORY.len() + 1];
    let [base, others @ ..] = &mut buffers;
    let frames = Instance::<C>::new();
    let all = span(0, FRAMES).unwrap();
    frames.init(all, CPUS, 2, bytes(base, Instance::<C>::base_metadata_size(all, CPUS, 2))).unwrap();
    for ((start, count, node, kind), buffer) in MEMORY.into_iter().zip(others) {
        let memory = span(start, count).unwrap();
        let metadata = bytes(buffer, Instance::<C>::memory_metadata_size(memory));
        let reserved = [span(60, 9).unwrap(), span(380, 100).unwrap()];
        frames.add_memory(NodeId::new(node).unwrap(), kind, memory, &reserved, metadata).unwrap();
    }
    frames.set_cpu_node(CpuId::new(1), NodeId::new(1).unwrap()).unwrap();
    let mut run = Run { frames: &frames, lent: [false; FRAMES] };
    let mut input = Input(data);
    let mut steps = 0;
    while !input.0.is_empty() {
        run.step(&mut input);
        steps += 1;
        if steps % 8 == 0 {
            frames.validate().unwrap();
            assert_eq!(frames.census().lent(), run.lent.iter().filter(|&&lent| lent).count());
        }
    }
    run.finish();
}

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((geometry, data)) if geometry % 2 == 1 => fuzz::<Rows>(data),
    Some((_, data)) => fuzz::<Tiny>(data),
    None => {}
});
