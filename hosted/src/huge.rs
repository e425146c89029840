//! Which pages the system should put behind a heap's memory.

use std::sync::atomic::{AtomicU8, Ordering};

/// Which pages the system should put behind a heap's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Small ones only.
    Never,
    /// Transparent huge pages beyond the first 8 MiB, where the system has them (`madvise` or `always` in
    /// `/sys/kernel/mm/transparent_hugepage/enabled`).
    #[default]
    Transparent,
    /// Explicit ones (`MAP_HUGETLB`) behind the memory that the heap gets from now on, as far as the system has set some
    /// aside (`vm.nr_hugepages`); transparent ones where it has not. From then on the heap gives no memory back, and moves no blocks by
    /// page tables; the child of a `fork` that writes needs as many pages again.
    Explicit,
}

/// The choice of a process.
pub(crate) struct Choice(AtomicU8);

impl Choice {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(HugePages::Transparent as u8))
    }

    pub(crate) fn set(&self, pages: HugePages) {
        // Relaxed: changed and read under a lock, or as advice.
        self.0.store(pages as u8, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> HugePages {
        match self.0.load(Ordering::Relaxed) {
            0 => HugePages::Never,
            1 => HugePages::Transparent,
            _ => HugePages::Explicit,
        }
    }
}
