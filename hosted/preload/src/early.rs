//! Objects for who comes before everybody: functions that choose another function (`ifunc`), which the loader calls
//! while it links the program. The words that threads have are there by then, but not what is to be in them.
//!
//! They come from a few pages of the library, one after the other, and are never used again.
#![allow(unsafe_code, reason = "memory of the library, cut into objects")]

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

const BYTES: usize = 16 << 10;
/// Before each object lies how large it is.
const HEAD: usize = 16;

#[repr(C, align(16))]
struct Memory(UnsafeCell<[u8; BYTES]>);

// SAFETY: each part of it is given away once, by an atomic addition.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; BYTES]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

fn start() -> *mut u8 {
    MEMORY.0.get().cast()
}

/// An object, all zeros; null if there are no more.
#[cold]
pub(crate) fn alloc(layout: Layout) -> *mut u8 {
    let Some(bytes) = layout.size().checked_next_multiple_of(16) else { return ptr::null_mut() };
    let room = bytes.saturating_add(HEAD).saturating_add(layout.align());
    let taken = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
        taken.checked_add(room).filter(|&end| end <= BYTES)
    });
    let Ok(taken) = taken else { return ptr::null_mut() };
    let after_head = start().wrapping_add(taken + HEAD);
    let object = after_head.wrapping_add(after_head.addr().next_multiple_of(layout.align()) - after_head.addr());
    // SAFETY: the word before the object is in the part that was just taken, and a multiple of 16.
    unsafe { object.wrapping_sub(HEAD).cast::<usize>().write(layout.size()) };
    object
}

/// How large an object of these pages is; `None` for all others.
#[inline(always)]
pub(crate) fn size(object: NonNull<u8>) -> Option<usize> {
    let offset = object.addr().get().wrapping_sub(start().addr());
    if offset >= BYTES { None } else { Some(size_at(offset)) }
}

#[cold]
fn size_at(offset: usize) -> usize {
    let Some(head) = offset.checked_sub(HEAD) else { return 0 };
    // SAFETY: a word of these pages: what was written when the object was lent, and anything for what is no object.
    unsafe { start().wrapping_add(head).cast::<usize>().read_unaligned() }
}
