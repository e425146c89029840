//! The functions of C. What each of them does is what the manual of the GNU C library says, its rules about sizes of 0,
//! alignments and error numbers included.
#![allow(unsafe_code, reason = "C calls these, and names them")]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use libc::{EINVAL, ENOMEM};
use pagemill_hosted::system_page;

use crate::errno;
use crate::heap::{self, LEAST_ALIGN};

// Each begins a line of the instruction cache, wherever the linker puts it: their sections are aligned so far.
std::arch::global_asm!(
    ".pushsection .text.malloc,\"ax\",%progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.alloc_fast,\"ax\",%progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.free_fast,\"ax\",%progbits",
    ".p2align 6",
    ".popsection",
    ".pushsection .text.free,\"ax\",%progbits",
    ".p2align 6",
    ".popsection",
);

fn aligned(align: usize, size: usize) -> *mut c_void {
    if align <= LEAST_ALIGN {
        return malloc(size);
    }
    match heap::layout(size, align) {
        Some(layout) => errno::or_no_memory(heap::alloc_as(layout)),
        None => errno::none(ENOMEM),
    }
}

/// An object of `size` bytes.
#[unsafe(no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    heap::alloc(size)
}

/// An object of `count` times `size` bytes, all of them zero.
#[unsafe(no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        Some(bytes) => heap::alloc_zeroed(bytes),
        None => errno::none(ENOMEM),
    }
}

/// Takes an object back.
///
/// # Safety
/// Nobody uses it any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free(object: *mut c_void) {
    // SAFETY: the caller's promise.
    unsafe { heap::free(object.cast()) };
}

/// Changes the size of an object.
///
/// # Safety
/// If the answer is not null, nobody uses the object at its old address any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realloc(object: *mut c_void, size: usize) -> *mut c_void {
    let Some(old) = NonNull::new(object.cast()) else { return malloc(size) };
    if size == 0 {
        // SAFETY: the caller's promise: a size of 0 means `free`.
        unsafe { heap::free(old.as_ptr()) };
        return std::ptr::null_mut();
    }
    // SAFETY: the caller's promise.
    errno::or_no_memory(unsafe { heap::realloc(old, size) })
}

/// As [`realloc`], to `count` times `size` bytes.
///
/// # Safety
/// As [`realloc`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn reallocarray(object: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: the caller's promise.
        Some(bytes) => unsafe { realloc(object, bytes) },
        None => errno::none(ENOMEM),
    }
}

/// An object at a multiple of `align`, or of the next power of two.
#[unsafe(no_mangle)]
pub extern "C" fn memalign(align: usize, size: usize) -> *mut c_void {
    match align.max(1).checked_next_power_of_two() {
        Some(align) => aligned(align, size),
        None => errno::none(EINVAL),
    }
}

/// An object at a multiple of `align`, a power of two.
#[unsafe(no_mangle)]
pub extern "C" fn aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return errno::none(EINVAL);
    }
    aligned(align, size)
}

/// An object at a multiple of `align`, by way of `place`. Answers an error, and leaves the error number alone.
///
/// # Safety
/// A pointer may be written to `place`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn posix_memalign(place: *mut *mut c_void, align: usize, size: usize) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return EINVAL;
    }
    let object = match heap::layout(size, align) {
        Some(layout) => heap::alloc_as(layout),
        None => std::ptr::null_mut(),
    };
    if object.is_null() {
        return ENOMEM;
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(object.cast()) };
    0
}

/// An object at the start of a page.
#[unsafe(no_mangle)]
pub extern "C" fn valloc(size: usize) -> *mut c_void {
    aligned(system_page(), size)
}

/// Whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn pvalloc(size: usize) -> *mut c_void {
    match size.max(1).checked_next_multiple_of(system_page()) {
        Some(size) => aligned(system_page(), size),
        None => errno::none(ENOMEM),
    }
}

/// How many bytes of an object may be used.
///
/// # Safety
/// Nobody frees the object meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_usable_size(object: *mut c_void) -> usize {
    NonNull::new(object.cast()).map_or(0, heap::usable_size)
}

/// As [`free`], for an object that was asked for with `size` bytes, by a function that says no alignment.
///
/// # Safety
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_sized(object: *mut c_void, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { heap::free_sized(object.cast(), size, LEAST_ALIGN) };
}

/// As [`free`], for an object that was asked for with `align` and `size`.
///
/// # Safety
/// As [`free`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn free_aligned_sized(object: *mut c_void, align: usize, size: usize) {
    // SAFETY: the caller's promise.
    unsafe { heap::free_sized(object.cast(), size, align) };
}

/// Gives idle memory back to the system; answers whether there was any. What is to stay at the end of the heap means
/// nothing to this one.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(_pad: usize) -> c_int {
    c_int::from(heap::trim() != 0)
}

/// Accepts every parameter, and changes nothing: they are those of another allocator.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(_parameter: c_int, _value: c_int) -> c_int {
    1
}
