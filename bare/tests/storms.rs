//! Interrupts of all kinds on four CPUs and two nodes, as fast as they can be handled.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-smp 4,maxcpus=16 -m 128M -numa node,nodeid=0,cpus=0-1,cpus=4-9,memdev=m0 -numa node,nodeid=1,cpus=2-3,cpus=10-15,memdev=m1 \
     -object memory-backend-ram,id=m0,size=65540K -object memory-backend-ram,id=m1,size=65532K \
     timeout=120 full: -smp 16 timeout=900"
);

pagemill_bare::kernel! {
    tests: [timer_storm, nmi_storm, timer_storm_on_the_heap, nmi_storm_on_the_heap];

    extern crate alloc;

    #[path = "common/heap_storms.rs"]
    mod heap_storms;
    #[path = "common/objects.rs"]
    mod objects;
    #[path = "common/owners.rs"]
    mod owners;
    #[path = "common/storms.rs"]
    mod storms;
    #[path = "common/world.rs"]
    mod world;

    use pagemill_bare::heap::Global;
    use storms::Storm;

    #[global_allocator]
    static GLOBAL: Global = Global;

    const STORM: Storm = Storm { period: 20_000, steps: 12_000 };

    fn timer_storm() {
        storms::timers(STORM);
    }

    fn nmi_storm() {
        storms::nmis(STORM);
    }

    const ON_THE_HEAP: Storm = Storm { period: 30_000, steps: 12_000 };

    fn timer_storm_on_the_heap() {
        heap_storms::timers(ON_THE_HEAP);
    }

    fn nmi_storm_on_the_heap() {
        heap_storms::nmis(ON_THE_HEAP);
    }
}
