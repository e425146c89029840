//! The smallest kernel with frames, for one CPU and one node: a program for bare metal, built to be measured by
//! `tests/size.rs` and never run.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
mod kernel {
    use core::hint::black_box;
    use core::mem::MaybeUninit;
    use core::panic::PanicInfo;
    use core::sync::atomic::{AtomicBool, Ordering};

    use pagemill::{
        AllocFlags, Context, CpuId, FrameCount, FrameSpan, Frames, Metadata, NodeId, Order, Pfn, Platform, ZoneKind,
    };

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

    const MEMORY: FrameSpan = match FrameSpan::new(Pfn::new(0x100), FrameCount::new(16 << 8)) {
        Ok(span) => span,
        Err(_) => panic!("16 MiB from 1 MiB on"),
    };
    const BASE_BYTES: usize = Frames::<Alone>::base_metadata_size(MEMORY, 1, 1);
    const MEMORY_BYTES: usize = Frames::<Alone>::memory_metadata_size(MEMORY);
    static mut METADATA: [MaybeUninit<u8>; BASE_BYTES + MEMORY_BYTES] = [MaybeUninit::uninit(); _];

    // SAFETY: no other symbol has this name, which is where the linker has the program start.
    #[unsafe(no_mangle)]
    extern "C" fn _start() -> ! {
        let bytes = &raw mut METADATA;
        // SAFETY: the program starts once, and nothing else uses the bytes.
        let metadata = Metadata::new(unsafe { &mut *bytes });
        if let Ok((base, memory)) = metadata.split_at(BASE_BYTES)
            && FRAMES.init(MEMORY, 1, 1, base).is_ok()
            && FRAMES.add_memory(NodeId::ZERO, ZoneKind::Normal, MEMORY, &[], memory).is_ok()
        {
            work();
        }
        loop {
            core::hint::spin_loop();
        }
    }

    /// Asks for what a kernel needs: a block of any order, and its end.
    fn work() {
        let order = Order::new(black_box(0)).unwrap_or_default();
        if let Ok(block) = FRAMES.alloc(order, AllocFlags::empty()) {
            let _ = black_box(FRAMES.free(block));
        }
    }

    #[panic_handler]
    fn panic(_: &PanicInfo<'_>) -> ! {
        loop {
            core::hint::spin_loop();
        }
    }
}
