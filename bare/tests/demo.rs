//! A machine boots on pagemill: 4 CPUs; three nodes, the third of memory alone; distances that differ by pair and
//! direction; borders in the middle of large blocks; memory on both sides of the hole under 4 GiB. It shows what it
//! found, works on all CPUs, and shows that every frame came home. `cargo demo` boots it.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-smp 4 -m 3145728K \
     -object memory-backend-ram,id=m0,size=1048580K \
     -object memory-backend-ram,id=m1,size=1572860K \
     -object memory-backend-ram,id=m2,size=524288K \
     -numa node,nodeid=0,cpus=0-1,memdev=m0 \
     -numa node,nodeid=1,cpus=2-3,memdev=m1 \
     -numa node,nodeid=2,memdev=m2 \
     -numa dist,src=0,dst=1,val=21 -numa dist,src=1,dst=0,val=23 \
     -numa dist,src=0,dst=2,val=17 -numa dist,src=2,dst=0,val=17 \
     -numa dist,src=1,dst=2,val=28 -numa dist,src=2,dst=1,val=28"
);

pagemill_bare::kernel! {
    main: demonstrate;

    #[path = "common/world.rs"]
    mod world;

    use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use pagemill::{FrameCount, NodeId, NodeMask, Policy, Request};
    use pagemill_bare::cpu::{self, Verdict};
    use pagemill_bare::frames::{self, FRAMES};
    use pagemill_bare::time::Span;
    use pagemill_bare::{machine, percpu, physical, println};
    use pagemill_tests::{Home, World, scenarios, with_load};
    use world::Machine;

    /// Blocks that may be lent at once under load.
    const SLOTS: usize = 1 << 13;
    /// Requests of each policy on each CPU.
    const ROUNDS: usize = 300;

    fn demonstrate() {
        let handover = frames::init();
        found();
        assert_eq!((handover.left_out, handover.problems), (0, 0), "all memory found its way to the allocator");
        println!("\nnodes, as ACPI tells them\n{}", FRAMES.nodes());
        println!("zones, in frames of 4 KiB\n{}", FRAMES.zoneinfo());

        let home = Home::of(&Machine, &FRAMES);
        println!("buddyinfo before\n{}", FRAMES.buddyinfo());
        let lent = work();
        policies();
        pagemill_tests::settle(&Machine, &FRAMES);
        println!("buddyinfo after\n{}", FRAMES.buddyinfo());
        println!("numastat, after {ROUNDS} frames in turn and {ROUNDS} bound to node 2 on each CPU\n{}", FRAMES.numastat());

        println!("scenarios");
        for scenario in scenarios::<Machine>() {
            let began = cpu::time_stamp();
            scenario.run(&Machine);
            println!("  {:<40} ok  {:>12}", scenario.name, Span(cpu::time_stamp() - began));
        }
        // Fails if a zone looks different, or a frame is still lent.
        home.assert_again(&Machine, &FRAMES);
        let census = FRAMES.census();
        println!(
            "\nevery frame came home: of {} frames present, {} are reserved and {} free, as before; \
             {lent} were lent under load, {} are now; {} wrong frees",
            census.present,
            census.reserved,
            census.available(),
            census.lent(),
            frames::faults(),
        );
        cpu::exit(Verdict::Passed)
    }

    /// What boot found, and who took what of it.
    fn found() {
        println!("\n{} CPUs up after {}", percpu::online(), machine::boot_time());
        println!("\nmemory map, as the firmware tells it");
        for region in machine::get().map.regions() {
            println!("  {}  {:>9} KiB  {}", region.range, region.range.bytes() >> 10, region.kind);
        }
        println!("\ntaken before the allocator began");
        for taken in &physical::reservations() {
            println!("  {}  {:>9} KiB  {}", taken.range, taken.range.bytes() >> 10, taken.owner);
        }
    }

    /// Frames of all orders from all CPUs, most of them freed by another; answers how many were lent at the end of it.
    fn work() -> usize {
        let lent = AtomicUsize::new(0);
        with_load(&Machine, &FRAMES, SLOTS, |load| {
            let before = FRAMES.census().lent();
            let began = cpu::time_stamp();
            let steps = 16 * SLOTS / Machine.cpus() as usize;
            load.run(steps);
            let took = Span(cpu::time_stamp() - began);
            lent.store(FRAMES.census().lent() - before, Relaxed);
            println!(
                "buddyinfo under load: {steps} steps on each CPU in {took}, {} frames lent\n{}",
                lent.load(Relaxed),
                FRAMES.buddyinfo()
            );
        });
        lent.into_inner()
    }

    /// Frames from where the request says, not from where the CPU is.
    fn policies() {
        let memory_only = NodeMask::of(NodeId::new(2).unwrap());
        Machine.on_all(&|_| {
            for policy in [Policy::Interleave(NodeMask::ALL), Policy::Bind(memory_only)] {
                for _ in 0..ROUNDS {
                    let range = FRAMES.alloc_range(&Request::frames(FrameCount::new(1)).policy(policy)).unwrap();
                    FRAMES.free_range(range).unwrap();
                }
            }
        });
    }
}
