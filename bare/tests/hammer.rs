//! All CPUs at once, on the machine's own memory, with every way to ask and to free; and what the allocator says to
//! those who do it wrong. Four CPUs on two nodes, a third node of memory alone, memory below and above 4 GiB.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-machine max-ram-below-4g=192M -smp 4,maxcpus=16 -m 384M \
     -object memory-backend-ram,id=m0,size=131076K \
     -object memory-backend-ram,id=m1,size=196604K \
     -object memory-backend-ram,id=m2,size=65536K \
     -numa node,nodeid=0,cpus=0-1,cpus=4-9,memdev=m0 \
     -numa node,nodeid=1,cpus=2-3,cpus=10-15,memdev=m1 \
     -numa node,nodeid=2,memdev=m2 \
     -numa dist,src=0,dst=1,val=21 -numa dist,src=1,dst=0,val=21 \
     -numa dist,src=0,dst=2,val=17 -numa dist,src=2,dst=0,val=17 \
     -numa dist,src=1,dst=2,val=28 -numa dist,src=2,dst=1,val=28 \
     timeout=120 full: -smp 16 timeout=900"
);

pagemill_bare::kernel! {
    tests: [
        metadata_lies_on_its_node,
        the_memory_is_there,
        everything_at_once,
        one_nodes_cpus_free_the_others_frames,
        a_node_without_cpus,
        exhaustion_and_recovery,
        wrong_frees_are_told_apart_and_reported,
    ];

    #[path = "common/owners.rs"]
    mod owners;
    #[path = "common/world.rs"]
    mod world;

    use core::sync::atomic::Ordering::Relaxed;
    use owners::{Counter, Exchange, Lent, OWNED, disown, own};
    use pagemill::{
        AllocError, AllocFlags, Block, FrameCount, FrameRange, FrameSpan, FreeError, NodeId, NodeMask, Order, Pfn, Place,
        Policy, Request, ZoneKind,
    };
    use pagemill_bare::early::Owner;
    use pagemill_bare::frames::{self, FRAMES};
    use pagemill_bare::{harness, machine, percpu, physical, print, smp};
    use pagemill_tests::{Home, Rng, settle};
    use world::Machine;

    const PLAIN: AllocFlags = AllocFlags::empty();
    const ONE: FrameCount = FrameCount::new(1);
    const PLACES: usize = 512;

    static EXCHANGE: Exchange<PLACES> = Exchange::new();

    fn home() -> Home {
        let handover = frames::init();
        assert_eq!((handover.left_out, handover.problems, handover.far_metadata), (0, 0, 0));
        Home::of(&Machine, &FRAMES)
    }

    fn node(number: u32) -> NodeId {
        NodeId::new(number).expect("few nodes")
    }

    /// The node whose memory a frame is.
    fn node_of(pfn: Pfn) -> usize {
        let at = pfn.number() as u64 * 4096;
        let memory = machine::get().topology.memory();
        memory.iter().find(|piece| piece.range.start() <= at && at < piece.range.end()).expect("memory").node
    }

    fn metadata_lies_on_its_node() {
        home();
        let mut bytes = [0; 3];
        for taken in physical::reservations().iter().filter(|taken| taken.owner == Owner::Metadata) {
            bytes[node_of(Pfn::new((taken.range.start() / 4096) as usize))] += taken.range.bytes();
        }
        // 35 bits a frame, in whole frames, and what all have in common on the boot CPU's.
        for (node, bytes) in bytes.into_iter().enumerate() {
            let pieces = machine::get().topology.memory().iter().filter(|piece| piece.node == node);
            let present: u64 = pieces.map(|piece| piece.range.bytes()).sum();
            assert!(bytes > present / 4096 * 4 && bytes < present / 500 + (128 << 10), "node {node}: {bytes} bytes");
        }
        let kinds = FRAMES.zone_infos().map(|zone| (zone.node.index(), zone.kind));
        let expected = [
            (0, ZoneKind::Dma),
            (0, ZoneKind::Dma32),
            (1, ZoneKind::Dma32),
            (1, ZoneKind::Normal),
            (2, ZoneKind::Normal),
        ];
        assert!(kinds.eq(expected));
    }

    /// Every frame that can be had is memory, and memory of its own: each gets its number, then all are read. In short
    /// runs only some of them, since the host gives memory to each that is touched.
    fn the_memory_is_there() {
        let home = home();
        let stride = if harness::is_full() { 1 } else { 37 };
        let touched = |pfn: &Pfn| pfn.number().is_multiple_of(stride);
        let word = |pfn: Pfn| physical::pointer(pfn.number() as u64 * 4096).cast::<u64>();
        let mut count = 0;
        while let Ok(pfn) = FRAMES.alloc_raw(Order::ZERO, PLAIN) {
            own(FrameSpan::new(pfn, ONE).expect("a frame"));
            if touched(&pfn) {
                // SAFETY: the frame was lent to us, and all RAM is mapped.
                unsafe { word(pfn).write_volatile(!(pfn.number() as u64)) };
            }
            count += 1;
        }
        assert!(count > 90_000, "{count} frames");
        take_runs(|span| {
            for pfn in (span.start().number()..span.end().number()).map(Pfn::new).filter(touched) {
                // SAFETY: as above.
                let found = unsafe { word(pfn).read_volatile() };
                assert_eq!(found, !(pfn.number() as u64), "{pfn:?} is not memory of its own");
            }
            FRAMES.free_range(FrameRange::from_raw(span)).expect("lent");
        });
        home.assert_again(&Machine, &FRAMES);
    }

    fn everything_at_once() {
        let home = home();
        let steps = if harness::is_full() { 40_000 } else { 3_000 };
        let served = Counter::new();
        smp::on_all(&|cpu| {
            let mut rng = Rng::new(u64::from(cpu));
            for _ in 0..steps {
                let place = rng.below(PLACES);
                let lent = if rng.below(3) == 0 { None } else { ask(&mut rng) };
                served.add(usize::from(lent.is_some()));
                if let Some(lent) = lent {
                    own(lent.span());
                }
                if let Some(lent) = EXCHANGE.swap(place, lent) {
                    give_back(lent, &mut rng);
                }
                if rng.below(16) == 0 {
                    in_bulk(&mut rng);
                }
            }
        });
        free_all();
        home.assert_again(&Machine, &FRAMES);
        print!("({} requests served) ", served.take());
    }

    /// Frames in one of the ways there are.
    fn ask(rng: &mut Rng) -> Option<Lent> {
        let flags = [PLAIN, AllocFlags::MOVABLE, AllocFlags::ATOMIC, AllocFlags::DMA32][rng.below(4)];
        let masks = [NodeMask::ALL, NodeMask::of(node(2)), NodeMask::of(node(0)).with(node(1))];
        let result = match rng.below(8) {
            0 => {
                let policy = match rng.below(3) {
                    0 => Policy::Bind(masks[rng.below(3)]),
                    1 => Policy::Preferred(node(rng.below(3) as u32)),
                    _ => Policy::Interleave(masks[rng.below(3)]),
                };
                let count = FrameCount::new(1 + rng.below(200));
                FRAMES.alloc_range(&Request::frames(count).aligned(1 << rng.below(5)).policy(policy)).map(Lent::range)
            }
            1 => FRAMES.alloc(Order::new(rng.below(11) as u32)?, flags).map(Lent::block),
            _ => FRAMES.alloc(Order::new(rng.below(4) as u32)?, flags).map(Lent::block),
        };
        match result {
            Ok(lent) => Some(lent),
            Err(AllocError::NoMemory) => None,
            Err(error) => panic!("no frames: {error}"),
        }
    }

    /// Frees it as what it is, or in parts.
    fn give_back(lent: Lent, rng: &mut Rng) {
        disown(lent.span());
        let count = lent.span().count().get();
        match lent.into_right() {
            Ok(block) if rng.below(4) != 0 => FRAMES.free(block).expect("lent"),
            _ => {
                let range = FrameRange::from_raw(lent.span());
                match range.split_at(FrameCount::new(rng.below(count))) {
                    Ok((first, rest)) => {
                        FRAMES.free_range(rest).expect("lent");
                        FRAMES.free_range(first).expect("lent");
                    }
                    Err(whole) => FRAMES.free_range(whole).expect("lent"),
                }
            }
        }
    }

    fn in_bulk(rng: &mut Rng) {
        let mut many = [Pfn::new(0); 100];
        let wanted = 1 + rng.below(many.len());
        let Ok(got) = FRAMES.alloc_bulk(PLAIN, &mut many[..wanted]) else { return };
        let span = |pfn| FrameSpan::new(pfn, ONE).expect("a frame");
        many[..got].iter().for_each(|&pfn| own(span(pfn)));
        many[..got].iter().for_each(|&pfn| disown(span(pfn)));
        FRAMES.free_bulk(&many[..got]).expect("lent");
    }

    fn free_all() {
        for place in 0..PLACES {
            if let Some(lent) = EXCHANGE.swap(place, None) {
                give_back(lent, &mut Rng::new(0));
            }
        }
    }

    /// Takes from their owners all frames that have one, and hands them over in runs.
    fn take_runs(mut out: impl FnMut(FrameSpan)) {
        for (index, word) in OWNED.iter().enumerate() {
            let mut rest = word.swap(0, Relaxed);
            while rest != 0 {
                let (first, count) = (rest.trailing_zeros(), (rest >> rest.trailing_zeros()).trailing_ones());
                rest &= !(u64::MAX >> (64 - count) << first);
                let start = Pfn::new(64 * index + first as usize);
                out(FrameSpan::new(start, FrameCount::new(count as usize)).expect("frames"));
            }
        }
    }

    /// Frees everything that has an owner, in runs that are not those in which it was lent.
    fn free_owned() {
        take_runs(|span| FRAMES.free_range(FrameRange::from_raw(span)).expect("lent"));
    }

    fn one_nodes_cpus_free_the_others_frames() {
        let home = home();
        let cpu_of = |node| (0..percpu::online()).find(|&cpu| percpu::area(cpu).is_some_and(|area| area.node() == node));
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (cpu_of(from).expect("a CPU"), cpu_of(to).expect("a CPU"));
            for order in [0, 1, 3, 9, 4] {
                let order = Order::new(order).expect("an order");
                smp::on(from, &|_| {
                    for place in 0..PLACES / 16 {
                        let block = FRAMES.alloc(order, PLAIN).expect("a block");
                        assert_eq!(node_of(block.head()), percpu::node(), "from the CPU's own node");
                        EXCHANGE.swap(place, Some(Lent::block(block)));
                    }
                });
                smp::on(to, &|_| {
                    for place in 0..PLACES / 16 {
                        let lent = EXCHANGE.swap(place, None).expect("left there");
                        FRAMES.free(lent.into_right().expect("a block")).expect("lent");
                    }
                    // What the other node lent is not lent here, however often it was freed here.
                    let own = FRAMES.alloc(order, PLAIN).expect("a block");
                    assert_eq!(node_of(own.head()), percpu::node());
                    FRAMES.free(own).expect("lent");
                });
            }
        }
        home.assert_again(&Machine, &FRAMES);
    }

    fn a_node_without_cpus() {
        let home = home();
        let strict = Request::frames(ONE).policy(Policy::Bind(NodeMask::of(node(2))));
        let before = FRAMES.numa_counts(node(2));
        smp::on_all(&|_| {
            for _ in 0..50 {
                let range = FRAMES.alloc_range(&strict).expect("a frame");
                assert_eq!(node_of(range.span().start()), 2);
                FRAMES.free_range(range).expect("lent");
            }
        });
        let after = FRAMES.numa_counts(node(2));
        assert_eq!(after.other_node - before.other_node, 50 * u64::from(percpu::online()));
        assert_eq!(after.local_node, 0, "nobody is local to it");
        // Taken whole, it says no: others are not asked. Without the policy they are.
        let mut taken = 0;
        let mut take_all = || {
            while let Ok(range) = FRAMES.alloc_range(&strict) {
                own(range.into_raw());
                taken += 1;
            }
        };
        take_all();
        // What the others' pools still held comes home when they are asked, and not before.
        settle(&Machine, &FRAMES);
        take_all();
        assert!(taken > 15_000, "{taken} frames");
        assert_eq!(FRAMES.alloc_range(&strict), Err(AllocError::NoMemory));
        let preferred = Request::frames(ONE).policy(Policy::Preferred(node(2)));
        let elsewhere = FRAMES.alloc_range(&preferred).expect("a frame");
        assert_eq!(node_of(elsewhere.span().start()), 0, "the nearest of the others");
        FRAMES.free_range(elsewhere).expect("lent");
        free_owned();
        home.assert_again(&Machine, &FRAMES);
    }

    fn exhaustion_and_recovery() {
        let home = home();
        let lows = frames::low_calls();
        for order in [0, 3, 9] {
            let order = Order::new(order).expect("an order");
            let taken = Counter::new();
            smp::on_all(&|_| {
                while let Ok(block) = FRAMES.alloc(order, PLAIN) {
                    own(FrameSpan::new(block.head(), order.count()).expect("frames"));
                    taken.add(block.into_raw().1.frames());
                }
            });
            // A pool may hold some when another CPU gives up.
            settle(&Machine, &FRAMES);
            let census = FRAMES.census();
            assert!(taken.take() * 10 > (census.present - census.reserved) * 9, "nearly all can be had");
            assert!(frames::low_calls() > lows, "and the hook was told");
            free_owned();
            home.assert_again(&Machine, &FRAMES);
        }
    }

    fn wrong_frees_are_told_apart_and_reported() {
        let home = home();
        let reported = frames::faults();
        let refused = [
            never_lent(),
            twice(Order::ZERO),
            twice(Order::new(3).expect("an order")),
            twice(Order::new(5).expect("an order")),
            FRAMES.free_raw(Pfn::new(0), ONE).expect_err("frame zero is reserved"),
            FRAMES.free_raw(Pfn::new(0x8_0000), ONE).expect_err("in the hole"),
            FRAMES.free_raw(Pfn::new(usize::MAX), FrameCount::new(2)).expect_err("wraps"),
            part_of_a_range(),
            offline(),
        ];
        assert!(matches!(
            refused,
            [
                FreeError::NeverLent(_) | FreeError::AlreadyFree(_, Place::Tree),
                FreeError::AlreadyFree(_, Place::Pool | Place::ReturnBuffer),
                FreeError::AlreadyFree(_, Place::Pool | Place::Tree),
                FreeError::AlreadyFree(_, Place::Tree),
                FreeError::Reserved(_),
                FreeError::NotManaged(_),
                FreeError::Misaligned(_),
                FreeError::AlreadyFree(..),
                FreeError::Offline(_),
            ]
        ), "{refused:?}");
        assert_eq!(frames::faults() - reported, refused.len() as u64, "a line for each");
        home.assert_again(&Machine, &FRAMES);
    }

    /// Frames in the middle of what is free.
    fn free_span(count: usize) -> FrameSpan {
        FrameSpan::new(Pfn::new(0x4000), FrameCount::new(count)).expect("frames")
    }

    fn never_lent() -> FreeError {
        FRAMES.free_range(FrameRange::from_raw(free_span(1))).expect_err("free")
    }

    fn twice(order: Order) -> FreeError {
        let (head, order) = FRAMES.alloc(order, PLAIN).expect("a block").into_raw();
        let right = || Block::from_raw(head, order).expect("aligned");
        FRAMES.free(right()).expect("lent");
        FRAMES.free(right()).expect_err("freed just now")
    }

    fn part_of_a_range() -> FreeError {
        let range = FRAMES.alloc_at(free_span(700)).expect("free");
        let span = range.into_raw();
        let (first, rest) = FrameRange::from_raw(span).split_at(FrameCount::new(699)).expect("two parts");
        FRAMES.free_range(rest).expect("lent");
        let error = FRAMES.free_range(FrameRange::from_raw(span)).expect_err("the last frame is free");
        FRAMES.free_range(first).expect("nothing of it was freed");
        error
    }

    fn offline() -> FreeError {
        FRAMES.offline(free_span(512)).expect("free");
        let error = FRAMES.free_range(FrameRange::from_raw(free_span(1))).expect_err("offline");
        FRAMES.online(free_span(512)).expect("offline");
        error
    }
}
