//! The scenarios on two CPUs and 16 MiB, where pools are most of what there is. Those that need more room say so.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-smp 2 -m 16M timeout=120");

macro_rules! kernel_of {
    ($($name:ident)*) => {
        pagemill_bare::kernel! {
            tests: [$($name),*];

            #[path = "common/scenario.rs"]
            mod scenario;
            #[path = "common/world.rs"]
            mod world;

            $(fn $name() {
                scenario::run(stringify!($name));
            })*
        }
    };
}
pagemill_tests::for_each_scenario!(kernel_of);
