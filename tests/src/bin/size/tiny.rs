//! The smallest kernel with a heap: a program for bare metal whose global allocator is a `TinyHeap`. It is built to be
//! measured by `tests/size.rs` and never run.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::hint::black_box;
    use core::panic::PanicInfo;

    use pagemill::TinyHeap;

    #[global_allocator]
    static HEAP: TinyHeap<spin::Mutex<()>> = TinyHeap::new();

    const BYTES: usize = 32 << 10;
    static mut MEMORY: [u8; BYTES] = [0; BYTES];

    // SAFETY: no other symbol has this name, which is where the linker has the program start.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        let memory = &raw mut MEMORY;
        // SAFETY: the program starts once, and nothing else uses the bytes.
        let added = unsafe { HEAP.add_region(memory) };
        if added.is_ok() {
            work(black_box(5));
        }
        loop {
            core::hint::spin_loop();
        }
    }

    /// Asks for all that `GlobalAlloc` has: memory, zeroed memory, more of it in place, and its end.
    fn work(count: usize) {
        let mut numbers: Vec<usize> = (0..count).collect();
        numbers.push(count);
        black_box(alloc::vec![0u8; count]);
        black_box(Box::new(numbers));
    }

    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}
