//! A heap as plain as can be: first fit over one stretch of memory, with its books in a map beside it. It is right, and
//! it bears to be used wrongly, so that faults can be built on it which break nothing but the rules.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use allocator_api2::alloc::{AllocError, Allocator};

/// All sizes are multiples of this.
pub(crate) const GRANULE: usize = 8;

pub(crate) struct Naive {
    base: *mut u8,
    bytes: usize,
    /// The stretches that are free, by their offset: where each ends.
    free: Mutex<BTreeMap<usize, usize>>,
}

// SAFETY: the base never changes, and is used for addresses only.
unsafe impl Send for Naive {}
// SAFETY: as above.
unsafe impl Sync for Naive {}

/// What a block of this size takes.
pub(crate) fn taken(size: usize) -> usize {
    size.max(1).next_multiple_of(GRANULE)
}

impl Naive {
    /// A heap over fresh memory, which stays for ever: it is aligned to its size, and dirty.
    pub(crate) fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, bytes).unwrap();
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc(layout) };
        assert!(!base.is_null());
        // SAFETY: the memory was lent just now.
        unsafe { base.write_bytes(0xa5, bytes) };
        Self { base, bytes, free: Mutex::new(BTreeMap::from([(0, bytes)])) }
    }

    /// Lends the first stretch of that many bytes.
    pub(crate) fn take(&self, bytes: usize, align: usize) -> Option<*mut u8> {
        // The base has no larger alignment than its size.
        if align > self.bytes {
            return None;
        }
        let mut free = self.free.lock().unwrap();
        let fits = |(&start, &end): (&usize, &usize)| {
            let first = start.checked_next_multiple_of(align)?;
            (first.checked_add(bytes)? <= end).then_some((start, first, end))
        };
        let (start, first, end) = free.iter().find_map(fits)?;
        free.remove(&start);
        for (start, end) in [(start, first), (first + bytes, end)] {
            if start < end {
                free.insert(start, end);
            }
        }
        Some(self.base.wrapping_add(first))
    }

    /// Takes a stretch back, whoever had it.
    pub(crate) fn give(&self, start: *mut u8, bytes: usize) {
        let mut free = self.free.lock().unwrap();
        let Some(mut start) = start.addr().checked_sub(self.base.addr()) else { return };
        let mut end = start + bytes;
        while let Some((&other, &other_end)) =
            free.range(..=end).next_back().filter(|&(_, &other_end)| other_end >= start)
        {
            free.remove(&other);
            (start, end) = (start.min(other), end.max(other_end));
        }
        free.insert(start, end);
    }
}

// SAFETY: blocks are disjoint stretches of memory that stays, and are free only after they were given back.
unsafe impl GlobalAlloc for Naive {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(taken(layout.size()), layout.align()).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        self.give(start, taken(layout.size()));
    }
}

// SAFETY: as above; the excess is within what the block takes, and taken back by whatever size fits.
unsafe impl Allocator for Naive {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let bytes = taken(layout.size());
        let start = self.take(bytes, layout.align()).and_then(NonNull::new).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(start, bytes))
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        self.give(start.as_ptr(), taken(layout.size()));
    }
}
