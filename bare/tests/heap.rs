//! The heap as the global allocator of a machine of four CPUs and two nodes: collections, handlers that allocate,
//! growth, exhaustion, wrong frees. After each test the heap adds up, and every frame is where it was.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-smp 4,maxcpus=16 -m 64M -numa node,nodeid=0,cpus=0-1,cpus=4-9,memdev=m0 -numa node,nodeid=1,cpus=2-3,cpus=10-15,memdev=m1 \
     -object memory-backend-ram,id=m0,size=32772K -object memory-backend-ram,id=m1,size=32764K \
     timeout=180 full: -smp 16 timeout=900"
);

pagemill_bare::kernel! {
    tests: [
        nothing_before_init,
        too_little_metadata,
        a_second_init,
        collections_on_all_cpus,
        collections_dropped_on_other_cpus,
        objects_change_hands,
        handlers_allocate,
        growth_and_return,
        large_objects,
        zeroed_and_moved,
        alignments,
        exhaustion_and_recovery,
        no_memory_in_handlers,
        wrong_frees_are_told_apart,
        hardened_beside_it,
        a_wrong_free_is_a_panic,
    ];

    extern crate alloc;

    #[path = "../../tests/src/collections.rs"]
    mod collections;
    #[path = "common/hardened.rs"]
    mod hardened;
    #[path = "common/objects.rs"]
    mod objects;
    #[path = "common/world.rs"]
    mod world;

    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use core::alloc::{GlobalAlloc, Layout};
    use core::hint::spin_loop;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

    use collections::Collections;
    use objects::{Object, Places, Rest, layout};
    use pagemill::{
        AllocError, AllocFlags, BadFreeKind, Fast, FrameCount, FrameSpan, Frames, Heap, Metadata, Order, Pfn, Request,
        SetupError, SizeClass,
    };
    use pagemill_bare::frames::{self, FRAMES};
    use pagemill_bare::heap::{self, Global, HEAP};
    use pagemill_bare::idt::{self, TrapFrame};
    use pagemill_bare::percpu::{self, Bare};
    use pagemill_bare::topology::MAX_CPUS;
    use pagemill_bare::{apic, boot_heap, harness, physical, print, smp};
    use pagemill_tests::Rng;
    use spin::{Mutex, Once};

    #[global_allocator]
    static GLOBAL: Global = Global;

    const WORDS: Layout = Layout::new::<[u64; 8]>();

    fn hardened_beside_it() {
        let rest = rest();
        hardened::with_heap(|| {
            hardened::churn(effort(2000));
            hardened::mistakes();
        });
        rest.assert_again();
    }

    /// The machine with a heap, at rest.
    fn rest() -> Rest {
        static BEGUN: Once<()> = Once::new();
        BEGUN.call_once(|| {
            let handover = frames::init();
            assert_eq!((handover.left_out, handover.problems), (0, 0));
            assert_eq!(heap::init(), Ok(()));
        });
        Rest::now()
    }

    /// More in long runs, less where each step is slow.
    fn effort(steps: usize) -> usize {
        steps * if harness::is_full() { 16 } else { 1 } / if cfg!(debug_assertions) { 2 } else { 1 }
    }

    fn nothing_before_init() {
        assert_eq!(HEAP.alloc(WORDS), Err(AllocError::NotReady));
        // SAFETY: the layout has a size.
        assert!(unsafe { Global.alloc(WORDS) }.is_null());
        // SAFETY: as above.
        assert!(unsafe { Global.alloc_zeroed(Layout::new::<[u64; 99_999]>()) }.is_null());
        assert!(Vec::<u8>::new().try_reserve(1).is_err());
        let mut word = 0u64;
        // SAFETY: no object of any heap: it is refused.
        let refused = unsafe { HEAP.free(NonNull::from(&mut word).cast(), Layout::new::<u64>()) };
        assert_eq!(refused.map_err(|fault| fault.kind), Err(BadFreeKind::Foreign));
        assert!(!HEAP.settle());
        HEAP.poll();
        HEAP.drain();
        assert_eq!(HEAP.validate().map(|census| census.lent()), Ok(0));
        assert!(matches!(heap::init(), Err(SetupError::MetadataTooSmall { .. })), "there are no frames yet");
    }

    fn too_little_metadata() {
        static BARREN: Frames<'static, Bare, Fast> = Frames::new();
        static TOO_SMALL: Heap<'static, Bare, Fast> = Heap::new(&BARREN);
        rest();
        let span = FrameSpan::new(Pfn::new(0), FrameCount::new(1 << 18)).expect("a span");
        let needed_bytes = Heap::<Bare, Fast>::metadata_size(span, 4, 2);
        let bytes = Box::leak(Box::new_uninit_slice(4096));
        // SAFETY: it fails before it looks at any frame.
        let result = unsafe { TOO_SMALL.init(core::ptr::null_mut(), span, 4, 2, Metadata::new(bytes)) };
        assert_eq!(result, Err(SetupError::MetadataTooSmall { needed_bytes }));
        assert_eq!(TOO_SMALL.alloc(WORDS), Err(AllocError::NotReady));
    }

    fn a_second_init() {
        let rest = rest();
        let kept = Box::new(7);
        assert_eq!(heap::init(), Err(SetupError::State));
        let span = frames::span().expect("memory");
        // SAFETY: it fails before it looks at any frame.
        let result = unsafe { HEAP.init(core::ptr::null_mut(), span, 1, 1, Metadata::new(&mut [])) };
        assert_eq!(result, Err(SetupError::State));
        assert_eq!(*kept, 7);
        drop(kept);
        rest.assert_again();
    }

    fn collections_on_all_cpus() {
        let rest = rest();
        smp::on_all(&|cpu| {
            let mut collections = Collections::new();
            collections.work(&mut Rng::new(u64::from(cpu)), effort(6000));
        });
        rest.assert_again();
    }

    fn collections_dropped_on_other_cpus() {
        static KEPT: [Mutex<Option<Collections>>; MAX_CPUS] = [const { Mutex::new(None) }; MAX_CPUS];
        let rest = rest();
        let cpus = percpu::online();
        for round in 0..4 {
            smp::on_all(&|cpu| {
                // What the neighbour has built, and built on others' work before.
                let place = ((cpu + round) % cpus) as usize;
                let mut collections = KEPT[place].lock().take().unwrap_or_else(Collections::new);
                collections.assert_whole();
                collections.work(&mut Rng::new(u64::from(round << 8 | cpu)), effort(1500));
                *KEPT[place].lock() = Some(collections);
            });
        }
        smp::on_all(&|cpu| drop(KEPT[((cpu + 1) % cpus) as usize].lock().take()));
        rest.assert_again();
    }

    fn objects_change_hands() {
        static PLACES: Places<512> = Places::new();
        let rest = rest();
        let served = AtomicUsize::new(0);
        smp::on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            for _ in 0..effort(8000) {
                step(&PLACES, &mut rng);
                served.fetch_add(1, Relaxed);
            }
        });
        let parts = percpu::online() as usize;
        smp::on_all(&|cpu| PLACES.empty(cpu as usize, parts));
        rest.assert_again();
    }

    /// Leaves an object somewhere, or none, and frees what lay there.
    fn step<const N: usize>(places: &Places<N>, rng: &mut Rng) {
        let wanted = rng.below(3) != 0;
        let object = wanted.then(|| Object::new(layout(rng), rng.below(256) as u8)).flatten();
        // A handler that interrupted a request may find the locks held and no place, so nothing here is an abort.
        let boxed = object.and_then(|object| Some(Box::write(Object::place()?, object)));
        places.swap(rng.below(N), boxed);
    }

    /// Allocations and frees of the handlers that ran.
    static IN_HANDLERS: AtomicUsize = AtomicUsize::new(0);

    fn handlers_allocate() {
        static PLACES: Places<256> = Places::new();
        fn handle(frame: &mut TrapFrame) {
            let turn = IN_HANDLERS.fetch_add(1, Relaxed) as u64;
            let mut rng = Rng::new(turn ^ frame.rip);
            step(&PLACES, &mut rng);
            // Something short-lived as well, in the collections' own way.
            let mut queue: VecDeque<u64> = VecDeque::new();
            if queue.try_reserve(1 + rng.below(40)).is_ok() {
                queue.push_back(turn);
            }
        }
        let rest = rest();
        idt::hook(idt::TIMER, Some(handle));
        idt::hook(idt::CALL, Some(handle));
        smp::on_all(&|cpu| {
            apic::start_timer(idt::TIMER, 100_000);
            let mut rng = Rng::new(u64::from(cpu));
            let mut collections = Collections::new();
            for _ in 0..effort(600) {
                collections.work(&mut rng, 8);
                step(&PLACES, &mut rng);
                if rng.below(4) == 0 {
                    smp::send(rng.below(percpu::online() as usize) as u32, idt::CALL);
                }
            }
            apic::stop_timer();
        });
        // The last of them may still be on its way.
        smp::on_all(&|_| (0..1000).for_each(|_| spin_loop()));
        idt::hook(idt::TIMER, None);
        print!("({} handlers allocated) ", IN_HANDLERS.swap(0, Relaxed));
        PLACES.empty(0, 1);
        rest.assert_again();
    }

    /// The list that a CPU holds while it takes all there is.
    type List = Vec<Object>;

    static LISTS: [Mutex<List>; MAX_CPUS] = [const { Mutex::new(List::new()) }; MAX_CPUS];

    fn growth_and_return() {
        let rest = rest();
        let class = SizeClass::of(WORDS).expect("small");
        let before = HEAP.census();
        // In all as many, however many CPUs there are and however long this may take: memory does not grow with them.
        let each = 40_000 / percpu::online() as usize;
        for _ in 0..effort(4) {
            smp::on_all(&|cpu| {
                let list = &mut LISTS[cpu as usize].lock();
                list.extend((0..each).map(|index| Object::new(WORDS, index as u8).expect("there is memory")));
            });
            let count = *HEAP.census().class(class);
            let lent = each * percpu::online() as usize;
            assert!(count.lent() >= lent && count.slabs >= lent / 512, "{count:?}");
            // On other CPUs, the first ones first.
            let cpus = percpu::online() as usize;
            smp::on_all(&|cpu| drop(core::mem::take(&mut *LISTS[(cpu as usize + 1) % cpus].lock())));
            rest.assert_again();
        }
        let after = HEAP.census();
        assert_eq!(after.class(class).slabs, before.class(class).slabs, "slabs go home, too");
    }

    fn large_objects() {
        let rest = rest();
        smp::on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            let mut list: [Option<Object>; 8] = [const { None }; 8];
            for _ in 0..effort(600) {
                let layout = Layout::from_size_align(1 + rng.below(400_000), 1 << rng.below(16)).expect("a layout");
                list[rng.below(8)] = Object::new(layout, rng.below(256) as u8);
            }
        });
        rest.assert_again();
    }

    fn zeroed_and_moved() {
        let rest = rest();
        smp::on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            for _ in 0..effort(300) {
                let length = 1 + rng.below(30_000);
                // Used before, with other bytes.
                drop(alloc::vec![0xa5_u8; length]);
                let zeroed = alloc::vec![0_u8; length];
                assert!(zeroed.iter().all(|&byte| byte == 0));
                let mut numbers = Vec::new();
                numbers.extend(0..rng.below(5000));
                numbers.reserve(rng.below(60_000));
                numbers.truncate(numbers.len() / 2);
                numbers.shrink_to_fit();
                assert!(numbers.iter().enumerate().all(|(index, &number)| index == number));
            }
        });
        rest.assert_again();
    }

    fn alignments() {
        let rest = rest();
        let mut objects = Vec::new();
        for log2 in 0..=21 {
            for size in [1, 100, 5000, 70_000] {
                let layout = Layout::from_size_align(size, 1 << log2).expect("a layout");
                // `new` asserts that it is aligned.
                objects.push(Object::new(layout, log2).expect("there is memory"));
            }
        }
        drop(objects);
        let beyond = Layout::from_size_align(1, 1 << 40).expect("a layout");
        assert!(matches!(HEAP.alloc(beyond), Err(AllocError::Impossible | AllocError::NoMemory)));
        let too_large = Layout::from_size_align(isize::MAX as usize - 100, 1).expect("a layout");
        assert!(matches!(HEAP.alloc(too_large), Err(AllocError::Impossible | AllocError::NoMemory)));
        rest.assert_again();
    }

    /// An object that keeps the one before it: a list that needs nothing but the objects themselves.
    struct Chained {
        before: Option<NonNull<Chained>>,
        layout: Layout,
    }

    /// Takes objects of this layout until there are no more; answers the last, and how many.
    fn take_all(layout: Layout) -> (usize, usize) {
        let (mut last, mut count) = (None, 0);
        // SAFETY: the layout has a size.
        while let Some(place) = NonNull::new(unsafe { Global.alloc(layout) }) {
            let object = place.cast::<Chained>();
            // SAFETY: lent just now, and large and aligned enough.
            unsafe { object.write(Chained { before: last, layout }) };
            (last, count) = (Some(object), count + 1);
        }
        (last.map_or(0, |last| last.as_ptr().expose_provenance()), count)
    }

    /// Frees a chain.
    fn free_all(last: usize) {
        let mut next = NonNull::new(core::ptr::with_exposed_provenance_mut::<Chained>(last));
        while let Some(object) = next {
            // SAFETY: written by `take_all`, and nobody else has the chain.
            let Chained { before, layout } = unsafe { object.read() };
            // SAFETY: lent for this layout, and not used any more.
            unsafe { Global.dealloc(object.cast().as_ptr(), layout) };
            next = before;
        }
    }

    const SIZES: [usize; 5] = [64, 1000, 8000, 32 << 10, 100_000];

    fn exhaustion_and_recovery() {
        let rest = rest();
        let ends = [const { AtomicUsize::new(0) }; MAX_CPUS];
        let cpus = percpu::online() as usize;
        let all = FRAMES.census().available() * 4096;
        // One size on all CPUs, then another on each.
        for round in 0..=SIZES.len() {
            let bytes = AtomicUsize::new(0);
            smp::on_all(&|cpu| {
                let size = SIZES[if round < SIZES.len() { round } else { cpu as usize % SIZES.len() }];
                let layout = Layout::from_size_align(size, 8).expect("a layout");
                let (last, count) = take_all(layout);
                ends[cpu as usize].store(last, Relaxed);
                bytes.fetch_add(count * size, Relaxed);
                assert!(Vec::<u64>::new().try_reserve_exact(1 << 20).is_err());
            });
            let lent = bytes.load(Relaxed);
            // Of the frames of a large object the power of two around them is gone, when others are in between.
            let least = if round == SIZES.len() - 1 { 55 } else { 85 };
            assert!(lent > all / 100 * least, "{lent} of {all} bytes were lent in round {round}");
            HEAP.validate().expect("a heap that adds up");
            smp::on_all(&|cpu| free_all(ends[(cpu as usize + 1) % cpus].swap(0, Relaxed)));
            rest.assert_again();
        }
    }

    fn no_memory_in_handlers() {
        static ENDS: [[AtomicUsize; 2]; MAX_CPUS] = [const { [const { AtomicUsize::new(0) }; 2] }; MAX_CPUS];
        static TURN: AtomicUsize = AtomicUsize::new(0);
        fn handle(vector: usize) {
            let turn = TURN.fetch_add(1, Relaxed);
            let size = SIZES[turn % SIZES.len()];
            // The reserve is a handler's, too, and ends as well.
            let (last, _) = take_all(Layout::from_size_align(size, 8).expect("a layout"));
            assert!(Vec::<u64>::new().try_reserve_exact(1 << 20).is_err());
            free_all(ENDS[percpu::cpu() as usize][vector].swap(last, Relaxed));
        }
        let rest = rest();
        idt::hook(idt::CALL, Some(|_| handle(0)));
        idt::hook(idt::NMI, Some(|_| handle(1)));
        let ends = [const { AtomicUsize::new(0) }; MAX_CPUS];
        smp::on_all(&|cpu| {
            let size = SIZES[(cpu as usize) % SIZES.len()];
            ends[cpu as usize].store(take_all(Layout::from_size_align(size, 8).expect("a layout")).0, Relaxed);
            for other in 0..percpu::online() {
                smp::send(other, idt::CALL);
                smp::send_nmi(other);
                // Meanwhile one who asks is told no, or gets what the other has just freed.
                free_all(take_all(WORDS).0);
            }
        });
        smp::on_all(&|_| (0..1000).for_each(|_| spin_loop()));
        let handled = TURN.load(Relaxed);
        assert!(handled > 0);
        ends.iter().chain(ENDS.iter().flatten()).for_each(|end| free_all(end.swap(0, Relaxed)));
        idt::hook(idt::CALL, None);
        idt::hook(idt::NMI, None);
        print!("({handled} handlers) ");
        rest.assert_again();
    }

    /// Frees what must not be freed so, and answers what the heap says of it.
    fn refused(object: NonNull<u8>, layout: Layout) -> BadFreeKind {
        // SAFETY: nothing of that kind is lent there, so it is refused and changes nothing.
        unsafe { HEAP.free(object, layout) }.expect_err("a wrong free").kind
    }

    fn free(object: NonNull<u8>, layout: Layout) {
        // SAFETY: lent for this layout, and not used any more.
        unsafe { HEAP.free(object, layout) }.expect("lent");
    }

    fn wrong_frees_are_told_apart() {
        let rest = rest();
        heap::only_count_faults(true);
        let before = heap::faults();
        let mut told = 0;
        let mut tell = |object: NonNull<u8>, layout, kinds: &[BadFreeKind]| {
            let kind = refused(object, layout);
            assert!(kinds.contains(&kind), "{kind:?} instead of {kinds:?}");
            told += 1;
        };
        for class in SizeClass::all().step_by(7) {
            let layout = Layout::from_size_align(class.bytes(), 8).expect("a layout");
            let object = HEAP.alloc(layout).expect("there is memory");
            // SAFETY: inside the object.
            tell(unsafe { object.add(class.bytes() / 2) }, layout, &[BadFreeKind::Interior]);
            let other = Layout::from_size_align(class.bytes() * 2, 8).expect("a layout");
            tell(object, other, &[BadFreeKind::WrongClass]);
            free(object, layout);
            // In the pool of this CPU.
            tell(object, layout, &[BadFreeKind::NotLent]);
            let again = HEAP.alloc(layout).expect("there is memory");
            let shared = AtomicPtr::new(again.as_ptr());
            smp::on(percpu::online() - 1, &|_| free(NonNull::new(shared.load(Relaxed)).expect("lent"), layout));
            tell(again, layout, &[BadFreeKind::NotLent]);
        }
        let pinned = HEAP.alloc(WORDS).expect("there is memory");
        let object = HEAP.alloc(WORDS).expect("there is memory");
        free(object, WORDS);
        Rest::now();
        // In its slab, since `pinned` keeps that.
        tell(object, WORDS, &[BadFreeKind::NotLent]);
        free(pinned, WORDS);

        const LARGE: Layout = Layout::new::<[u64; 20_000]>();
        let large = HEAP.alloc(LARGE).expect("there is memory");
        tell(large, Layout::new::<[u64; 30_000]>(), &[BadFreeKind::WrongSize]);
        // SAFETY: inside the object.
        tell(unsafe { large.add(8192) }, LARGE, &[BadFreeKind::Interior, BadFreeKind::Foreign]);
        tell(large, WORDS, &[BadFreeKind::WrongSize, BadFreeKind::WrongClass]);
        free(large, LARGE);
        tell(large, LARGE, &[BadFreeKind::NotLent, BadFreeKind::Foreign]);

        let mut word = 0u64;
        tell(NonNull::from(&mut word).cast(), WORDS, &[BadFreeKind::Foreign]);
        tell(NonNull::dangling(), WORDS, &[BadFreeKind::Foreign]);
        let young = boot_heap::with(|heap| heap.allocate_first_fit(WORDS)).expect("the boot heap has memory");
        // Its frames are managed, and not lent.
        tell(young, WORDS, &[BadFreeKind::Foreign, BadFreeKind::NotLent]);
        // SAFETY: the boot heap's own, from just now.
        boot_heap::with(|heap| unsafe { heap.deallocate(young, WORDS) });
        // Frames that were lent to others than the heap.
        let block = FRAMES.alloc(Order::new(3).expect("an order"), AllocFlags::empty()).expect("a block");
        let at = |head: Pfn| NonNull::new(physical::pointer(head.number() as u64 * 4096)).expect("seen in the window");
        tell(at(block.head()), Layout::new::<[u64; 4096]>(), &[BadFreeKind::Foreign]);
        FRAMES.free(block).expect("lent");
        let range = FRAMES.alloc_range(&Request::frames(FrameCount::new(11))).expect("frames");
        tell(at(range.span().start()), Layout::new::<[u64; 11 * 512]>(), &[BadFreeKind::Foreign]);
        FRAMES.free_range(range).expect("lent");

        assert_eq!(heap::faults() - before, told, "a line for each");
        heap::only_count_faults(false);
        rest.assert_again();
    }

    fn a_wrong_free_is_a_panic() {
        rest();
        harness::expect_panic("is not lent: freed twice, or never allocated");
        let object = Box::into_raw(Box::new([0u64; 8])).cast();
        // SAFETY: lent for this layout.
        unsafe { Global.dealloc(object, WORDS) };
        // SAFETY: refused.
        unsafe { Global.dealloc(object, WORDS) };
    }
}
