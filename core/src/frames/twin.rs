//! The whole front end beside a naive twin: a list of what each frame is.
//!
//! The twin answers by brute force what the instance answers by trees, words, pools and hints: which frames a request
//! may get, whether it can be served at all once everything idle has come home, and whether a free is right.

use std::vec::Vec;

use proptest::prelude::*;

use super::tests::{Tiny, TinyFast};
use super::*;
use crate::arena::Access;
use crate::config::Geometry;
use crate::error::SetupError;
use crate::kind::ZoneKind;
use crate::testing::{Sim, add, bytes, span};

const CPUS: u32 = 2;

/// Arenas of 512 frames in trees of a row, the smallest that merge late.
struct Rows;
impl Config for Rows {
    const HUGE_ORDER: u32 = 6;
    const ARENA_ORDER: u32 = 9;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// The same without words for what is lent.
struct RowsFast;
impl Config for RowsFast {
    const CHECKED: bool = false;
    const HUGE_ORDER: u32 = 6;
    const ARENA_ORDER: u32 = 9;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// What a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Hole,
    Free,
    Lent,
    Reserved,
    Offline,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum By {
    Task,
    /// An interrupt of the allocator that finds no lock held.
    Interrupt,
    /// An interrupt of the holder of a frame's arena.
    HolderOf(usize),
}

#[derive(Clone, Debug)]
enum Op {
    Alloc {
        order: u32,
        movable: bool,
        by: By,
    },
    Range {
        count: usize,
        align: u32,
        below: Option<usize>,
        movable: bool,
    },
    At {
        start: usize,
        count: usize,
    },
    /// Frees frames `from..from + count` of the `pick`th run of lent frames, cut to the run.
    Free {
        pick: usize,
        from: usize,
        count: usize,
        by: By,
    },
    /// Frees whatever is there, right or wrong.
    FreeAny {
        start: usize,
        count: usize,
        by: By,
    },
    Reserve {
        start: usize,
        count: usize,
    },
    Release {
        start: usize,
        count: usize,
    },
    /// Out of service; if something is still lent, free that first or give up.
    Offline {
        start: usize,
        count: usize,
        insist: bool,
    },
    Online {
        start: usize,
        count: usize,
    },
    Drain,
    Cpu(u32),
}

/// An instance and its twin, frame by frame from frame `base` on.
struct Pair<C: Config> {
    frames: Frames<'static, Sim, C>,
    base: usize,
    is: Vec<Is>,
    /// The ranges it was made of.
    memory: Vec<FrameSpan>,
}

impl<C: Config> Pair<C> {
    fn new(memory: &[(usize, usize)], reserved: &[FrameSpan]) -> Self {
        Sim::become_cpu(0);
        let memory: Vec<_> = memory.iter().map(|&(start, count)| span(start, count)).collect();
        let (base, end) = (memory[0].start().number(), memory[memory.len() - 1].end().number());
        let all = span(base, end - base);
        let frames = Frames::<Sim, C>::new();
        let size = Frames::<Sim, C>::base_metadata_size(all, CPUS as usize, 1);
        frames.init(all, CPUS as usize, 1, bytes(size)).unwrap();
        let mut pair = Self { frames, base, is: std::vec![Is::Hole; all.count().get()], memory: memory.clone() };
        // The last range first: addresses come in any order.
        for &range in memory.iter().rev() {
            let kind = if range.start() == memory[0].start() { ZoneKind::Dma32 } else { ZoneKind::Normal };
            add(&pair.frames, NodeId::ZERO, kind, range, reserved);
            pair.set(range, Is::Free);
        }
        for &range in reserved {
            for frame in range.start().number().max(base)..range.end().number().min(end) {
                if pair.get(frame) == Is::Free {
                    pair.is[frame - base] = Is::Reserved;
                }
            }
        }
        pair
    }

    fn get(&self, frame: usize) -> Is {
        frame.checked_sub(self.base).and_then(|place| self.is.get(place)).copied().unwrap_or(Is::Hole)
    }

    fn set(&mut self, range: FrameSpan, is: Is) {
        for frame in range.start().number()..range.end().number() {
            self.is[frame - self.base] = is;
        }
    }

    fn all(&self, range: FrameSpan, is: Is) -> bool {
        (range.start().number()..range.end().number()).all(|frame| self.get(frame) == is)
    }

    fn count(&self, is: Is) -> usize {
        self.is.iter().filter(|&&state| state == is).count()
    }

    /// Runs of lent frames.
    fn runs(&self) -> Vec<(usize, usize)> {
        let lent = |place: usize| self.is.get(place) == Some(&Is::Lent);
        let starts = (0..self.is.len()).filter(|&place| lent(place) && (place == 0 || !lent(place - 1)));
        starts.map(|start| (self.base + start, (start..).take_while(|&place| lent(place)).count())).collect()
    }

    fn clip(&self, start: usize, count: usize) -> FrameSpan {
        span(self.base + start % self.is.len(), count.max(1))
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { order, movable, by } => self.alloc(order, movable, by),
            Op::Range { count, align, below, movable } => self.range(count, align, below, movable),
            Op::At { start, count } => self.at(self.clip(start, count)),
            Op::Free { pick, from, count, by } => {
                let runs = self.runs();
                if let Some(&(start, length)) = runs.get(pick % runs.len().max(1)) {
                    let from = from % length;
                    self.free(span(start + from, count.clamp(1, length - from)), by);
                }
            }
            Op::FreeAny { start, count, by } => self.free(self.clip(start, count), by),
            Op::Reserve { start, count } => self.reserve(self.clip(start, count)),
            Op::Release { start, count } => self.release(self.clip(start, count)),
            Op::Offline { start, count, insist } => self.offline(self.clip(start, count), insist),
            Op::Online { start, count } => self.online(self.clip(start, count)),
            Op::Drain => self.drain_all(),
            Op::Cpu(cpu) => Sim::become_cpu(cpu % CPUS),
        }
        self.check();
    }

    /// Everything idle comes home, on every CPU.
    fn drain_all(&self) {
        self.frames.drain();
        for cpu in 0..CPUS {
            Sim::become_cpu(cpu);
            self.frames.poll();
        }
    }

    fn by<R>(&self, by: By, work: impl FnOnce(&Frames<'static, Sim, C>) -> R) -> R {
        match by {
            By::Task => work(&self.frames),
            By::Interrupt => Sim::interrupting(|| work(&self.frames)),
            By::HolderOf(place) => match self.frames.nodes.arena_of(Pfn::new(self.base + place % self.is.len())) {
                Some(arena) => {
                    arena.with(Access::Try, |_, _| Sim::interrupting(|| work(&self.frames))).expect("nobody has it")
                }
                None => work(&self.frames),
            },
        }
    }

    fn lend(&mut self, got: FrameSpan) {
        assert!(self.all(got, Is::Free), "{got:?} was not free");
        self.set(got, Is::Lent);
    }

    fn alloc(&mut self, order: u32, movable: bool, by: By) {
        let Some(order) = Order::new(order) else { return };
        let flags = if movable { AllocFlags::MOVABLE } else { AllocFlags::empty() };
        let got = self.by(by, |frames| frames.alloc_raw(order, flags));
        match got {
            Ok(head) => {
                assert_eq!(head.number() % order.frames(), 0, "a block is aligned");
                self.lend(FrameSpan::new(head, order.count()).unwrap());
            }
            Err(AllocError::NoMemory) if matches!(by, By::Task) => {
                self.retry(&Request::block(order).flags(flags));
            }
            Err(AllocError::NoMemory | AllocError::WouldBlock) => assert!(!matches!(by, By::Task)),
            Err(AllocError::Impossible) => assert!(order.index() as u32 > C::ARENA_ORDER),
            Err(error) => panic!("{error}"),
        }
    }

    fn range(&mut self, count: usize, align: u32, below: Option<usize>, movable: bool) {
        let mut request = Request::frames(FrameCount::new(count)).aligned(1 << align);
        if let Some(below) = below {
            request = request.below(Pfn::new(self.base + below % (self.is.len() + 1)));
        }
        if movable {
            request = request.flags(AllocFlags::MOVABLE);
        }
        match self.frames.alloc_range(&request) {
            Ok(range) => self.lend_as(range.into_raw(), &request),
            Err(AllocError::NoMemory) => self.retry(&request),
            Err(AllocError::Impossible) => assert!(count == 0 || align > 18),
            Err(error) => panic!("{error}"),
        }
    }

    fn lend_as(&mut self, got: FrameSpan, request: &Request) {
        assert_eq!((got.count().get(), got.start().number() % request.align), (request.count, 0));
        assert!(request.below.is_none_or(|below| got.end() <= below));
        self.lend(got);
    }

    /// A request that failed may have failed for what is idle elsewhere; it must not fail for anything else.
    fn retry(&mut self, request: &Request) {
        self.drain_all();
        match self.frames.alloc_range(request) {
            Ok(range) => self.lend_as(range.into_raw(), request),
            Err(AllocError::NoMemory) => assert!(!self.could_serve(request), "{request:?} could be served"),
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether what the request is cut from is free: up to a tree an aligned block, up to an arena a run of trees, and
    /// above that a run of arenas of one range.
    fn could_serve(&self, request: &Request) -> bool {
        let (tree, arena) = (Geometry::<C>::TREE_FRAMES, Geometry::<C>::ARENA_FRAMES);
        let block = request.count.next_power_of_two().max(request.align);
        let (step, need) = if block <= tree {
            (block, block)
        } else if request.count <= arena {
            (tree.max(request.align), request.count.next_multiple_of(tree))
        } else {
            (arena.max(request.align), request.count.next_multiple_of(arena))
        };
        let end = request.below.map_or(usize::MAX, Pfn::number).min(self.base + self.is.len());
        let starts = (self.base.next_multiple_of(step)..end).step_by(step);
        starts.take_while(|start| start + request.count <= end).any(|start| {
            let frames = span(start, need);
            let inside = self.memory.iter().any(|range| range.intersection(frames) == Some(frames));
            let one = need > arena || start / arena == (start + need - 1) / arena;
            inside && one && self.all(frames, Is::Free)
        })
    }

    fn at(&mut self, range: FrameSpan) {
        match self.frames.alloc_at(range) {
            Ok(got) => self.lend(got.into_raw()),
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                self.drain_all();
                match self.frames.alloc_at(range) {
                    Ok(got) => self.lend(got.into_raw()),
                    Err(_) => assert!(!self.all(range, Is::Free), "{range:?} is free"),
                }
            }
        }
    }

    fn free(&mut self, range: FrameSpan, by: By) {
        let right = self.all(range, Is::Lent);
        if !right && !C::CHECKED {
            // Without words a frame in a pool looks lent.
            return;
        }
        let freed = self.by(by, |frames| frames.free_raw(range.start(), range.count()));
        let Err(error) = freed else {
            assert!(right, "{range:?} was not all lent");
            return self.set(range, Is::Free);
        };
        assert!(range.contains(error.pfn()), "{error} is about another frame than {range:?}");
        let fits = match error {
            FreeError::NotManaged(pfn) => self.get(pfn.number()) == Is::Hole,
            FreeError::NeverLent(pfn) | FreeError::AlreadyFree(pfn, _) => self.get(pfn.number()) == Is::Free,
            FreeError::Reserved(pfn) => self.get(pfn.number()) == Is::Reserved,
            FreeError::Offline(pfn) => self.get(pfn.number()) == Is::Offline,
            FreeError::InUse(_) | FreeError::Misaligned(_) => false,
        };
        assert!(!right && fits, "{error}, but it is {:?}", self.get(error.pfn().number()));
    }

    fn reserve(&mut self, range: FrameSpan) {
        self.drain_all();
        match self.frames.reserve(range) {
            Ok(()) => {
                assert!(self.all(range, Is::Free));
                self.set(range, Is::Reserved);
            }
            Err(SetupError::NotFree(pfn)) => assert!(!matches!(self.get(pfn.number()), Is::Free | Is::Hole)),
            Err(SetupError::NotManaged(pfn)) => assert_eq!(self.get(pfn.number()), Is::Hole),
            Err(error) => panic!("{error}"),
        }
    }

    fn release(&mut self, range: FrameSpan) {
        match self.frames.release(range) {
            Ok(()) => {
                assert!(self.all(range, Is::Reserved));
                self.set(range, Is::Free);
            }
            Err(SetupError::NotReserved(pfn)) => assert!(!matches!(self.get(pfn.number()), Is::Reserved | Is::Hole)),
            Err(SetupError::NotManaged(pfn)) => assert_eq!(self.get(pfn.number()), Is::Hole),
            Err(error) => panic!("{error}"),
        }
    }

    fn replace(&mut self, range: FrameSpan, from: Is, to: Is) -> usize {
        let frames: Vec<_> = (range.start().number()..range.end().number()).filter(|&f| self.get(f) == from).collect();
        frames.iter().for_each(|frame| self.is[frame - self.base] = to);
        frames.len()
    }

    fn offline(&mut self, range: FrameSpan, insist: bool) {
        self.drain_all();
        match self.frames.offline(range) {
            Ok(()) => {
                assert!(!(range.start().number()..range.end().number()).any(|f| self.get(f) == Is::Lent));
                self.replace(range, Is::Free, Is::Offline);
            }
            Err(SetupError::NotManaged(pfn)) => assert_eq!(self.get(pfn.number()), Is::Hole),
            Err(SetupError::StillLent(left)) if insist => {
                let lent = (range.start().number()..range.end().number()).filter(|&f| self.get(f) == Is::Lent);
                assert_eq!(lent.clone().count(), left.get());
                for frame in lent.collect::<Vec<_>>() {
                    self.free(span(frame, 1), By::Task);
                }
                self.drain_all();
                assert_eq!(self.frames.offline(range), Ok(()));
                self.replace(range, Is::Free, Is::Offline);
            }
            Err(SetupError::StillLent(_)) => {
                self.replace(range, Is::Free, Is::Offline);
                self.online(range);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn online(&mut self, range: FrameSpan) {
        match self.frames.online(range) {
            Ok(()) => assert_ne!(self.replace(range, Is::Offline, Is::Free), 0),
            Err(SetupError::NotOffline(_)) => assert_eq!(self.replace(range, Is::Offline, Is::Free), 0),
            Err(SetupError::NotManaged(pfn)) => assert_eq!(self.get(pfn.number()), Is::Hole),
            Err(error) => panic!("{error}"),
        }
    }

    fn check(&self) {
        self.frames.validate().unwrap();
        let census = self.frames.census();
        assert_eq!(census.present, self.is.len() - self.count(Is::Hole));
        assert_eq!(census.lent(), self.count(Is::Lent), "{census:?}");
        assert_eq!(census.reserved, self.count(Is::Reserved));
        assert_eq!(census.offline, self.count(Is::Offline));
    }

    fn finish(mut self) {
        for (start, count) in self.runs() {
            self.free(span(start, count), By::Task);
        }
        self.drain_all();
        self.check();
        let census = self.frames.census();
        assert_eq!((census.lent(), census.pooled, census.returning), (0, 0, 0));
    }
}

fn by(frames: usize) -> impl Strategy<Value = By> {
    prop_oneof![6 => Just(By::Task), 1 => Just(By::Interrupt), 1 => (0..frames).prop_map(By::HolderOf)]
}

fn ops(frames: usize, longest: usize) -> impl Strategy<Value = Op> {
    let start = 0..frames;
    let count = prop_oneof![3 => 1usize..10, 1 => 1..longest];
    let range = (start.clone(), count.clone());
    prop_oneof![
        8 => (prop_oneof![4 => Just(0u32), 3 => 0u32..4, 1 => 0u32..20], any::<bool>(), by(frames))
            .prop_map(|(order, movable, by)| Op::Alloc { order, movable, by }),
        3 => (count.clone(), 0u32..4, proptest::option::weighted(0.2, start.clone()), any::<bool>())
            .prop_map(|(count, align, below, movable)| Op::Range { count, align, below, movable }),
        1 => range.clone().prop_map(|(start, count)| Op::At { start, count }),
        9 => (any::<usize>(), any::<usize>(), count.clone(), by(frames))
            .prop_map(|(pick, from, count, by)| Op::Free { pick, from, count, by }),
        2 => (start.clone(), count.clone(), by(frames))
            .prop_map(|(start, count, by)| Op::FreeAny { start, count, by }),
        1 => range.clone().prop_map(|(start, count)| Op::Reserve { start, count }),
        1 => range.clone().prop_map(|(start, count)| Op::Release { start, count }),
        1 => (start, count, any::<bool>()).prop_map(|(start, count, insist)| Op::Offline { start, count, insist }),
        1 => range.prop_map(|(start, count)| Op::Online { start, count }),
        1 => Just(Op::Drain),
        2 => (0..CPUS).prop_map(Op::Cpu),
    ]
}

fn run<C: Config>(memory: &[(usize, usize)], reserved: &[FrameSpan], ops: &[Op]) {
    let mut pair = Pair::<C>::new(memory, reserved);
    ops.iter().for_each(|op| pair.apply(op));
    pair.finish();
}

/// Trees of 8 and arenas of 64: odd borders, a hole, a border inside a tree.
const TINY: [(usize, usize); 3] = [(61, 70), (140, 160), (300, 200)];
/// Trees of 64 and arenas of 512: odd borders, a hole, a border between arenas.
const ROWS: [(usize, usize); 2] = [(450, 700), (1200, 800)];
/// Two real arenas meet in the second range.
const REAL: [(usize, usize); 2] = [((1 << 18) - 9000, 1200), ((1 << 18) - 700, 1500)];
const STEPS: usize = 120;

/// `cases`, unless the environment says how many.
fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn agrees_with_the_twin_on_tiny_arenas(ops in proptest::collection::vec(ops(439, 200), 1..STEPS)) {
        run::<Tiny>(&TINY, &[span(0, 65), span(200, 7)], &ops);
    }

    #[test]
    fn agrees_with_the_twin_without_words(ops in proptest::collection::vec(ops(439, 200), 1..STEPS)) {
        run::<TinyFast>(&TINY, &[span(0, 65), span(200, 7)], &ops);
    }

    #[test]
    fn agrees_with_the_twin_on_trees_of_a_row(ops in proptest::collection::vec(ops(1550, 300), 1..STEPS)) {
        run::<Rows>(&ROWS, &[span(900, 30)], &ops);
    }

    #[test]
    fn agrees_with_the_twin_on_trees_of_a_row_without_words(
        ops in proptest::collection::vec(ops(1550, 300), 1..STEPS),
    ) {
        run::<RowsFast>(&ROWS, &[span(900, 30)], &ops);
    }
}

proptest! {
    #![proptest_config(config(6))]

    #[test]
    fn agrees_with_the_twin_on_real_arenas(ops in proptest::collection::vec(ops(9800, 1000), 1..STEPS)) {
        run::<Checked>(&REAL, &[span((1 << 18) - 300, 40)], &ops);
    }
}
