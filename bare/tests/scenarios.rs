//! The scenarios on 4 CPUs and three nodes, the third of memory alone; borders in the middle of large blocks, memory on
//! both sides of a hole that is larger than any of it.
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
