//! What the level `Hardened` wants of the system: pages that nobody can touch, pages that are zero again, and a number
//! that nobody guesses.
#![allow(unsafe_code, reason = "system calls on memory")]

use std::sync::atomic::{AtomicUsize, Ordering};

use pagemill::PageHook;

use crate::errno::keeping_errno;
use crate::proc::Lines;
use crate::reserve::are_whole;

/// For the heap of a process.
pub(crate) static PAGES: PageHook = PageHook { close, open, erase };

/// Pages that are closed now.
static CLOSED: AtomicUsize = AtomicUsize::new(0);
/// The most that may be, 0 before it is known.
static MOST_CLOSED: AtomicUsize = AtomicUsize::new(0);

/// How many mappings a process may have where the system does not say: as Linux is shipped.
const USUAL_MAPPINGS: usize = 65_530;
/// A call costs as much as writing about so many bytes and touching them again.
const ERASE_BYTES: usize = 128 << 10;

/// A closed page is a mapping, and cuts another one in two. With a quarter of all mappings closed half of them are left
/// for others.
fn most_closed() -> usize {
    match MOST_CLOSED.load(Ordering::Relaxed) {
        0 => {
            let most = max_map_count().unwrap_or(USUAL_MAPPINGS) / 4;
            MOST_CLOSED.store(most.max(1), Ordering::Relaxed);
            most
        }
        most => most,
    }
}

/// What the system says, without allocating.
fn max_map_count() -> Option<usize> {
    let mut lines = Lines::open(c"/proc/sys/vm/max_map_count")?;
    str::from_utf8(lines.next()?).ok()?.trim().parse().ok()
}

unsafe fn close(page: *mut u8, bytes: usize) -> bool {
    // The system would close what lies beside them along with them.
    if !are_whole(page, bytes) {
        return false;
    }
    keeping_errno(|| {
        // Relaxed, here and below: a count that orders nothing.
        if CLOSED.fetch_add(1, Ordering::Relaxed) < most_closed() {
            // SAFETY: pages of the heap's, which nobody touches by the caller's promise.
            if unsafe { libc::mprotect(page.cast(), bytes, libc::PROT_NONE) } == 0 {
                return true;
            }
        }
        CLOSED.fetch_sub(1, Ordering::Relaxed);
        false
    })
}

unsafe fn open(page: *mut u8, bytes: usize) -> bool {
    // SAFETY: pages that `close` has closed, and were as all of the heap's before.
    let open = keeping_errno(|| unsafe { libc::mprotect(page.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 });
    if open {
        CLOSED.fetch_sub(1, Ordering::Relaxed);
    }
    open
}

unsafe fn erase(pages: *mut u8, bytes: usize) -> bool {
    let pays = bytes >= ERASE_BYTES && are_whole(pages, bytes);
    // SAFETY: private anonymous pages of the heap's that hold nothing of anybody; they read as zeros afterwards.
    pays && keeping_errno(|| unsafe { libc::madvise(pages.cast(), bytes, libc::MADV_DONTNEED) == 0 })
}

/// A number that nobody guesses; 0 if the system has none.
pub(crate) fn secret() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: so many bytes are there to be written. It does not wait, not even early in the system's life.
    let got = keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), libc::GRND_NONBLOCK)
    });
    if got == bytes.len() as libc::c_long {
        return u64::from_ne_bytes(bytes);
    }
    // SAFETY: a look at what the system told the process when it began.
    let at = std::ptr::with_exposed_provenance::<[u8; 16]>(unsafe { libc::getauxval(libc::AT_RANDOM) } as usize);
    // SAFETY: null, or 16 bytes that stay as they are.
    let words = unsafe { at.as_ref() }.copied().map(u128::from_ne_bytes).unwrap_or(0);
    // Not as they are: the thread library makes its own secrets of them.
    (words as u64).wrapping_mul((words >> 64) as u64 | 1).rotate_left(29)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn the_system_says_how_many_mappings_there_may_be() {
        assert!(max_map_count().is_some_and(|count| count >= 1000));
        assert!(most_closed() >= 250);
    }

    #[test]
    fn secrets_differ() {
        assert_ne!(secret(), secret());
    }
}
