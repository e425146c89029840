//! The thread's error number, which tells callers of C why they got nothing.
#![allow(unsafe_code, reason = "the thread's error number")]

use std::ffi::{c_int, c_void};
use std::ptr;

/// Notes why there is no object, and answers that there is none.
#[cold]
pub(crate) fn none(why: c_int) -> *mut c_void {
    // SAFETY: the place is the calling thread's own, for as long as it lives.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above, and nobody else writes it meanwhile.
    unsafe { place.write(why) };
    ptr::null_mut()
}

/// The object, or that there is no memory for it.
#[inline(always)]
pub(crate) fn or_no_memory(object: *mut u8) -> *mut c_void {
    if object.is_null() { none(libc::ENOMEM) } else { object.cast() }
}
