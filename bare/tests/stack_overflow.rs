//! A stack that overflows meets a page that is not mapped; the double fault it becomes has a stack of its own and says
//! so.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-smp 2");

pagemill_bare::kernel! {
    tests: [an_overflow_is_a_double_fault];

    use core::hint::black_box;

    use pagemill_bare::{harness, smp};

    /// Recursion that cannot become a loop.
    fn dig(depth: u64) -> u64 {
        let room = black_box([depth; 64]);
        if depth == 0 { 0 } else { dig(depth + 1) + room[depth as usize % 64] }
    }

    fn an_overflow_is_a_double_fault() {
        harness::expect_panic("double fault (stack overflow?)");
        smp::on(1, &|_| {
            black_box(dig(1));
        });
    }
}
