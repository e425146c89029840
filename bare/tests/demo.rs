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

    use pagemill_bare::cpu::{self, Verdict};
    use pagemill_bare::{frames, machine, percpu, physical, println};
    use pagemill_tests::show;
    use world::Machine;

    fn demonstrate() {
        let handover = frames::init();
        println!("\n{} CPUs up after {}\n", percpu::online(), machine::boot_time());
        firmware();
        assert_eq!((handover.left_out, handover.problems), (0, 0), "all memory found its way to the allocator");
        show::demonstrate(&Machine);
        assert_eq!(frames::faults(), 0, "nobody freed what was not lent");
        cpu::exit(Verdict::Passed)
    }

    /// What the firmware said there is, and who took what of it.
    fn firmware() {
        println!("memory map, as the firmware tells it");
        for region in machine::get().map.regions() {
            println!("  {}  {:>9} KiB  {}", region.range, region.range.bytes() >> 10, region.kind);
        }
        println!("\ntaken before the allocator began");
        for taken in &physical::reservations() {
            println!("  {}  {:>9} KiB  {}", taken.range, taken.range.bytes() >> 10, taken.owner);
        }
        println!();
    }
}
