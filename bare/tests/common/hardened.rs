//! A heap at level `Hardened` over some of the machine's frames, beside its own: all CPUs use it, and what they do
//! wrong is found.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use pagemill::{
    BadFree, BadFreeKind, FrameCount, FrameRange, FrameSpan, Frames, Hardened, Heap, Metadata, NodeId, Request, SizeClass,
    ZoneKind,
};
use pagemill_bare::frames::FRAMES;
use pagemill_bare::percpu::{self, Bare};
use pagemill_bare::{cpu, physical, smp};
use pagemill_tests::Rng;

static BENEATH: Frames<'static, Bare, Hardened> = Frames::new();
static HARDENED: Heap<'static, Bare, Hardened> = Heap::new(&BENEATH);

/// Writes to freed memory that were found.
static WRITTEN: AtomicU32 = AtomicU32::new(0);
static HEARD: fn(BadFree) = |fault| {
    WRITTEN.fetch_add(u32::from(fault.kind == BadFreeKind::WrittenAfterFree), Relaxed);
};

fn take(count: usize, align: usize) -> FrameSpan {
    FRAMES.alloc_range(&Request::frames(FrameCount::new(count)).aligned(align)).expect("there is memory").into_raw()
}

fn metadata(span: FrameSpan) -> Metadata<'static> {
    // SAFETY: lent for this, and given back when nobody uses the heap any more.
    Metadata::new(unsafe { physical::bytes_of(FrameRange::from_raw(span)) })
}

fn free(object: NonNull<u8>, layout: Layout) -> Result<(), BadFreeKind> {
    // SAFETY: the test's own objects, which it does not use afterwards; what is wrong is refused.
    unsafe { HARDENED.free(object, layout) }.map_err(|fault| fault.kind)
}

/// Sets up the heap, and takes it down afterwards.
pub(crate) fn with_heap(work: impl FnOnce()) {
    let cpus = percpu::online() as usize;
    let memory = take(1024, 512);
    let sizes = [
        Frames::<Bare, Hardened>::base_metadata_size(memory, cpus, 1),
        Frames::<Bare, Hardened>::memory_metadata_size(memory),
        Heap::<Bare, Hardened>::metadata_size(memory, cpus, 1),
    ];
    let spans = sizes.map(|bytes| take(bytes.div_ceil(4096), 1));
    BENEATH.init(memory, cpus, 1, metadata(spans[0])).expect("once");
    BENEATH.add_memory(NodeId::ZERO, ZoneKind::Normal, memory, &[], metadata(spans[1])).expect("its frames");
    HARDENED.set_secret(cpu::random()).expect("not yet initialised");
    // SAFETY: the frames were lent for this, and are seen in the window.
    unsafe { HARDENED.init(physical::pointer(0), memory, cpus, 1, metadata(spans[2])) }.expect("once");
    HARDENED.set_fault_hook(&HEARD);
    work();
    smp::on_all(&|_| HARDENED.drain_cpu());
    HARDENED.drain();
    assert_eq!(HARDENED.validate().map(|census| census.lent()), Ok(0));
    BENEATH.validate().expect("its frames add up");
    for span in spans.into_iter().chain([memory]) {
        FRAMES.free_range(FrameRange::from_raw(span)).expect("lent above");
    }
}

/// Objects come and go on all CPUs: none is refused, and each is as it was left.
pub(crate) fn churn(steps: usize) {
    smp::on_all(&|cpu| {
        let mut rng = Rng::new(u64::from(cpu) + 1);
        let mut held = [None; 40];
        for step in 0..steps {
            let place = &mut held[rng.below(40)];
            if let Some((object, layout, byte)) = place.take() {
                let object: NonNull<u8> = object;
                let layout: Layout = layout;
                // SAFETY: lent, and written when it was.
                let bytes = unsafe { NonNull::slice_from_raw_parts(object, layout.size()).as_ref() };
                assert!(bytes.iter().all(|&found| found == byte));
                assert_eq!(free(object, layout), Ok(()));
            }
            let most = if rng.below(50) == 0 { 100_000 } else { 600 };
            let layout = Layout::from_size_align(1 + rng.below(most), 1 << rng.below(6)).expect("a layout");
            if let Ok(object) = HARDENED.alloc(layout) {
                let byte = step as u8;
                // SAFETY: just lent.
                unsafe { object.write_bytes(byte, layout.size()) };
                *place = Some((object, layout, byte));
            }
        }
        held.into_iter().flatten().for_each(|(object, layout, _)| assert_eq!(free(object, layout), Ok(())));
        // The heap is small: what many CPUs hold back would be all of it.
        HARDENED.drain_cpu();
    });
}

/// Every mistake that only this level sees.
pub(crate) fn mistakes() {
    for size in [1, 8, 24, 100, 5000, 32_768, 50_000, 8192] {
        let layout = Layout::from_size_align(size, 1).expect("a layout");
        let object = HARDENED.alloc(layout).expect("there is memory");
        // SAFETY: the byte behind an object is more of its slot, or of its guard.
        let beyond = unsafe { object.add(size) };
        // SAFETY: as above.
        let before = unsafe { beyond.read() };
        // SAFETY: as above; this is what is to be found.
        unsafe { beyond.write(0) };
        assert_eq!(free(object, layout), Err(BadFreeKind::Overrun), "{size}");
        // SAFETY: as above.
        unsafe { beyond.write(before) };
        assert_eq!(HARDENED.usable_size(object), Some(size));
        assert_eq!(free(object, layout), Ok(()));
        assert_eq!(free(object, layout), Err(BadFreeKind::NotLent));
    }
    let layout = Layout::new::<[u64; 6]>();
    let object = HARDENED.alloc(layout).expect("there is memory");
    let pinned = HARDENED.alloc(layout).expect("there is memory");
    assert_eq!(free(object, layout), Ok(()));
    HARDENED.drain_cpu();
    // SAFETY: nobody has it; this is what is to be found.
    unsafe { object.write(1) };
    let lent: Vec<_> = (0..2000).filter_map(|_| HARDENED.alloc(layout).ok()).collect();
    assert!(!lent.contains(&object));
    lent.into_iter().for_each(|object| assert_eq!(free(object, layout), Ok(())));
    assert_eq!(free(pinned, layout), Ok(()));
    assert_eq!(WRITTEN.load(Relaxed), 1);
    let class = SizeClass::of(Layout::new::<[u64; 7]>()).expect("small");
    assert_eq!(HARDENED.census().class(class).condemned, 1);
}
