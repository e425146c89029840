//! Memory as the firmware tells it, with RAM above 4 GiB, and everything boot should have set up on one CPU.
#![cfg_attr(target_os = "none", no_std, no_main)]

// q35 puts memory beyond 2 GiB above 4 GiB.
pagemill_bare::qemu_args!("-m 3G");

pagemill_bare::kernel! {
    tests: [
        map_is_in_order,
        nothing_reserved_is_free,
        image_is_reserved,
        high_memory_is_mapped_and_writable,
        early_memory_is_ours_alone,
        null_and_guard_pages_are_not_mapped,
        code_and_constants_are_read_only,
        boot_heap_works,
        time_passes,
    ];

    use pagemill_bare::early::Owner;
    use pagemill_bare::memory_map::{FRAME_BYTES, MapOddity, PhysRange};
    use pagemill_bare::{boot_heap, cpu, idt, machine, percpu, physical, println, time};

    const GIB: u64 = 1 << 30;

    fn map_is_in_order() {
        let map = &machine::get().map;
        assert!(map.problems().iter().all(|problem| problem.oddity == MapOddity::Unaligned));
        assert!(map.regions().windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
        let bytes = map.usable_bytes();
        assert!(bytes > 3 * GIB - (2 << 20) && bytes <= 3 * GIB, "{bytes}");
        assert!(map.usable().any(|range| range.start() >= 4 * GIB));
    }

    fn nothing_reserved_is_free() {
        let free = physical::free_ranges();
        let reserved = physical::reservations();
        let map = &machine::get().map;
        for range in &free {
            assert!(map.usable().any(|usable| usable.contains(*range)), "{range} is not usable");
            assert!(reserved.iter().all(|taken| !taken.range.overlaps(*range)), "{range} is reserved");
            assert_eq!((range.start() | range.end()) % FRAME_BYTES, 0);
        }
        let free_bytes: u64 = free.iter().map(|range| range.bytes()).sum();
        assert!(free_bytes + (4 << 20) > map.usable_bytes(), "boot took too much: {free_bytes}");
    }

    fn image_is_reserved() {
        let code = map_is_in_order as *const () as u64 & 0x7fff_ffff;
        let is_image = |owner: &Owner| *owner == Owner::Image;
        let code = PhysRange::with_len(code, 1).expect("an address");
        let reserved = physical::reservations();
        assert!(reserved.iter().any(|taken| is_image(&taken.owner) && taken.range.contains(code)));
        for owner in [Owner::FrameZero, Owner::Loader, Owner::PerCpu, Owner::PageTables, Owner::Stacks] {
            assert!(reserved.iter().any(|taken| taken.owner == owner), "{owner}");
        }
    }

    fn high_memory_is_mapped_and_writable() {
        let high = machine::get().map.usable().last().expect("memory");
        assert!(high.end() > 4 * GIB);
        for at in [high.start(), high.start() + high.bytes() / 2, high.end() - 8] {
            let place = physical::pointer(at & !7).cast::<u64>();
            // SAFETY: usable memory above 4 GiB, of which nobody has taken any yet.
            unsafe { place.write_volatile(at ^ 0x5555) };
            // SAFETY: as above.
            assert_eq!(unsafe { place.read_volatile() }, at ^ 0x5555);
        }
    }

    fn early_memory_is_ours_alone() {
        let high = PhysRange::new(4 * GIB, u64::MAX).expect("ordered");
        let alloc = |within| physical::alloc(10_000, 1 << 16, within, Owner::Other("test")).expect("memory");
        let (one, two) = (alloc(PhysRange::BELOW_4_GIB), alloc(high));
        assert!(one.range().end() <= 4 * GIB && two.range().start() >= 4 * GIB);
        assert_eq!((one.range().start() | two.range().start()) & 0xffff, 0);
        let (one, two) = (one.into_zeroed_bytes(), two.into_zeroed_bytes());
        one.fill(1);
        assert!(two.iter().all(|&byte| byte == 0));
        assert_eq!(one.len(), 12 << 10);
    }

    fn null_and_guard_pages_are_not_mapped() {
        let local = 0_u8;
        let stack = (&raw const local).addr() as u64;
        assert_eq!(idt::probe(0), None);
        assert_eq!(idt::probe(0x8000), None);
        assert_eq!(idt::probe(stack & !0xfff), idt::probe(stack & !0xfff), "the stack itself is mapped");
        let guard = (1..).map(|page| (stack & !0xfff) - page * FRAME_BYTES).find(|&at| idt::probe(at).is_none());
        let depth = stack - guard.expect("a guard page");
        assert!(depth < 140 << 10, "no guard page within {depth} bytes");
    }

    fn code_and_constants_are_read_only() {
        static CONSTANT: [u64; 2] = [1, 2];
        for address in [(&raw const CONSTANT).addr(), map_is_in_order as *const () as usize] {
            let mut faulted = false;
            pagemill_bare::idt::hook(idt::PAGE_FAULT, Some(skip_write));
            // SAFETY: the write faults, and the hook steps over it; rdx says where to, and comes back as 0.
            unsafe {
                core::arch::asm!("lea rdx, [rip + 2f]", "mov byte ptr [{at}], 0", "2:",
                                 at = in(reg) address, out("rdx") _, out("rax") _);
            }
            idt::hook(idt::PAGE_FAULT, None);
            faulted |= cpu::fault_address() == address as u64;
            assert!(faulted, "a write to {address:#x} went through");
        }
        assert_eq!(CONSTANT, [1, 2]);
    }

    fn skip_write(frame: &mut idt::TrapFrame) {
        frame.rip = frame.rdx;
    }

    fn boot_heap_works() {
        use core::alloc::Layout;
        let layout = Layout::new::<[u64; 100]>();
        boot_heap::with(|heap| {
            let size = heap.size();
            assert!(size > 200 << 10, "{size}");
            let place = heap.allocate_first_fit(layout).expect("room");
            assert!(heap.used() >= layout.size());
            // SAFETY: just given out with the same layout.
            unsafe { heap.deallocate(place, layout) };
            assert_eq!(heap.used(), 0);
        });
    }

    fn time_passes() {
        let hz = time::time_stamps_per_second().expect("a PC has an interval timer");
        assert!(hz > 1_000_000, "{hz}");
        assert!(machine::boot_time() > time::Span(0));
        assert_eq!(percpu::online(), 1);
        println!("({} kHz, booted in {})", hz / 1000, machine::boot_time());
    }
}
