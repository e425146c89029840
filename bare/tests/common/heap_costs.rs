//! What requests for objects cost, in instructions, at every level and with `linked_list_allocator` beside them.

use core::alloc::{GlobalAlloc, Layout};
use core::hint::black_box;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use pagemill::{
    Checked, Config, Fast, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId, Pfn, ZoneKind,
};
use pagemill_bare::early::Owner;
use pagemill_bare::memory_map::PhysRange;
use pagemill_bare::percpu::Bare;
use pagemill_bare::{physical, println};
use pagemill_tests::Rng;

use crate::churn;
use crate::collections::Collections;
use crate::listed::Listed;
use crate::{counted, median};

/// Bytes of each heap.
const BYTES: u64 = 6 << 20;
/// Objects of one run of allocations: long enough for many refills and slabs.
const RUN: usize = 4096;

/// [`Fast`] where there is one node: a free need not look whose node an object is on.
pub(crate) struct FastOneNode;

impl Config for FastOneNode {
    const CHECKED: bool = false;
    const NUMA: bool = false;
}

/// [`Checked`] where there is one node.
pub(crate) struct CheckedOneNode;

impl Config for CheckedOneNode {
    const NUMA: bool = false;
}

macro_rules! heaps {
    ($($frames:ident $heap:ident $config:ty;)*) => {
        $(static $frames: Frames<'static, Bare, $config> = Frames::new();
        static $heap: Heap<'static, Bare, $config> = Heap::new(&$frames);)*
    };
}

heaps! {
    FAST_ONE_FRAMES FAST_ONE FastOneNode;
    FAST_FRAMES FAST Fast;
    CHECKED_ONE_FRAMES CHECKED_ONE CheckedOneNode;
    CHECKED_FRAMES CHECKED Checked;
}
static LISTED: Listed = Listed::new();

/// The global allocator of this kernel: whichever heap is under test. It is changed only while nothing is lent.
pub(crate) struct Tested(AtomicUsize);

impl Tested {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    #[inline(always)]
    fn with<R>(&self, work: impl FnOnce(&dyn GlobalAlloc) -> R) -> R {
        // Relaxed: one CPU.
        match self.0.load(Relaxed) {
            0 => work(&FAST_ONE),
            1 => work(&FAST),
            2 => work(&CHECKED_ONE),
            3 => work(&CHECKED),
            _ => work(&LISTED),
        }
    }
}

// SAFETY: each of the heaps keeps these promises, and what one has lent it gets back.
unsafe impl GlobalAlloc for Tested {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, here and below.
        self.with(|heap| unsafe { heap.alloc(layout) })
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.dealloc(object, layout) });
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        self.with(|heap| unsafe { heap.realloc(object, layout, new_size) })
    }
}

/// What one heap costs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) pairs: [u64; 6],
    run: [u64; 4],
    works: [u64; 2],
}

type Row = (&'static str, fn(&Figures) -> u64);

const ROWS: [Row; 12] = [
    ("pair of 16 bytes", |figures| figures.pairs[0]),
    ("pair of 64 bytes", |figures| figures.pairs[1]),
    ("pair of 1 KiB", |figures| figures.pairs[2]),
    ("pair of 32 KiB", |figures| figures.pairs[3]),
    ("pair of 64 KiB", |figures| figures.pairs[4]),
    ("pair of 64 bytes, run time size", |figures| figures.pairs[5]),
    ("4096 of 64 bytes, each", |figures| figures.run[0]),
    ("  the dearest of them", |figures| figures.run[1]),
    ("4096 frees in order, each", |figures| figures.run[2]),
    ("4096 frees scattered, each", |figures| figures.run[3]),
    ("16 to 2048 bytes come and go, each", |figures| figures.works[0]),
    ("a step of collections, all in all", |figures| figures.works[1]),
];

/// Counts, prints the table, and answers the figures of the default configurations: `Fast` and `Checked`.
pub(crate) fn count(tested: &Tested) -> [Figures; 2] {
    begin(&FAST_ONE_FRAMES, &FAST_ONE);
    begin(&FAST_FRAMES, &FAST);
    begin(&CHECKED_ONE_FRAMES, &CHECKED_ONE);
    begin(&CHECKED_FRAMES, &CHECKED);
    let block = physical::alloc(BYTES, 4096, PhysRange::ALL, Owner::BootHeap).expect("room");
    // SAFETY: the bytes are nobody else's for ever.
    unsafe { LISTED.init(block.into_bytes()) };
    // The heap under test is the one that lies on the CPU's desk.
    let mut figures = [
        (FAST_ONE.settle(), figures!(FAST_ONE)).1,
        (FAST.settle(), figures!(FAST)).1,
        (CHECKED_ONE.settle(), figures!(CHECKED_ONE)).1,
        (CHECKED.settle(), figures!(CHECKED)).1,
        figures!(LISTED),
    ];
    for (number, figures) in figures.iter_mut().enumerate() {
        tested.0.store(number, Relaxed);
        match number {
            0 => FAST_ONE.settle(),
            1 => FAST.settle(),
            2 => CHECKED_ONE.settle(),
            _ => CHECKED.settle(),
        };
        figures.works = works(tested);
    }
    assert!(LISTED.is_whole());
    println!("\n{:35}{:>20}{:>20}{:>12}", "instructions, pin included", "Fast", "Checked", "linked list");
    println!("{:35}{:>12}{:>8}{1:>12}{2:>8}", "", "one node", "");
    for (name, row) in ROWS {
        let [a, b, c, d, e] = figures.each_ref().map(row);
        println!("{name:35}{a:>12}{b:>8}{c:>12}{d:>8}{e:>12}");
    }
    [figures[1], figures[3]]
}

/// Gives a heap its frames, and metadata from early memory.
fn begin<C: Config>(frames: &'static Frames<'static, Bare, C>, heap: &'static Heap<'static, Bare, C>) {
    let early = |bytes: u64, align| physical::alloc(bytes, align, PhysRange::ALL, Owner::Metadata).expect("room");
    let metadata = |bytes: usize| Metadata::new(early(bytes as u64, 4096).into_bytes());
    let memory = early(BYTES, 2 << 20);
    let start = Pfn::new((memory.range().start() >> 12) as usize);
    let span = FrameSpan::new(start, FrameCount::new((BYTES >> 12) as usize)).expect("frames");
    frames.init(span, 1, 1, metadata(Frames::<Bare, C>::base_metadata_size(span, 1, 1))).unwrap();
    let described = metadata(Frames::<Bare, C>::memory_metadata_size(span));
    frames.add_memory(NodeId::ZERO, ZoneKind::Normal, span, &[], described).unwrap();
    // SAFETY: these frames are early memory that was given out for them, and seen in the window.
    unsafe { heap.init(physical::pointer(0), span, 1, 1, metadata(Heap::<Bare, C>::metadata_size(span, 1, 1))) }.unwrap();
}

/// The figures of one heap. A macro, so that the heap and the layout are constants of the code that is counted, as they
/// are in a kernel with `#[global_allocator]` and `lto`.
macro_rules! figures {
    ($heap:ident) => {{
        let pairs = [
            figures!($heap, 2),
            figures!($heap, 8),
            figures!($heap, 128),
            figures!($heap, 4 << 10),
            figures!($heap, 8 << 10),
            median(|| pair(&$heap, black_box(Layout::new::<[u64; 8]>()))),
        ];
        Figures { pairs, run: run(&$heap), works: [0; 2] }
    }};
    ($heap:ident, $words:expr) => {
        median(|| pair(&$heap, const { Layout::new::<[u64; $words]>() }))
    };
}
use figures;

/// An object, lent and freed.
#[inline(always)]
fn pair<A: GlobalAlloc>(heap: &A, layout: Layout) -> bool {
    // SAFETY: the layouts have sizes.
    let object = unsafe { heap.alloc(layout) };
    if object.is_null() {
        return false;
    }
    // SAFETY: lent for that layout just now.
    unsafe { heap.dealloc(black_box(object), layout) };
    true
}

/// A run of allocations, freed in order, and another, freed in an order that is not theirs.
#[inline(always)]
fn run<A: GlobalAlloc>(heap: &A) -> [u64; 4] {
    const LAYOUT: Layout = Layout::new::<[u64; 8]>();
    let empty = counted(|| ()).1;
    let mut lent = [core::ptr::null_mut(); RUN];
    let [mut allocs, mut dearest, mut in_order, mut scattered] = [0; 4];
    for (step, frees) in [(1, &mut in_order), (1663, &mut scattered)] {
        (allocs, dearest) = (0, 0);
        for place in &mut lent {
            // SAFETY: the layout has a size.
            let (object, took) = counted(|| unsafe { heap.alloc(LAYOUT) });
            assert!(!object.is_null());
            allocs += took - empty;
            dearest = dearest.max(took - empty);
            *place = object;
        }
        for index in 0..RUN {
            let object = lent[index * step % RUN];
            // SAFETY: lent for that layout, and in the list once.
            *frees += counted(|| unsafe { heap.dealloc(object, LAYOUT) }).1 - empty;
        }
    }
    [allocs, dearest * RUN as u64, in_order, scattered].map(|sum| sum / RUN as u64)
}

/// Work with objects of many sizes: what each step takes, the work itself included.
fn works(heap: &Tested) -> [u64; 2] {
    const STEPS: usize = 4000;
    let churn = || churn::churn(heap, STEPS, &mut Rng::new(1));
    let collections = || Collections::new().work(&mut Rng::new(1), STEPS);
    // Twice: the first time makes slabs, and is not counted.
    [&churn as &dyn Fn(), &collections].map(|work| {
        work();
        counted(work).1 / STEPS as u64
    })
}
