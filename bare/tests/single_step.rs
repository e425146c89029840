//! An interrupt at every instruction: each path of the allocator is run one instruction at a time, and the handler of
//! the debug exception allocates and frees at each of them, in every phase of what it interrupted. No frame may have
//! two owners, nothing may get lost. A platform that does not mark what is claimed must be caught at that.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 64M timeout=120");

pagemill_bare::kernel! {
    tests: [
        pairs_from_the_pool,
        a_refill,
        a_flush_of_the_return_buffer,
        a_drain,
        stacks_of_blocks,
        ranges,
        a_reservation,
        without_the_busy_byte_it_is_caught,
        with_a_desk_that_is_never_claimed_it_is_caught,
    ];

    use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::Relaxed};

    use pagemill::{
        AllocError, AllocFlags, Block, Checked, Config, Context, CpuId, Desk, Fast, FrameCount, FrameRange, FrameSpan, Frames,
        Metadata, NodeId, Order, Pfn, Platform, Request, ZoneKind,
    };
    use pagemill_bare::early::Owner;
    use pagemill_bare::idt::{self, TrapFrame};
    use pagemill_bare::memory_map::PhysRange;
    use pagemill_bare::percpu::{Bare, IrqLock};
    use pagemill_bare::{cpu, physical, print};

    const FRAMES: usize = 1 << 14;
    /// No memory is behind these frames: core never touches what it lends.
    const SPAN: FrameSpan = match FrameSpan::new(Pfn::new(1 << 20), FrameCount::new(FRAMES)) {
        Ok(span) => span,
        Err(_) => panic!("a span"),
    };
    /// The most blocks that the handler holds.
    const HELD: usize = 4;

    /// An instance, and what happens around it.
    struct Subject<P: Platform, C: Config> {
        frames: Frames<'static, P, C>,
        events: Events,
        /// Orders of the handler's blocks, in turn.
        orders: &'static [u32],
    }

    /// Everything the handler knows. It does not interrupt itself, so plain loads and stores do.
    struct Events {
        /// A bit for each frame that somebody holds.
        owned: [AtomicU64; FRAMES / 64],
        held: [AtomicU64; HELD],
        count: AtomicUsize,
        /// Whether it waits until the CPU is claimed: else it would do for itself what is to be interrupted, for
        /// instance fill the pool.
        inside: AtomicBool,
        steps: AtomicUsize,
        nested: AtomicUsize,
        blocked: AtomicUsize,
        /// Frames that had two owners, and frees that were refused: none, unless the platform is broken.
        corrupted: AtomicUsize,
    }

    impl Events {
        const fn new() -> Self {
            Self {
                owned: [const { AtomicU64::new(0) }; FRAMES / 64],
                held: [const { AtomicU64::new(0) }; HELD],
                count: AtomicUsize::new(0),
                inside: AtomicBool::new(false),
                steps: AtomicUsize::new(0),
                nested: AtomicUsize::new(0),
                blocked: AtomicUsize::new(0),
                corrupted: AtomicUsize::new(0),
            }
        }

        /// Makes somebody the owner of these frames.
        fn own(&self, head: Pfn, count: usize) {
            for index in (head - SPAN.start()).get()..(head - SPAN.start()).get() + count {
                let before = self.owned[index / 64].fetch_or(1 << (index % 64), Relaxed);
                self.corrupted.fetch_add((before >> (index % 64) & 1) as usize, Relaxed);
            }
        }

        /// Takes them away again, before they are freed.
        fn disown(&self, head: Pfn, count: usize) {
            for index in (head - SPAN.start()).get()..(head - SPAN.start()).get() + count {
                self.owned[index / 64].fetch_and(!(1 << (index % 64)), Relaxed);
            }
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
        ($name:ident, $platform:ty, $config:ty, $orders:expr) => {
            struct $name;

            impl Stepped for $name {
                type P = $platform;
                type C = $config;

                fn subject() -> &'static Subject<$platform, $config> {
                    static SUBJECT: Subject<$platform, $config> =
                        Subject { frames: Frames::new(), events: Events::new(), orders: $orders };
                    &SUBJECT
                }
            }
        };
    }

    subject!(AtChecked, Bare, Checked, &[0, 0, 3, 0, 1, 0, 9]);
    subject!(AtFast, Bare, Fast, &[0, 0, 3, 0, 1, 0, 9]);
    subject!(Mutant, WithoutBusyByte, Checked, &[0]);
    subject!(DeskMutant, NeverClaimed, Checked, &[0]);

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

    // SAFETY: it breaks the promise that is at stake, in a kernel of one CPU whose frames have no memory behind them:
    // what gets lost are numbers in atomics, so that the worst that can follow is a wrong number.
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

    /// What the handler does at each step: it gets blocks, holds them for some steps, and frees them in another order,
    /// so that whatever it interrupted finds more, fewer, or other frames than before.
    fn step<S: Stepped>(_: &mut TrapFrame) {
        let Subject { frames, events, orders } = S::subject();
        let outside = events.inside.load(Relaxed) && S::P::pin().is_some();
        // Once something is broken, there is no telling what else happens: it may even wait for itself.
        if outside || events.corrupted.load(Relaxed) != 0 {
            return;
        }
        let step = events.steps.load(Relaxed);
        events.steps.store(step + 1, Relaxed);
        let count = events.count.load(Relaxed);
        // Two more, one less, one more, two less.
        if matches!(step % 6, 0 | 1 | 3) {
            let order = Order::new(orders[step / 6 % orders.len()]).unwrap();
            let flags = if step % 5 == 0 { AllocFlags::MOVABLE } else { AllocFlags::empty() };
            match frames.alloc(order, flags) {
                Ok(block) => {
                    let (head, order) = block.into_raw();
                    events.own(head, order.frames());
                    events.held[count].store((head.number() as u64) << 5 | order.index() as u64, Relaxed);
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

    /// Frees a block that the handler holds.
    fn release<S: Stepped>(index: usize) {
        let Subject { frames, events, .. } = S::subject();
        let last = events.count.load(Relaxed) - 1;
        let word = events.held[index].load(Relaxed);
        events.held[index].store(events.held[last].load(Relaxed), Relaxed);
        events.count.store(last, Relaxed);
        let order = Order::new((word & 31) as u32).unwrap();
        let block = Block::from_raw(Pfn::new((word >> 5) as usize), order).unwrap();
        events.disown(block.head(), order.frames());
        if frames.free(block).is_err() {
            events.fault();
        }
    }

    /// Runs `work` one instruction at a time.
    fn stepped<S: Stepped, R>(work: impl FnOnce(&'static Frames<'static, S::P, S::C>) -> R) -> R {
        let frames = &S::subject().frames;
        idt::hook(idt::DEBUG, Some(step::<S>));
        let result = cpu::single_step(|| work(frames));
        idt::hook(idt::DEBUG, None);
        result
    }

    /// A block of this order, got step by step.
    fn stepped_alloc<S: Stepped>(order: u32) -> Block {
        let block = stepped::<S, _>(|frames| frames.alloc(Order::new(order).unwrap(), AllocFlags::empty()));
        let block = block.expect("a block");
        S::subject().events.own(block.head(), block.order().frames());
        block
    }

    /// Frees it step by step.
    fn stepped_free<S: Stepped>(block: Block) {
        let events = &S::subject().events;
        events.disown(block.head(), block.order().frames());
        if stepped::<S, _>(|frames| frames.free(block)).is_err() {
            events.fault();
        }
    }

    /// A block, got at once.
    fn alloc<S: Stepped>(order: u32) -> Block {
        let block = S::subject().frames.alloc(Order::new(order).unwrap(), AllocFlags::empty()).expect("a block");
        S::subject().events.own(block.head(), block.order().frames());
        block
    }

    /// Frees it at once.
    fn free<S: Stepped>(block: Block) {
        S::subject().events.disown(block.head(), block.order().frames());
        S::subject().frames.free(block).expect("lent");
    }

    fn init<S: Stepped>() {
        let frames = &S::subject().frames;
        if frames.cpu_count() != 0 {
            // Of the instances on one platform, the one under test lies on the desk.
            frames.settle();
            return;
        }
        let bytes = Frames::<S::P, S::C>::metadata_size(SPAN, 1, 1);
        let base = Frames::<S::P, S::C>::base_metadata_size(SPAN, 1, 1);
        let block = physical::alloc(bytes as u64, 4096, PhysRange::ALL, Owner::Metadata).expect("room");
        let (base, rest) = Metadata::new(block.into_bytes()).split_at(base).ok().expect("enough");
        frames.init(SPAN, 1, 1, base).unwrap();
        frames.add_memory(NodeId::ZERO, ZoneKind::Normal, SPAN, &[], rest).unwrap();
        frames.settle();
    }

    /// What is wrong after everything was given back.
    fn aftermath<S: Stepped>() -> Option<&'static str> {
        let Subject { frames, events, .. } = S::subject();
        while events.count.load(Relaxed) > 0 {
            release::<S>(0);
        }
        frames.drain();
        let census = frames.census();
        let zone = frames.zone_infos().next().expect("a zone");
        if events.corrupted.load(Relaxed) != 0 {
            Some("two owners, or a refused free")
        } else if frames.validate().is_err() {
            Some("not valid")
        } else if census.free != FRAMES || zone.free != FRAMES {
            Some("frames are missing")
        } else if zone.blocks[14] != 1 {
            Some("frames have not coalesced")
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
            assert!(nested > 0 && nested + blocked >= steps / 3, "{steps} steps, {nested} allocations, {blocked} not");
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
    at_both_levels!(a_refill, refill);
    at_both_levels!(a_flush_of_the_return_buffer, flush);
    at_both_levels!(a_drain, drain);
    at_both_levels!(stacks_of_blocks, blocks);
    at_both_levels!(ranges, any_counts);
    at_both_levels!(a_reservation, reservation);

    fn pairs<S: Stepped>() {
        free::<S>(alloc::<S>(0));
        for _ in 0..8 {
            let block = stepped_alloc::<S>(0);
            stepped_free::<S>(block);
        }
    }

    fn refill<S: Stepped>() {
        S::subject().frames.drain();
        let block = stepped_alloc::<S>(0);
        stepped_free::<S>(block);
    }

    fn flush<S: Stepped>() {
        // Frames of sparse trees, each in a row of its own. The buffer has room for 32 rows: the last frees empty it.
        const ROWS: usize = 40;
        for index in 1..=ROWS {
            let pfn = Pfn::new(SPAN.start().number() + index * FRAMES / (ROWS + 1));
            let named = FrameSpan::new(pfn, FrameCount::new(1)).unwrap();
            // The handler may hold just this one.
            let Ok(range) = S::subject().frames.alloc_at(named) else { continue };
            S::subject().events.own(pfn, 1);
            let block = Block::from_raw(range.into_raw().start(), Order::ZERO).unwrap();
            if index < 31 { free::<S>(block) } else { stepped_free::<S>(block) }
        }
    }

    fn drain<S: Stepped>() {
        let lent = [0, 0, 0, 1, 2, 3, 9].map(alloc::<S>);
        lent.into_iter().for_each(free::<S>);
        stepped::<S, _>(|frames| frames.drain());
    }

    fn blocks<S: Stepped>() {
        for order in [3, 9, 5] {
            S::subject().frames.drain();
            // From the trees, then from the stack; to the stack, then, when it is full, half of it to the trees.
            let mut lent = [const { None }; 12];
            for place in &mut lent {
                *place = Some(alloc::<S>(order));
            }
            for place in [0, 7] {
                lent[place].take().into_iter().for_each(free::<S>);
                lent[place] = Some(stepped_alloc::<S>(order));
            }
            for (index, block) in lent.into_iter().flatten().enumerate() {
                if matches!(index, 2..8) { free::<S>(block) } else { stepped_free::<S>(block) }
            }
        }
    }

    fn any_counts<S: Stepped>() {
        let events = &S::subject().events;
        for count in [37, 140] {
            let request = Request::frames(FrameCount::new(count)).aligned(8);
            let range = stepped::<S, _>(|frames| frames.alloc_range(&request)).expect("frames");
            let span = range.into_raw();
            events.own(span.start(), count);
            let (first, rest) = FrameRange::from_raw(span).split_at(FrameCount::new(count / 3)).expect("two parts");
            events.disown(span.start(), count);
            stepped::<S, _>(|frames| frames.free_range(rest)).expect("lent");
            stepped::<S, _>(|frames| frames.free_range(first)).expect("lent");
        }
        // By name: what the handler holds of it just then is not to be had.
        let span = FrameSpan::new(Pfn::new(SPAN.start().number() + FRAMES / 2 + 3), FrameCount::new(21)).unwrap();
        if let Ok(range) = stepped::<S, _>(|frames| frames.alloc_at(span)) {
            events.own(span.start(), 21);
            events.disown(span.start(), 21);
            stepped::<S, _>(|frames| frames.free_range(range)).expect("lent");
        }
    }

    fn reservation<S: Stepped>() {
        let span = FrameSpan::new(Pfn::new(SPAN.start().number() + FRAMES / 2), FrameCount::new(90)).unwrap();
        if stepped::<S, _>(|frames| frames.reserve(span)).is_ok() {
            stepped::<S, _>(|frames| frames.release(span)).expect("reserved");
        }
        if stepped::<S, _>(|frames| frames.offline(span)).is_ok() {
            stepped::<S, _>(|frames| frames.online(span)).expect("offline");
        } else {
            // What was on its way out comes back too.
            let _ = stepped::<S, _>(|frames| frames.online(span));
        }
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
