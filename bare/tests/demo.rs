//! A machine boots on pagemill: 4 CPUs; three nodes, the third of memory alone; distances that differ by pair and
//! direction; borders in the middle of large blocks; memory on both sides of the hole under 4 GiB. It shows what it
//! found, works on all CPUs, builds collections on its own heap and shows what that is made of, and that every frame
//! came home. `cargo demo` boots it.
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

    extern crate alloc;

    #[path = "common/churn.rs"]
    mod churn;
    #[path = "../../tests/src/collections.rs"]
    mod collections;
    #[path = "common/listed.rs"]
    mod listed;
    #[path = "common/world.rs"]
    mod world;

    use core::alloc::GlobalAlloc;
    use core::mem::MaybeUninit;

    use collections::Collections;
    use listed::Listed;
    use pagemill_bare::cpu::{self, Verdict};
    use pagemill_bare::frames::{self, FRAMES};
    use pagemill_bare::heap::{self, Global, HEAP};
    use pagemill_bare::topology::MAX_CPUS;
    use pagemill_bare::{machine, percpu, physical, println};
    use pagemill_tests::{Rng, World, show};
    use spin::Mutex;
    use world::Machine;

    #[global_allocator]
    static GLOBAL: Global = Global;

    fn demonstrate() {
        let handover = frames::init();
        heap::init().expect("frames for the heap's metadata");
        println!("\n{} CPUs up after {}\n", percpu::online(), machine::boot_time());
        firmware();
        assert_eq!((handover.left_out, handover.problems), (0, 0), "all memory found its way to the allocator");
        // What describes slabs stays; it is made once, before the frames are counted for the first time.
        collections();
        show::demonstrate(&Machine, || {
            show::heap(&Machine, &HEAP, &build, &drop_others);
            beside_the_linked_list();
            println!("of the frames, {} KiB are lent to the heap for what it knows of its objects", heap::frames_kept() << 2);
        });
        assert_eq!((frames::faults(), heap::faults()), (0, 0), "nobody freed what was not lent");
        cpu::exit(Verdict::Passed)
    }

    /// What each CPU has built.
    static BUILT: [Mutex<Option<Collections>>; MAX_CPUS] = [const { Mutex::new(None) }; MAX_CPUS];

    fn build(cpu: u32) {
        let mut collections = Collections::new();
        collections.work(&mut Rng::new(u64::from(cpu)), 20_000);
        *BUILT[cpu as usize].lock() = Some(collections);
    }

    fn drop_others(cpu: u32) {
        drop(BUILT[((cpu + 1) % percpu::online()) as usize].lock().take());
    }

    fn collections() {
        Machine.on_all(&build);
        Machine.on_all(&drop_others);
        show::rest_heap(&Machine, &HEAP);
    }

    /// The same objects from pagemill and from `linked_list_allocator`, on one CPU and on all at once.
    fn beside_the_linked_list() {
        const STEPS: usize = 20_000;
        const BYTES: usize = 16 << 20;
        println!("{STEPS} objects of 16 to 2048 bytes on each CPU, of which it holds 512");
        let list = Listed::new();
        let mut work = |bytes: &mut [MaybeUninit<u8>]| {
            // SAFETY: nothing of the list is used after this, when the bytes go back.
            unsafe { list.init(bytes) };
            compare(STEPS, &list);
            assert!(list.is_whole(), "all of it is back");
        };
        // SAFETY: the instance has only the memory that `frames::init` found free, and kernels free what is theirs.
        let given = unsafe { physical::with_bytes(&FRAMES, BYTES, &mut work) };
        assert!(given, "there is room for the other heap");
        show::rest_heap(&Machine, &HEAP);
    }

    fn compare(steps: usize, list: &Listed) {
        let timed = |cpus: u32, heap: &(dyn GlobalAlloc + Sync)| {
            let began = Machine.now_ns();
            Machine.on_all(&|cpu| {
                if cpu < cpus {
                    churn::churn(heap, steps, &mut Rng::new(u64::from(cpu)));
                }
            });
            Machine.now_ns().zip(began).map_or(0, |(now, began)| (now - began) / 1000)
        };
        for cpus in [1, percpu::online()] {
            let [ours, theirs] = [timed(cpus, &Global), timed(cpus, list)];
            println!("  {cpus} CPU{}  pagemill {ours:>9} us, linked_list_allocator {theirs:>9} us", if cpus == 1 { " " } else { "s" });
        }
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
