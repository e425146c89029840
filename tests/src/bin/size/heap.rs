//! The smallest kernel with frames and a heap over them as its global allocator, for one CPU and one node: a program
//! for bare metal, built to be measured by `tests/size.rs` and never run.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod kernel {
    extern crate alloc;

    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use core::hint::black_box;
    use core::mem::MaybeUninit;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pagemill::{Context, CpuId, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId, Pfn, Platform, ZoneKind};

    struct Alone;

    static BUSY: AtomicBool = AtomicBool::new(false);

    // SAFETY: there is one CPU, `BUSY` is claimed by at most one caller on it, and nobody else is waited for.
    unsafe impl Platform for Alone {
        type Lock = spin::Mutex<()>;

        fn enter() -> Option<CpuId> {
            if BUSY.load(Ordering::Relaxed) {
                return None;
            }
            BUSY.store(true, Ordering::Relaxed);
            Some(CpuId::new(0))
        }

        fn leave(_cpu: CpuId) {
            BUSY.store(false, Ordering::Relaxed);
        }

        fn context() -> Context {
            Context::Task
        }
    }

    static FRAMES: Frames<'static, Alone> = Frames::new();
    #[global_allocator]
    static HEAP: Heap<'static, Alone> = Heap::new(&FRAMES);

    const MEMORY: FrameSpan = match FrameSpan::new(Pfn::new(0x100), FrameCount::new(16 << 8)) {
        Ok(span) => span,
        Err(_) => panic!("16 MiB from 1 MiB on"),
    };
    const BASE_BYTES: usize = Frames::<Alone>::base_metadata_size(MEMORY, 1, 1);
    const MEMORY_BYTES: usize = Frames::<Alone>::memory_metadata_size(MEMORY);
    const HEAP_BYTES: usize = Heap::<Alone>::metadata_size(MEMORY, 1, 1);
    static mut METADATA: [MaybeUninit<u8>; BASE_BYTES + MEMORY_BYTES + HEAP_BYTES] = [MaybeUninit::uninit(); _];

    // SAFETY: no other symbol has this name, which is where the linker has the program start.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        let bytes = &raw mut METADATA;
        // SAFETY: the program starts once, and nothing else uses the bytes.
        let metadata = Metadata::new(unsafe { &mut *bytes });
        if let Ok((base, rest)) = metadata.split_at(BASE_BYTES)
            && let Ok((memory, heap)) = rest.split_at(MEMORY_BYTES)
            && FRAMES.init(MEMORY, 1, 1, base).is_ok()
            && FRAMES.add_memory(NodeId::ZERO, ZoneKind::Normal, MEMORY, &[], memory).is_ok()
            // SAFETY: the program is never run; a kernel maps its memory at the address it says here.
            && unsafe { HEAP.init(black_box(core::ptr::null_mut()), MEMORY, 1, 1, heap) }.is_ok()
        {
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
