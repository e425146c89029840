//! The same storms with one instruction in each translation block: QEMU takes interrupts between blocks only, so here
//! they arrive between any two instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-singlestep -smp 4 -m 64M timeout=120 full: timeout=900");

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

    const STORM: Storm = Storm { period: 60_000, steps: 80 };

    fn timer_storm() {
        storms::timers(STORM);
    }

    fn nmi_storm() {
        storms::nmis(STORM);
    }

    const ON_THE_HEAP: Storm = Storm { period: 100_000, steps: 150 };

    fn timer_storm_on_the_heap() {
        heap_storms::timers(ON_THE_HEAP);
    }

    fn nmi_storm_on_the_heap() {
        heap_storms::nmis(ON_THE_HEAP);
    }
}
