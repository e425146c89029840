//! The allocator under a test suite: every test program that links this crate runs on it.
//!
//! On its way to the allocator each block is spoiled: what was lent is full of one number, what is freed of another. A
//! test that passes by luck, because fresh memory happens to be zero or freed memory happens to be left alone, fails
//! then, and so does an allocator that takes freed memory for zeroed.

use std::alloc::{GlobalAlloc, Layout};
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "pagemill")]
use pagemill_hosted::Pagemill as Allocator;
#[cfg(not(feature = "pagemill"))]
use std::alloc::System as Allocator;

#[cfg(feature = "pagemill")]
const ALLOCATOR: Allocator = Allocator::new();
#[cfg(not(feature = "pagemill"))]
const ALLOCATOR: Allocator = Allocator;

#[global_allocator]
static INSTALLED: Installed = Installed { allocator: ALLOCATOR, called: AtomicBool::new(false) };

struct Installed {
    allocator: Allocator,
    /// Whether anything was ever asked for.
    called: AtomicBool,
}

const LENT: u8 = 0xa1;
const FREED: u8 = 0xdf;

/// Larger blocks are left as they are: tests ask for gigabytes that they never touch.
const SPOILED: usize = 64 << 10;

impl Installed {
    fn note(&self) {
        // Only the first time: a store each time would make every thread wait for the others.
        if !self.called.load(Ordering::Relaxed) {
            self.called.store(true, Ordering::Relaxed);
        }
    }

    /// # Safety
    /// `start` is null or a block of that many bytes that nobody else uses.
    unsafe fn spoil(start: *mut u8, bytes: usize, value: u8) {
        if !start.is_null() && bytes <= SPOILED {
            // SAFETY: as the caller promises.
            unsafe { start.write_bytes(value, bytes) };
        }
    }
}

// SAFETY: all of it is the allocator's own work; a block is written to only before the caller has it and after he gave
// it back.
unsafe impl GlobalAlloc for Installed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: as the caller promises.
        let start = unsafe { self.allocator.alloc(layout) };
        // SAFETY: the block was lent just now, if there is one.
        unsafe { Self::spoil(start, layout.size(), LENT) };
        start
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller uses the block no more.
        unsafe { Self::spoil(start, layout.size(), FREED) };
        // SAFETY: as the caller promises.
        unsafe { self.allocator.dealloc(start, layout) };
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note();
        // SAFETY: as the caller promises.
        unsafe { self.allocator.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        let moved = unsafe { self.allocator.realloc(start, layout, size) };
        if !moved.is_null() && size > layout.size() && size <= SPOILED {
            // SAFETY: the new block is longer than the old one.
            let rest = unsafe { moved.add(layout.size()) };
            // SAFETY: nobody was told of these bytes yet.
            unsafe { Self::spoil(rest, size - layout.size(), LENT) };
        }
        moved
    }
}

/// Asserts that the calling program runs on it. A program that links another global allocator as well is no program.
///
/// # Panics
/// If it does not.
pub fn assert_installed() {
    drop(hint::black_box(Box::new([LENT; 100])));
    assert!(INSTALLED.called.load(Ordering::Relaxed), "the program runs on another allocator");
}
