//! Bytes of the heap's own memory: filled, and looked at.

use core::ptr;

/// Fills bytes.
///
/// # Safety
/// So many bytes from `start` on may be written, and are nobody else's.
pub(super) unsafe fn fill(start: *mut u8, bytes: usize, with: u8) {
    // SAFETY: the caller's promise.
    unsafe { ptr::write_bytes(start, with, bytes) };
}

/// Whether all bytes are the same one.
///
/// # Safety
/// So many bytes from `start` on have been written, and are nobody else's.
pub(super) unsafe fn is_all(start: *const u8, bytes: usize, same: u8) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(start, bytes) };
    let all_same = u64::from_ne_bytes([same; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    // Line by line: without a decision for each word the compiler compares several at once.
    let (lines, few) = words.as_chunks::<8>();
    let differ =
        |words: &[[u8; 8]]| words.iter().fold(0, |all, &word| all | (u64::from_ne_bytes(word) ^ all_same)) != 0;
    !lines.iter().any(|line| differ(line)) && !differ(few) && rest.iter().all(|&byte| byte == same)
}

/// The eight bytes at `start`.
///
/// # Safety
/// As [`is_all`].
pub(super) unsafe fn read(start: *const u8) -> [u8; 8] {
    // SAFETY: the caller's promise; bytes have no alignment.
    unsafe { start.cast::<[u8; 8]>().read() }
}

/// Writes eight bytes at `start`.
///
/// # Safety
/// As [`fill`].
pub(super) unsafe fn write(start: *mut u8, bytes: [u8; 8]) {
    // SAFETY: the caller's promise; bytes have no alignment.
    unsafe { start.cast::<[u8; 8]>().write(bytes) };
}

/// Copies bytes from one object to another.
///
/// # Safety
/// As [`fill`] for `to`; `from` may be read, does not overlap it, and is written by nobody meanwhile.
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { ptr::copy_nonoverlapping(from, to, bytes) };
}
