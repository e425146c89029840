//! mimalloc 3 by its plain calls wherever they align enough: the crate's own type takes the slower aligned ones always.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// What `mi_malloc` answers is aligned to this, for sizes that are at least as large.
const NATURAL: usize = 16;

struct Plain;

fn is_plain(align: usize, size: usize) -> bool {
    align <= 8 || (align <= NATURAL && align <= size)
}

// SAFETY: every method answers what mimalloc does for the same size and an alignment no smaller than the layout's.
unsafe impl GlobalAlloc for Plain {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (align, size) = (layout.align(), layout.size());
        if is_plain(align, size) {
            // SAFETY: every size is allowed.
            return unsafe { mi::mi_malloc(size) }.cast();
        }
        // SAFETY: a layout's alignment is a power of two.
        unsafe { mi::mi_malloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (align, size) = (layout.align(), layout.size());
        if is_plain(align, size) {
            // SAFETY: every size is allowed.
            return unsafe { mi::mi_zalloc(size) }.cast();
        }
        // SAFETY: a layout's alignment is a power of two.
        unsafe { mi::mi_zalloc_aligned(size, align) }.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        // SAFETY: the caller holds the block, as it promises.
        unsafe { mi::mi_free(ptr.cast()) };
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        if is_plain(align, size) {
            // SAFETY: the caller holds the block, as it promises.
            return unsafe { mi::mi_realloc(ptr.cast(), size) }.cast();
        }
        // SAFETY: the caller holds the block, and a layout's alignment is a power of two.
        unsafe { mi::mi_realloc_aligned(ptr.cast(), size, align) }.cast()
    }
}

#[global_allocator]
static GLOBAL: Plain = Plain;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
