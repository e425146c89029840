//! A machine with 16 MiB, two CPUs, and the ACPI tables of former times: an RSDT and no XSDT.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-m 16M -smp 2 -machine acpi=off");

pagemill_bare::kernel! {
    tests: [both_cpus_are_found, most_of_it_is_free, early_memory_runs_out_with_an_error, early_memory_ends_once];

    use pagemill_bare::early::{EarlyError, Owner};
    use pagemill_bare::memory_map::PhysRange;
    use pagemill_bare::{machine, percpu, physical};

    fn both_cpus_are_found() {
        assert_eq!((percpu::online(), machine::get().topology.node_count()), (2, 1));
    }

    fn free_bytes() -> u64 {
        physical::free_ranges().iter().map(|range| range.bytes()).sum()
    }

    fn most_of_it_is_free() {
        let usable = machine::get().map.usable_bytes();
        assert!(usable <= 16 << 20 && usable > 15 << 20, "{usable}");
        assert!(free_bytes() > 12 << 20, "{} of {usable} bytes are free", free_bytes());
    }

    fn early_memory_runs_out_with_an_error() {
        let alloc = |bytes| physical::alloc(bytes, 1, PhysRange::ALL, Owner::Other("test"));
        assert_eq!(alloc(17 << 20).err(), Some(EarlyError::NoMemory));
        let mut taken = 0;
        while let Ok(block) = alloc(1 << 20) {
            taken += block.range().bytes();
        }
        assert!(taken > 10 << 20, "{taken}");
        assert!(free_bytes() > 0);
        assert_eq!(alloc(0).err(), Some(EarlyError::Impossible));
    }

    fn early_memory_ends_once() {
        let free = free_bytes();
        assert_eq!(physical::retire(), Ok(()));
        assert_eq!(physical::retire(), Err(EarlyError::Retired));
        let more = physical::alloc(1, 1, PhysRange::ALL, Owner::Other("test"));
        assert_eq!(more.err(), Some(EarlyError::Retired));
        assert_eq!(free_bytes(), free);
    }
}
