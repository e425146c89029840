//! The ways to fail, for the tests of the runner. Not part of a run of all tests; choose one by name:
//! `cargo test -p pagemill-bare --test failing -- assertion`.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-smp 2 timeout=15");

pagemill_bare::kernel! {
    tests: [passes, assertion, panic_on_another_cpu, unhandled_exception, no_panic, endless_loop, triple_fault];

    use core::arch::asm;
    use core::hint::spin_loop;

    use pagemill_bare::{cpu, harness, smp};

    fn passes() {}

    fn assertion() {
        assert_eq!(1 + 1, 3, "arithmetic");
    }

    fn panic_on_another_cpu() {
        smp::on(1, &|_| panic!("far away"));
    }

    fn unhandled_exception() {
        cpu::breakpoint();
    }

    fn no_panic() {
        harness::expect_panic("something that does not happen");
    }

    fn endless_loop() {
        loop {
            spin_loop();
        }
    }

    fn triple_fault() {
        let no_table = [0_u64; 2];
        // SAFETY: it ends here: the breakpoint has no handler, nor has the fault that comes of that, nor the next one.
        unsafe { asm!("lidt [{}]", "int3", in(reg) &raw const no_table, options(noreturn)) };
    }
}
