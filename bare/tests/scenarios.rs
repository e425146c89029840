//! The scenarios on 4 CPUs and three nodes, the third of memory alone.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-smp 4 -m 3145728K \
     -object memory-backend-ram,id=m0,size=1048580K \
     -object memory-backend-ram,id=m1,size=1572860K \
     -object memory-backend-ram,id=m2,size=524288K \
     -numa node,nodeid=0,cpus=0-1,memdev=m0 \
     -numa node,nodeid=1,cpus=2-3,memdev=m1 \
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

            #[path = "common/world.rs"]
            mod world;

            $(fn $name() {
                world::run(stringify!($name));
            })*
        }
    };
}
pagemill_tests::for_each_scenario!(kernel_of);
