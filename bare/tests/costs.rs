//! What requests cost, in instructions: under `-icount shift=0` the time stamp counter counts them, exactly and the
//! same on every run. In release mode the figures are held to their limits; a debug build only prints them.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 64M -icount shift=0,sleep=off");

pagemill_bare::kernel! {
    main: count;

    extern crate alloc;

    #[path = "common/churn.rs"]
    mod churn;
    #[path = "../../tests/src/collections.rs"]
    mod collections;
    #[path = "common/heap_costs.rs"]
    mod heap_costs;
    #[path = "common/listed.rs"]
    mod listed;

    use core::arch::asm;
    use core::hint::black_box;
    use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use pagemill::{
        AllocFlags, Checked, Config, Context, CpuId, Fast, FrameCount, FrameSpan, Frames, FreeError, Metadata,
        NodeId, Order, Pfn, Platform, ZoneKind,
    };
    use pagemill_bare::cpu::{self, Verdict, time_stamp};
    use pagemill_bare::early::Owner;
    use pagemill_bare::memory_map::PhysRange;
    use pagemill_bare::percpu::{Bare, IrqLock};
    use pagemill_bare::{physical, println};

    /// The most instructions that a pair of order 0 at `Fast` may take. The aim is 30.
    const PAIR_LIMIT: u64 = 34;
    /// The most instructions that an object of 64 bytes, lent and freed, may take: at `Fast`, at `Checked`. The aims
    /// are 45 and 80.
    const OBJECT_LIMITS: [u64; 2] = [45, 80];
    const SAMPLES: usize = 1000;
    /// Frames of one run of allocations: long enough for many refills.
    const RUN: usize = 4096;
    const PLAIN: AllocFlags = AllocFlags::empty();

    // No memory is behind these frames: core never touches what it lends.
    const SPAN: FrameSpan = match FrameSpan::new(Pfn::new(1 << 20), FrameCount::new(1 << 17)) {
        Ok(span) => span,
        Err(_) => panic!("a span"),
    };

    static FAST: Frames<'static, Bare, Fast> = Frames::new();
    static CHECKED: Frames<'static, Bare, Checked> = Frames::new();
    static FAST_MASKED: Frames<'static, Masking, Fast> = Frames::new();
    static CHECKED_MASKED: Frames<'static, Masking, Checked> = Frames::new();

    /// The way a CPU is claimed elsewhere: by masking interrupts. It would still need a word for what cannot be masked,
    /// and its first and last instruction take tens of cycles on most CPUs, where a plain move takes one.
    struct Masking;

    static FLAGS: AtomicU64 = AtomicU64::new(0);

    // SAFETY: there is one CPU and no non-maskable interrupt in this kernel, and nothing runs between `enter` and
    // `leave` besides what called them; pins are not nested by core.
    unsafe impl Platform for Masking {
        type Lock = IrqLock;

        #[inline(always)]
        fn enter() -> Option<CpuId> {
            let flags: u64;
            // SAFETY: reads the flags by way of the stack and masks interrupts; `leave` takes it back.
            unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
            FLAGS.store(flags, Relaxed);
            Some(CpuId::new(pagemill_bare::percpu::cpu()))
        }

        #[inline(always)]
        fn leave(_: CpuId) {
            // SAFETY: these flags were the CPU's when `enter` read them.
            unsafe { asm!("push {}", "popfq", in(reg) FLAGS.load(Relaxed)) };
        }

        fn context() -> Context {
            Context::Task
        }
    }

    /// One instance's figures.
    #[derive(Clone, Copy)]
    struct Figures {
        pairs: [u64; 4],
        allocs: u64,
        refill: u64,
        frees_in_order: u64,
        frees_scattered: u64,
    }

    type Row = (&'static str, fn(&Figures) -> u64);

    const ROWS: [Row; 8] = [
        ("pair of order 0, raw", |figures| figures.pairs[0]),
        ("pair of order 0, a Block", |figures| figures.pairs[1]),
        ("pair of order 3", |figures| figures.pairs[2]),
        ("pair of order 9", |figures| figures.pairs[3]),
        ("4096 allocations, each", |figures| figures.allocs),
        ("  the dearest of them", |figures| figures.refill),
        ("4096 frees in order, each", |figures| figures.frees_in_order),
        ("4096 frees scattered, each", |figures| figures.frees_scattered),
    ];

    fn count() {
        give(&FAST);
        give(&CHECKED);
        give(&FAST_MASKED);
        give(&CHECKED_MASKED);
        let by_number = [figures!(FAST), figures!(CHECKED)];
        // Of the instances on one platform, one lies on the CPU's desk.
        let by_desk = [(FAST.settle(), figures!(FAST)).1, (CHECKED.settle(), figures!(CHECKED)).1];
        let figures = [by_desk, by_number, [figures!(FAST_MASKED), figures!(CHECKED_MASKED)]];
        println!("\n{:28}{:>18}{:>18}{:>18}", "instructions, pin included", "pool on the desk", "by CPU number", "irqs masked");
        println!("{:28}{}", "", format_args!("{0:>9}{1:>9}{0:>9}{1:>9}{0:>9}{1:>9}", "Fast", "Checked"));
        for (name, row) in ROWS {
            let [[a, b], [c, d], [e, f]] = figures.each_ref().map(|pair| pair.each_ref().map(row));
            println!("{name:28}{a:>9}{b:>9}{c:>9}{d:>9}{e:>9}{f:>9}");
        }
        for valid in [FAST.validate(), CHECKED.validate(), FAST_MASKED.validate(), CHECKED_MASKED.validate()] {
            assert_eq!(valid, Ok(()));
        }
        let pair = by_desk[0].pairs[0];
        if !cfg!(debug_assertions) {
            assert!(pair <= PAIR_LIMIT, "a pair at Fast takes {pair} instructions, more than {PAIR_LIMIT}");
            println!("a pair of order 0 at Fast takes {pair} instructions, {PAIR_LIMIT} are allowed");
        }
        count_objects();
        cpu::exit(Verdict::Passed)
    }

    #[global_allocator]
    static GLOBAL: heap_costs::Tested = heap_costs::Tested::new();

    fn count_objects() {
        let pairs = heap_costs::count(&GLOBAL).map(|figures| figures.pairs[1]);
        for ((level, pair), limit) in ["Fast", "Checked"].into_iter().zip(pairs).zip(OBJECT_LIMITS) {
            println!("a pair of 64 bytes at {level} takes {pair} instructions, {limit} are allowed");
            assert!(cfg!(debug_assertions) || pair <= limit, "too many");
        }
    }

    /// Gives an instance its frames, with metadata from early memory.
    fn give<P: Platform, C: Config>(frames: &'static Frames<'static, P, C>) {
        let early = |bytes: usize| {
            let block = physical::alloc(bytes as u64, 4096, PhysRange::ALL, Owner::Metadata).expect("room");
            Metadata::new(block.into_bytes())
        };
        frames.init(SPAN, 1, 1, early(Frames::<P, C>::base_metadata_size(SPAN, 1, 1))).unwrap();
        let described = early(Frames::<P, C>::memory_metadata_size(SPAN));
        frames.add_memory(NodeId::ZERO, ZoneKind::Normal, SPAN, &[], described).unwrap();
    }

    /// The figures of one instance. A macro, so that the instance and the order are constants of the code that is
    /// counted, as they are in a kernel.
    macro_rules! figures {
        ($frames:ident) => {{
            let alloc = || $frames.alloc_raw(Order::ZERO, PLAIN).ok();
            let free = |pfn| $frames.free_raw(pfn, FrameCount::new(1));
            let pairs = [
                median(|| alloc().is_some_and(|pfn| free(pfn).is_ok())),
                figures!($frames, 0),
                figures!($frames, 3),
                figures!($frames, 9),
            ];
            run(pairs, alloc, free)
        }};
        ($frames:ident, $order:literal) => {{
            const ORDER: Order = Order::new($order).unwrap();
            median(|| $frames.alloc(ORDER, PLAIN).is_ok_and(|block| $frames.free(block).is_ok()))
        }};
    }
    use figures;

    /// The median of `SAMPLES` runs of `work`, less what it takes to count nothing.
    #[inline(always)]
    pub(crate) fn median(work: impl Fn() -> bool) -> u64 {
        let of = |work: &dyn Fn() -> u64| {
            let mut samples = [0; SAMPLES];
            samples.iter_mut().for_each(|sample| *sample = work());
            samples.sort_unstable();
            samples[SAMPLES / 2]
        };
        let empty = of(&|| counted(|| black_box(true)).1);
        of(&|| counted(|| black_box(work())).1) - empty
    }

    /// What `work` gives, and the instructions it took.
    #[inline(always)]
    pub(crate) fn counted<R>(work: impl FnOnce() -> R) -> (R, u64) {
        let began = time_stamp();
        let result = work();
        (result, time_stamp() - began)
    }

    /// A run of allocations, freed in order, and another, freed in an order that is not theirs.
    #[inline(always)]
    fn run(
        pairs: [u64; 4],
        alloc: impl Fn() -> Option<Pfn>,
        free: impl Fn(Pfn) -> Result<(), FreeError>,
    ) -> Figures {
        let empty = counted(|| ()).1;
        let mut lent = [Pfn::new(0); RUN];
        let mut figures = Figures { pairs, allocs: 0, refill: 0, frees_in_order: 0, frees_scattered: 0 };
        for step in [1, 1663] {
            let mut frees = 0;
            (figures.allocs, figures.refill) = (0, 0);
            for place in &mut lent {
                let (pfn, took) = counted(&alloc);
                figures.allocs += took - empty;
                figures.refill = figures.refill.max(took - empty);
                *place = pfn.expect("a frame");
            }
            for index in 0..RUN {
                let pfn = lent[index * step % RUN];
                let (freed, took) = counted(|| free(pfn));
                assert_eq!(freed, Ok(()));
                frees += took - empty;
            }
            let each = if step == 1 { &mut figures.frees_in_order } else { &mut figures.frees_scattered };
            *each = frees / RUN as u64;
        }
        figures.allocs /= RUN as u64;
        figures
    }
}
