//! pagemill by the kit: the heap of the process, and heaps over memory that ends.

use pagemill::{Config, FrameCount, FrameSpan, Frames, Heap, NodeId, Pfn, ZoneKind};
use pagemill_hosted::{Checked, Fast, Hardened, Hosted, Mapping, Pagemill};
use pagemill_tests::conformance::{self, Alone, Crew, Limits, Threads};

/// A heap over that many bytes of memory, whose metadata lies elsewhere.
fn heap<C: Config + Sync>(bytes: usize, cpus: usize) -> &'static Heap<'static, Hosted, C> {
    let count = FrameCount::new(bytes / C::FRAME_BYTES);
    let span = FrameSpan::new(Pfn::new(0), count).unwrap();
    let metadata = |bytes| Mapping::new(bytes).unwrap().into_metadata();
    let frames: &'static Frames<'static, Hosted, C> = Box::leak(Box::new(Frames::new()));
    frames.init(span, cpus, 1, metadata(Frames::<Hosted, C>::base_metadata_size(span, cpus, 1))).unwrap();
    let of_memory = metadata(Frames::<Hosted, C>::memory_metadata_size(span));
    frames.add_memory(NodeId::ZERO, ZoneKind::Normal, span, &[], of_memory).unwrap();
    Hosted::announce(frames);
    let heap: &'static Heap<'static, Hosted, C> = Box::leak(Box::new(Heap::new(frames)));
    let memory: &'static Mapping = Box::leak(Box::new(Mapping::aligned(bytes, 2 << 20).unwrap()));
    let of_heap = metadata(Heap::<Hosted, C>::metadata_size(span, cpus, 1));
    // SAFETY: the mapping stays, has room for all frames, and is used by nobody else.
    unsafe { heap.init(memory.start().as_ptr(), span, cpus, 1, of_heap) }.unwrap();
    heap
}

/// Each property, by both traits, on a heap of its own. At the end nothing is lent, and the heap adds up.
fn conforms<C: Config + Sync>(bytes: usize, limits: Limits, crew: &dyn Crew) {
    let at_rest = |heap: &Heap<'static, Hosted, C>, name| {
        let census = heap.validate().unwrap();
        if C::CHECKED {
            assert_eq!(census.lent(), 0, "{name}");
        }
    };
    for property in conformance::PROPERTIES {
        let heap = heap::<C>(bytes, CPUS);
        property.check_global(heap, &limits, crew).unwrap();
        at_rest(heap, property.name);
    }
    for property in conformance::PROPERTIES.iter().chain(conformance::API_PROPERTIES) {
        let heap = heap::<C>(bytes, CPUS);
        property.check_allocator(&heap, &limits, crew).unwrap();
        at_rest(heap, property.name);
    }
}

/// How many threads have pools of their own; more than there are at a time in these tests.
const CPUS: usize = 64;

/// Little, so that its end is soon reached, but more than a slab of 32 KiB for each of the hundred size classes.
const BYTES: usize = 8 << 20;

#[test]
fn heaps_over_memory_that_ends() {
    let limits = Limits::of_memory(BYTES);
    conforms::<Checked>(BYTES, limits, &Threads(3));
    conforms::<Fast>(BYTES, limits, &Alone);
    // Large blocks have two frames more, so that one of a power of two comes out of twice as many; and what other
    // threads hold back is not there when memory ends.
    let limits = Limits { largest: 256 << 10, align: 64 << 10, ..limits };
    conforms::<Hardened>(BYTES, limits, &Alone);
}

#[test]
fn the_heap_of_the_process() {
    let checked: Pagemill = Pagemill::new();
    conformance::check_global(&checked, &Limits::HOSTED, &Threads(4), &mut |_| ()).unwrap();
    let fast: Pagemill<Fast> = Pagemill::new();
    conformance::check_global(&fast, &Limits::HOSTED, &Threads(4), &mut |_| ()).unwrap();
    let hardened: Pagemill<Hardened> = Pagemill::new();
    conformance::check_global(&hardened, &Limits::HOSTED, &Threads(4), &mut |_| ()).unwrap();
}
