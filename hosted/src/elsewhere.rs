//! The global allocator where there is no heap of processes: everything goes to the system's.
#![allow(unsafe_code, reason = "the promise of GlobalAlloc")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::marker::PhantomData;

use pagemill::{Checked, Config, Fast, Hardened};

use crate::level::WithHandlers;

/// A global allocator that forwards every request to [`System`]: on this target, and under Miri, there is no heap of
/// the process. Nothing is checked, and what is about that heap is missing.
pub struct Pagemill<L: Level = Checked> {
    level: PhantomData<L>,
}

/// The levels that a process has a heap for elsewhere: [`Checked`], [`Fast`] and [`Hardened`], and each of them
/// [`WithHandlers`].
pub trait Level: Config + Sync + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

impl sealed::Sealed for Checked {}
impl Level for Checked {}
impl sealed::Sealed for Fast {}
impl Level for Fast {}
impl sealed::Sealed for Hardened {}
impl Level for Hardened {}
impl<L: Level> sealed::Sealed for WithHandlers<L> {}
impl<L: Level> Level for WithHandlers<L> {}

impl<L: Level> Pagemill<L> {
    /// The allocator.
    #[expect(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { level: PhantomData }
    }
}

// SAFETY: the system's allocator keeps the promise.
unsafe impl<L: Level> GlobalAlloc for Pagemill<L> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(object, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.realloc(object, layout, new_size) }
    }
}
