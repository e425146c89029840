//! An interrupt at every instruction of the heap: each path of `alloc` and `free` is run one instruction at a time, and
//! the handler of the debug exception allocates and frees at each of them, small objects and large ones. No byte may
//! have two owners, nothing may get lost. A platform that does not mark what is claimed must be caught at that.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 64M timeout=120");

pagemill_bare::kernel! {
    tests: [
        pairs_from_the_pool,
        refills,
        spills,
        growth_and_release,
        large_objects,
        objects_that_grow,
        a_drain,
        without_the_busy_byte_it_is_caught,
        with_a_desk_that_is_never_claimed_it_is_caught,
    ];

    use core::alloc::Layout;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

    use pagemill::{
        AllocError, Checked, Config, Context, CpuId, Desk, Fast, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId,
        Pfn, Platform, ZoneKind,
    };
    use pagemill_bare::early::Owner;
    use pagemill_bare::idt::{self, TrapFrame};
    use pagemill_bare::memory_map::PhysRange;
    use pagemill_bare::percpu::{Bare, IrqLock};
    use pagemill_bare::{cpu, physical, print};

    /// Bytes of each heap.
    const BYTES: usize = 4 << 20;
    const FRAMES: usize = BYTES / 4096;
    /// What the bitmap of owners counts.
    const GRANULE: usize = 8;
    /// The most objects that the handler holds.
    const HELD: usize = 6;

    /// A heap, and what happens around it.
    struct Subject<P: Platform, C: Config> {
        frames: &'static Frames<'static, P, C>,
        heap: Heap<'static, P, C>,
        events: Events,
        /// Sizes of the handler's objects, in turn.
        sizes: &'static [usize],
    }

    /// Everything the handler knows. It does not interrupt itself, so plain loads and stores do.
    struct Events {
        /// Where the heap's memory begins.
        start: AtomicUsize,
        /// A bit for each granule that somebody holds.
        owned: [AtomicU64; BYTES / GRANULE / 64],
        held: [(AtomicPtr<u8>, AtomicUsize); HELD],
        count: AtomicUsize,
        /// Whether it waits until the CPU is claimed: else it would do for itself what is to be interrupted, for
        /// instance fill the pool.
        inside: AtomicBool,
        steps: AtomicUsize,
        nested: AtomicUsize,
        blocked: AtomicUsize,
        /// Granules that had two owners, and frees that were refused: none, unless the platform is broken.
        corrupted: AtomicUsize,
    }

    impl Events {
        const fn new() -> Self {
            Self {
                start: AtomicUsize::new(0),
                owned: [const { AtomicU64::new(0) }; BYTES / GRANULE / 64],
                held: [const { (AtomicPtr::new(core::ptr::null_mut()), AtomicUsize::new(0)) }; HELD],
                count: AtomicUsize::new(0),
                inside: AtomicBool::new(false),
                steps: AtomicUsize::new(0),
                nested: AtomicUsize::new(0),
                blocked: AtomicUsize::new(0),
                corrupted: AtomicUsize::new(0),
            }
        }

        /// Calls `change` with each word of the bitmap that an object touches, and its bits in there.
        fn words(&self, object: NonNull<u8>, size: usize, mut change: impl FnMut(&AtomicU64, u64)) {
            let first = (object.addr().get() - self.start.load(Relaxed)) / GRANULE;
            let end = first + size.div_ceil(GRANULE);
            let mut next = first;
            while next < end {
                let until = end.min((next / 64 + 1) * 64);
                let bits = u64::MAX >> (64 - (until - next)) << (next % 64);
                change(&self.owned[next / 64], bits);
                next = until;
            }
        }

        /// Makes somebody the owner of an object.
        fn own(&self, object: NonNull<u8>, size: usize) {
            self.words(object, size, |word, bits| {
                let before = word.fetch_or(bits, Relaxed);
                self.corrupted.fetch_add((before & bits).count_ones() as usize, Relaxed);
            });
        }

        /// Takes it away again, before it is freed.
        fn disown(&self, object: NonNull<u8>, size: usize) {
            self.words(object, size, |word, bits| {
                word.fetch_and(!bits, Relaxed);
            });
        }

        fn fault(&self) {
            self.corrupted.fetch_add(1, Relaxed);
        }
    }

    /// How a plain function, as a hook is, finds its subject.
    trait Stepped: 'static {
        type P: Platform;
        type C: Config;
        fn subject() -> &'static Subject<Self::P, Self::C>;
    }

    macro_rules! subject {
        ($name:ident, $platform:ty, $config:ty, $sizes:expr) => {
            struct $name;

            impl Stepped for $name {
                type P = $platform;
                type C = $config;

                fn subject() -> &'static Subject<$platform, $config> {
                    static FRAMES: Frames<'static, $platform, $config> = Frames::new();
                    static SUBJECT: Subject<$platform, $config> =
                        Subject { frames: &FRAMES, heap: Heap::new(&FRAMES), events: Events::new(), sizes: $sizes };
                    &SUBJECT
                }
            }
        };
    }

    const MIXED: &[usize] = &[64, 64, 3000, 64, 100_000, 8, 64, 4096, 32 << 10, 40_000];

    subject!(AtChecked, Bare, Checked, MIXED);
    subject!(AtFast, Bare, Fast, MIXED);
    subject!(Mutant, WithoutBusyByte, Checked, &[64]);
    subject!(DeskMutant, NeverClaimed, Checked, &[64]);

    /// As `Bare`, except that what lies on the desk is not taken away while it is in use.
    struct NeverClaimed;

    static DESKS: [AtomicPtr<()>; Desk::COUNT] = [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT];

    // SAFETY: it breaks the promise that is at stake, with no more harm than below.
    unsafe impl Platform for NeverClaimed {
        type Lock = IrqLock;

        fn enter() -> Option<CpuId> {
            Bare::enter()
        }

        fn leave(cpu: CpuId) {
            Bare::leave(cpu);
        }

        fn context() -> Context {
            Bare::context()
        }

        const HAS_DESKS: bool = true;

        fn take_desk<const WHICH: usize>() -> Desk {
            // SAFETY: desks are all that is ever stored there.
            unsafe { Desk::from_ptr(DESKS[WHICH].load(Relaxed)) }
        }

        unsafe fn set_desk<const WHICH: usize>(desk: Desk) {
            DESKS[WHICH].store(desk.as_ptr(), Relaxed);
        }
    }

    /// As `Bare`, except that who interrupted the allocator is told that nobody is in it.
    struct WithoutBusyByte;

    // SAFETY: it breaks the promise that is at stake, in a kernel of one CPU whose objects nobody writes to: what gets
    // lost are numbers in atomics, so that the worst that can follow is a wrong number.
    unsafe impl Platform for WithoutBusyByte {
        type Lock = IrqLock;

        fn enter() -> Option<CpuId> {
            Some(CpuId::new(0))
        }

        fn leave(_: CpuId) {}

        fn context() -> Context {
            Bare::context()
        }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    /// What the handler does at each step: it gets objects, holds them for some steps, and frees them in another order,
    /// so that whatever it interrupted finds more, fewer, or other objects than before.
    fn step<S: Stepped>(_: &mut TrapFrame) {
        let Subject { heap, events, sizes, .. } = S::subject();
        let outside = events.inside.load(Relaxed) && S::P::pin().is_some();
        // Once something is broken, there is no telling what else happens: it may even wait for itself.
        if outside || events.corrupted.load(Relaxed) != 0 {
            return;
        }
        let step = events.steps.load(Relaxed);
        events.steps.store(step + 1, Relaxed);
        let count = events.count.load(Relaxed);
        // Two more, one less, one more, two less.
        if matches!(step % 6, 0 | 1 | 3) && count < HELD {
            let size = sizes[(step / 6 + step / 77) % sizes.len()];
            match heap.alloc(layout(size)) {
                Ok(object) => {
                    events.own(object, size);
                    events.held[count].0.store(object.as_ptr(), Relaxed);
                    events.held[count].1.store(size, Relaxed);
                    events.count.store(count + 1, Relaxed);
                    events.nested.fetch_add(1, Relaxed);
                }
                Err(AllocError::WouldBlock) => {
                    events.blocked.fetch_add(1, Relaxed);
                }
                Err(error) => panic!("at step {step}: {error}"),
            }
        } else if count > 0 {
            release::<S>(step % count);
        }
    }

    /// Frees an object that the handler holds.
    fn release<S: Stepped>(index: usize) {
        let events = &S::subject().events;
        let last = events.count.load(Relaxed) - 1;
        let held = |index: usize| (events.held[index].0.load(Relaxed), events.held[index].1.load(Relaxed));
        let ((object, size), moved) = (held(index), held(last));
        events.held[index].0.store(moved.0, Relaxed);
        events.held[index].1.store(moved.1, Relaxed);
        events.count.store(last, Relaxed);
        free::<S>(NonNull::new(object).expect("an object"), size);
    }

    /// Runs `work` one instruction at a time.
    fn stepped<S: Stepped, R>(work: impl FnOnce(&'static Heap<'static, S::P, S::C>) -> R) -> R {
        let heap = &S::subject().heap;
        idt::hook(idt::DEBUG, Some(step::<S>));
        let result = cpu::single_step(|| work(heap));
        idt::hook(idt::DEBUG, None);
        result
    }

    /// An object of this size, got step by step.
    fn stepped_alloc<S: Stepped>(size: usize) -> NonNull<u8> {
        let object = stepped::<S, _>(|heap| heap.alloc(layout(size))).expect("an object");
        S::subject().events.own(object, size);
        object
    }

    /// Frees it step by step.
    fn stepped_free<S: Stepped>(object: NonNull<u8>, size: usize) {
        let events = &S::subject().events;
        events.disown(object, size);
        // SAFETY: lent for that layout, and not used any more; on a broken platform it may be refused.
        if stepped::<S, _>(|heap| unsafe { heap.free(object, layout(size)) }).is_err() {
            events.fault();
        }
    }

    /// An object, got at once.
    fn alloc<S: Stepped>(size: usize) -> NonNull<u8> {
        let object = S::subject().heap.alloc(layout(size)).expect("an object");
        S::subject().events.own(object, size);
        object
    }

    /// Frees it at once.
    fn free<S: Stepped>(object: NonNull<u8>, size: usize) {
        let Subject { heap, events, .. } = S::subject();
        events.disown(object, size);
        // SAFETY: as in `stepped_free`.
        if unsafe { heap.free(object, layout(size)) }.is_err() {
            events.fault();
        }
    }

    fn init<S: Stepped>() {
        let Subject { frames, heap, events, .. } = S::subject();
        if events.start.load(Relaxed) != 0 {
            // Of the instances on one platform, the one under test lies on the desks.
            assert!(frames.settle() && heap.settle());
            return;
        }
        let early = |bytes: usize, align| {
            physical::alloc(bytes as u64, align, PhysRange::ALL, Owner::Metadata).expect("room")
        };
        let metadata = |bytes| Metadata::new(early(bytes, 4096).into_bytes());
        let memory = early(BYTES, BYTES as u64).range();
        let span = FrameSpan::new(Pfn::new((memory.start() / 4096) as usize), FrameCount::new(FRAMES)).unwrap();
        frames.init(span, 1, 1, metadata(Frames::<S::P, S::C>::base_metadata_size(span, 1, 1))).unwrap();
        let described = metadata(Frames::<S::P, S::C>::memory_metadata_size(span));
        frames.add_memory(NodeId::ZERO, ZoneKind::Normal, span, &[], described).unwrap();
        let described = metadata(Heap::<S::P, S::C>::metadata_size(span, 1, 1));
        // SAFETY: the frames are early memory that was given out for them, and seen in the window.
        unsafe { heap.init(physical::pointer(0), span, 1, 1, described) }.unwrap();
        events.start.store(physical::pointer(memory.start()).addr(), Relaxed);
        frames.settle();
        heap.settle();
    }

    /// What is wrong after everything was given back.
    fn aftermath<S: Stepped>() -> Option<&'static str> {
        let Subject { frames, heap, events, .. } = S::subject();
        while events.count.load(Relaxed) > 0 {
            release::<S>(0);
        }
        if events.corrupted.load(Relaxed) != 0 {
            return Some("two owners, or a refused free");
        }
        heap.drain();
        let Ok(census) = heap.validate() else { return Some("not valid") };
        let described = census.descriptor_bytes / 4096;
        if frames.validate().is_err() {
            Some("frames are not valid")
        } else if census.lent() != 0 {
            Some("objects are missing")
        } else if frames.census().available() + described != FRAMES {
            Some("frames are missing")
        } else {
            None
        }
    }

    /// Runs a path, interrupted everywhere and interrupted only where the CPU is claimed, and asserts that nothing is
    /// wrong after it.
    fn check<S: Stepped>(path: fn()) {
        init::<S>();
        let events = &S::subject().events;
        for inside in [false, true] {
            events.inside.store(inside, Relaxed);
            let counters = [&events.steps, &events.nested, &events.blocked];
            counters.iter().for_each(|counter| counter.store(0, Relaxed));
            path();
            let [steps, nested, blocked] = counters.map(|counter| counter.load(Relaxed));
            assert_eq!(aftermath::<S>(), None);
            assert!(nested > 0 && nested + blocked >= steps / 4, "{steps} steps, {nested} allocations, {blocked} not");
            print!("({steps} {nested} {blocked}) ");
        }
    }

    macro_rules! at_both_levels {
        ($test:ident, $path:ident) => {
            fn $test() {
                check::<AtChecked>($path::<AtChecked>);
                check::<AtFast>($path::<AtFast>);
            }
        };
    }

    at_both_levels!(pairs_from_the_pool, pairs);
    at_both_levels!(refills, refill);
    at_both_levels!(spills, spill);
    at_both_levels!(growth_and_release, growth);
    at_both_levels!(large_objects, large);
    at_both_levels!(objects_that_grow, moves);
    at_both_levels!(a_drain, drain);

    fn pairs<S: Stepped>() {
        // So many that neither the pair nor the handler finds the pool empty or full.
        let lent = [(); 64].map(|()| alloc::<S>(64));
        let (freed, kept) = lent.split_at(32);
        freed.iter().for_each(|&object| free::<S>(object, 64));
        for _ in 0..8 {
            let object = stepped_alloc::<S>(64);
            stepped_free::<S>(object, 64);
        }
        kept.iter().for_each(|&object| free::<S>(object, 64));
    }

    fn refill<S: Stepped>() {
        for size in [64, 8, 3000] {
            S::subject().heap.drain();
            // The slab is there, and the pool is empty; then the depot has some.
            let first = alloc::<S>(size);
            S::subject().heap.drain();
            let object = stepped_alloc::<S>(size);
            stepped_free::<S>(object, size);
            free::<S>(first, size);
        }
    }

    fn spill<S: Stepped>() {
        for size in [64, 4096] {
            let lent = [(); 40].map(|()| alloc::<S>(size));
            // The pool is full now and then; what it holds goes to the depot, and on to the slabs when that is full.
            for (index, object) in lent.into_iter().enumerate() {
                if matches!(index, 20..26 | 36..) { stepped_free::<S>(object, size) } else { free::<S>(object, size) }
            }
            let lent = [(); 12].map(|()| stepped_alloc::<S>(size));
            lent.into_iter().for_each(|object| free::<S>(object, size));
        }
    }

    fn growth<S: Stepped>() {
        for size in [20 << 10, 500] {
            S::subject().heap.drain();
            // No slab is there, and none when this is over.
            let lent = [(); 3].map(|()| stepped_alloc::<S>(size));
            lent.into_iter().for_each(|object| stepped_free::<S>(object, size));
            stepped::<S, _>(Heap::trim);
        }
    }

    fn large<S: Stepped>() {
        for size in [64 << 10, 90_000, 2 << 20] {
            let object = stepped_alloc::<S>(size);
            stepped_free::<S>(object, size);
        }
    }

    fn moves<S: Stepped>() {
        let events = &S::subject().events;
        for (before, after) in [(60, 64), (60, 700), (40_000, 40_900), (33_000, 36_000), (70_000, 300)] {
            let object = alloc::<S>(before);
            events.disown(object, before);
            // SAFETY: lent for that layout, and used by its new address alone.
            let moved = stepped::<S, _>(|heap| unsafe { heap.realloc(object, layout(before), after) });
            let moved = moved.expect("there is memory");
            events.own(moved, after);
            free::<S>(moved, after);
        }
        let zeroed = stepped::<S, _>(|heap| heap.alloc_zeroed(layout(400))).expect("there is memory");
        events.own(zeroed, 400);
        free::<S>(zeroed, 400);
    }

    fn drain<S: Stepped>() {
        let lent = [64, 64, 64, 3000, 8, 32 << 10, 90_000].map(|size| (alloc::<S>(size), size));
        lent.into_iter().for_each(|(object, size)| free::<S>(object, size));
        stepped::<S, _>(Heap::drain_cpu);
        let lent = [(); 10].map(|()| alloc::<S>(64));
        lent.into_iter().for_each(|object| free::<S>(object, 64));
        stepped::<S, _>(Heap::drain);
        stepped::<S, _>(Heap::poll);
        assert!(stepped::<S, _>(Heap::settle));
    }

    fn without_the_busy_byte_it_is_caught() {
        caught::<Mutant>();
    }

    fn with_a_desk_that_is_never_claimed_it_is_caught() {
        caught::<DeskMutant>();
    }

    fn caught<S: Stepped>() {
        init::<S>();
        pairs::<S>();
        let found = aftermath::<S>();
        let steps = S::subject().events.steps.load(Relaxed);
        let found = found.expect("a platform that claims nothing passed");
        print!("({found}: after {steps} steps) ");
    }
}
