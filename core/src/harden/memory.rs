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
/// By pointers, not as a slice: no reference is made to what somebody may be writing by mistake.
///
/// # Safety
/// So many bytes from `start` on have been written, and are nobody else's.
pub(super) unsafe fn is_all(start: *const u8, bytes: usize, same: u8) -> bool {
    const LINE: usize = 64;
    let all_same = u64::from_ne_bytes([same; 8]);
    let (lines, words) = (bytes / LINE, bytes / 8);
    for line in 0..lines {
        // SAFETY: before the end.
        let place = unsafe { start.add(line * LINE) };
        // SAFETY: a whole line before the end.
        let line = unsafe { place.cast::<[u64; LINE / 8]>().read_unaligned() };
        // Without a decision for each word the compiler compares several at once.
        if line.into_iter().fold(0, |all, word| all | (word ^ all_same)) != 0 {
            return false;
        }
    }
    for word in lines * LINE / 8..words {
        // SAFETY: before the end.
        let place = unsafe { start.add(word * 8) };
        // SAFETY: a whole word before the end.
        if unsafe { place.cast::<u64>().read_unaligned() } != all_same {
            return false;
        }
    }
    (words * 8..bytes).all(|byte| {
        // SAFETY: before the end.
        let place = unsafe { start.add(byte) };
        // SAFETY: as above.
        unsafe { place.read() == same }
    })
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
