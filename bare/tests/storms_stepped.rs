//! The same storms with one instruction in each translation block: QEMU takes interrupts between blocks only, so here they
//! arrive between any two instructions.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-singlestep -smp 4 -m 64M timeout=120 full: timeout=900");

pagemill_bare::kernel! {
    tests: [timer_storm, nmi_storm];

    #[path = "common/owners.rs"]
    mod owners;
    #[path = "common/storms.rs"]
    mod storms;
    #[path = "common/world.rs"]
    mod world;

    use storms::Storm;

    const STORM: Storm = Storm { period: 60_000, steps: 80 };

    fn timer_storm() {
        storms::timers(STORM);
    }

    fn nmi_storm() {
        storms::nmis(STORM);
    }
}
