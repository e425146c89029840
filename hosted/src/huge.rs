//! Which pages the system should put behind a heap's memory.

use std::sync::atomic::{AtomicU8, Ordering};

/// Which pages the system should put behind a heap's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// Small ones only.
    Never,
    /// Transparent huge pages beyond the first 16 MiB, where the system has them (`madvise` or `always` in
    /// `/sys/kernel/mm/transparent_hugepage/enabled`).
    #[default]
    Transparent,
    /// Explicit ones (`MAP_HUGETLB`) behind the memory that the heap gets from now on, as far as the system has set
    /// some aside (`vm.nr_hugepages`); transparent ones where it has not. From then on the heap gives no memory back,
    /// and moves no blocks by page tables; the child of a `fork` that writes needs as many pages again.
    Explicit,
    /// Transparent huge pages from the first byte on: faster where a program soon has more than 16 MiB, and some MiB
    /// more where it does not.
    Always,
}

impl HugePages {
    pub(crate) fn of_number(number: u8) -> Self {
        match number {
            0 => Self::Never,
            1 => Self::Transparent,
            2 => Self::Explicit,
            _ => Self::Always,
        }
    }
}

/// The choice of a process, if it has made one.
pub(crate) struct Choice(AtomicU8);

const NOT_CHOSEN: u8 = u8::MAX;

impl Choice {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(NOT_CHOSEN))
    }

    pub(crate) fn set(&self, pages: HugePages) {
        // Relaxed: changed and read under a lock, or as advice.
        self.0.store(pages as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_unless_chosen(&self, pages: HugePages) {
        if self.0.load(Ordering::Relaxed) == NOT_CHOSEN {
            self.set(pages);
        }
    }

    pub(crate) fn get(&self) -> HugePages {
        HugePages::of_number(self.0.load(Ordering::Relaxed))
    }
}
