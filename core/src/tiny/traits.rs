//! The traits by which Rust asks for memory.
//!
//! A global allocator must not unwind, but hooks and locks are others' code. So all that calls them is an `extern "C"`
//! function here, out of which a panic aborts.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use super::{TinyHeap, TinyLock};
use crate::error::AllocError;

// SAFETY: what is lent is as aligned and as long as its layout says, is lent to one caller at a time, stays where it
// is, and is not touched until it is given back; nothing unwinds, see above.
unsafe impl<L: TinyLock> GlobalAlloc for TinyHeap<L> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        alloc(self, layout)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        free(self, memory.addr(), layout);
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        alloc_zeroed(self, layout)
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is that of `TinyHeap::realloc`.
        unsafe { realloc(self, memory, layout, new_size) }
    }
}

#[allow(improper_ctypes_definitions, reason = "for its panics, not for foreign callers")]
extern "C" fn alloc<L: TinyLock>(heap: &TinyHeap<L>, layout: Layout) -> *mut u8 {
    pointer(heap.alloc(layout))
}

#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn alloc_zeroed<L: TinyLock>(heap: &TinyHeap<L>, layout: Layout) -> *mut u8 {
    pointer(heap.alloc_zeroed(layout))
}

#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn free<L: TinyLock>(heap: &TinyHeap<L>, address: usize, layout: Layout) {
    // Whoever cares for wrong frees has a hook, which knows by now; nothing has changed.
    let _ = heap.free_address(address, Some(layout));
}

/// # Safety
/// As [`TinyHeap::realloc`].
#[allow(improper_ctypes_definitions, reason = "as above")]
unsafe extern "C" fn realloc<L: TinyLock>(
    heap: &TinyHeap<L>,
    memory: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let Some(memory) = NonNull::new(memory) else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    pointer(unsafe { heap.realloc(memory, layout, new_size) })
}

fn pointer(memory: Result<NonNull<u8>, AllocError>) -> *mut u8 {
    memory.map_or(ptr::null_mut(), NonNull::as_ptr)
}

#[cfg(feature = "allocator-api2")]
crate::global::allocator!([L: TinyLock] TinyHeap<L>, allocator_api2::alloc::Allocator, allocator_api2::alloc::AllocError);
#[cfg(feature = "allocator_api")]
crate::global::allocator!([L: TinyLock] TinyHeap<L>, core::alloc::Allocator, core::alloc::AllocError);

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
impl<L: TinyLock> TinyHeap<L> {
    fn take_back(&self, address: usize, layout: Layout) {
        free(self, address, layout);
    }

    /// Makes memory for `old` memory for `new`, either of which may be of no bytes at all.
    ///
    /// # Safety
    /// As [`TinyHeap::realloc`].
    unsafe fn fit(&self, memory: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        let fitted = match (old.size(), new.size()) {
            (_, 0) => {
                if old.size() != 0 {
                    self.take_back(memory.addr().get(), old);
                }
                return Some(crate::global::nothing(new));
            }
            (0, _) => self.alloc(new).ok()?,
            // SAFETY: the caller's promise.
            _ => unsafe { self.change(memory, old, new) }.ok()?,
        };
        Some(NonNull::slice_from_raw_parts(fitted, new.size()))
    }
}
