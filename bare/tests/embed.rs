//! The least kernel on pagemill, as the README shows it.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-smp 2 -m 64M");

pagemill_bare::kernel! {
    main: run;

    use pagemill::{AllocFlags, Order};
    use pagemill_bare::frames::{self, FRAMES};
    use pagemill_bare::{cpu, println};

    fn run() {
        frames::init();
        let block = FRAMES.alloc(Order::new(3).unwrap(), AllocFlags::empty()).unwrap();
        println!("eight frames from {:?} on\n{}", block.head(), FRAMES.buddyinfo());
        FRAMES.free(block).unwrap();
        cpu::exit(cpu::Verdict::Passed)
    }
}
