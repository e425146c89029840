//! Address space for a heap: reserved in one piece, made usable part by part.
#![allow(unsafe_code, reason = "system calls on memory")]

use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use pagemill::Metadata;

use crate::errno::keeping_errno;
use crate::proc::Lines;

/// The bytes of a frame, and of the smallest page there is.
pub(crate) const PAGE: usize = 4096;

/// The bytes of the system's pages: those of a frame, or 16 or 64 KiB on some machines with aarch64. For the C library,
/// too.
#[doc(hidden)]
pub fn system_page() -> usize {
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: a look at what the system told the process when it began.
            let told = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
            let page = if told.is_power_of_two() { told.max(PAGE) } else { PAGE };
            KNOWN.store(page, Ordering::Relaxed);
            page
        }
        page => page,
    }
}

/// Whether these are whole pages of the system.
pub(crate) fn are_whole(start: *mut u8, bytes: usize) -> bool {
    (start.addr() | bytes) & (system_page() - 1) == 0
}

/// A range of addresses that nobody else in the process gets.
#[derive(Clone, Copy)]
pub(crate) struct Reservation {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: addresses are the process's, not a thread's, and nothing is reached through a shared reference.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `bytes` from a multiple of `align` on, a power of two. None of it can be touched yet, and none of it
    /// counts as memory, however strictly the system counts.
    pub(crate) fn new(bytes: usize, align: usize) -> Option<Self> {
        let bytes = bytes.checked_next_multiple_of(system_page())?;
        let asked = bytes.checked_add(align - PAGE)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel wants touches nothing that exists.
        let mapped = keeping_errno(|| unsafe { libc::mmap(ptr::null_mut(), asked, libc::PROT_NONE, flags, -1, 0) });
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let first = NonNull::new(mapped.cast::<u8>())?;
        let skip = first.as_ptr().addr().wrapping_neg() & (align - 1);
        unmap(first, skip);
        // SAFETY: `skip` is below `align` and a multiple of the page's size, so inside the mapping.
        let start = unsafe { first.add(skip) };
        // SAFETY: `skip + bytes` is at most what was asked for.
        unmap(unsafe { start.add(bytes) }, asked - skip - bytes);
        Some(Self { start, bytes })
    }

    /// Gives all of it back. Nobody may have been given any part of it that he will use.
    pub(crate) fn give_up(self) {
        unmap(self.start, self.bytes);
    }

    /// Its first address.
    pub(crate) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> Range<usize> {
        let start = self.start.addr().get();
        start..start + self.bytes
    }

    /// Lets these bytes, rounded to pages of the system, be read as zeros, which does not count as memory. In huge
    /// pages of zeros: whoever locks all that the process has maps all of this, and small ones would take a minute.
    pub(crate) fn show(&self, range: Range<usize>) -> bool {
        self.protect(range.clone(), libc::PROT_READ) && self.advise(range, libc::MADV_HUGEPAGE)
    }

    /// As [`commit`](Self::commit) of bytes that were shown. Huge pages are kept away from them, of which a byte here
    /// and a byte there would make much.
    pub(crate) fn commit_shown(&self, range: Range<usize>) -> bool {
        self.advise(range.clone(), libc::MADV_NOHUGEPAGE) && self.commit(range)
    }

    /// Wishes for huge pages here, or for none. It is known before anything is touched, so that the first touch gets
    /// one.
    pub(crate) fn prefer_huge(&self, range: Range<usize>, huge: bool) {
        if !range.is_empty() {
            self.advise(range, if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE });
        }
    }

    /// Puts explicit huge pages behind whole huge frames that nobody has touched, if the system has as many to spare;
    /// they are set aside now, so that no touch finds none later. Answers whether it has; `None` if there is no memory
    /// there at all any more.
    pub(crate) fn map_huge(&self, range: Range<usize>) -> Option<bool> {
        let (first, bytes) = self.pages(range)?;
        if map(first, bytes, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB) {
            return Some(true);
        }
        // A call that fails may have left a hole.
        map(first, bytes, libc::MAP_NORESERVE).then_some(false)
    }

    fn advise(&self, range: Range<usize>, advice: libc::c_int) -> bool {
        let Some((first, bytes)) = self.pages(range) else { return false };
        // SAFETY: the pages are this reservation's, and the advice takes nothing away.
        let _ = keeping_errno(|| unsafe { libc::madvise(first.as_ptr().cast(), bytes, advice) });
        // A kernel that knows no huge pages does not take it, and does not need it.
        true
    }

    /// Makes these bytes, rounded to pages, memory that reads as zeros; `false` if the system has none. May be asked
    /// for again.
    pub(crate) fn commit(&self, range: Range<usize>) -> bool {
        self.protect(range, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Lets the system have what is behind these frames, which read as zeros afterwards; `false` if it does not take
    /// all of it, because they are locked, because somebody has forbidden it, or because they are no whole pages of the
    /// system.
    pub(crate) fn discard(&self, range: Range<usize>) -> bool {
        let page = system_page();
        let (from, to) = (range.start.next_multiple_of(page), range.end & !(page - 1));
        let Some((first, bytes)) = self.pages(from..to) else { return false };
        // SAFETY: whole pages of this reservation, and nobody uses what is in them.
        let taken = keeping_errno(|| unsafe { libc::madvise(first.as_ptr().cast(), bytes, libc::MADV_DONTNEED) == 0 });
        taken && bytes == range.len()
    }

    /// Gets the pages behind these bytes at once, which changes nothing in those that are there.
    pub(crate) fn populate(&self, range: Range<usize>) -> Populated {
        let Some((first, bytes)) = self.pages(range) else { return Populated::NotNow };
        keeping_errno(|| {
            // SAFETY: the pages are this reservation's, and what they hold stays.
            if unsafe { libc::madvise(first.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) } == 0 {
                return Populated::Yes;
            }
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOMEM | libc::EFAULT | libc::EAGAIN | libc::EINTR) => Populated::NotNow,
                // A kernel that does not know the advice, or a filter that refuses it.
                _ => Populated::Never,
            }
        })
    }

    fn protect(&self, range: Range<usize>, rights: libc::c_int) -> bool {
        let Some((first, bytes)) = self.pages(range) else { return false };
        // SAFETY: the pages are this reservation's; those in use only ever get more rights.
        keeping_errno(|| unsafe { libc::mprotect(first.as_ptr().cast(), bytes, rights) == 0 })
    }

    /// The system's pages that the bytes lie in.
    pub(crate) fn pages(&self, range: Range<usize>) -> Option<(NonNull<u8>, usize)> {
        let page = system_page();
        let (from, to) = (range.start & !(page - 1), range.end.next_multiple_of(page));
        if from > to || to > self.bytes {
            return None;
        }
        // SAFETY: inside the reservation, as just tested.
        Some((unsafe { self.start.add(from) }, to - from))
    }

    /// Bytes as metadata, for ever: to be committed before they are written, and shown before they are read.
    ///
    /// # Safety
    /// Nobody has been given any of these bytes before, nor will be.
    pub(crate) unsafe fn metadata(&self, range: Range<usize>) -> Metadata<'static> {
        assert!(range.end <= self.bytes);
        // SAFETY: inside the reservation, as just tested.
        let first = unsafe { self.start.add(range.start) };
        let bytes = NonNull::slice_from_raw_parts(first.cast::<MaybeUninit<u8>>(), range.len());
        // SAFETY: they are nobody else's by the caller's promise, and stay mapped.
        let bytes = unsafe { &mut *bytes.as_ptr() };
        // SAFETY: anonymous memory is zero, and nobody has had it before.
        unsafe { Metadata::zeroed(bytes) }
    }
}

/// Whether pages are there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Populated {
    Yes,
    /// Not all of them: there is no memory.
    NotNow,
    /// Nor will any be.
    Never,
}

/// Maps pages of a reservation anew, in which nothing is.
fn map(first: NonNull<u8>, bytes: usize, kind: libc::c_int) -> bool {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | kind;
    // SAFETY: the pages are a reservation's, and nothing is in them.
    keeping_errno(|| unsafe { libc::mmap(first.as_ptr().cast(), bytes, rights, flags, -1, 0) }) != libc::MAP_FAILED
}

fn unmap(start: NonNull<u8>, bytes: usize) {
    if bytes != 0 {
        // SAFETY: both ends of a new mapping that nobody knows yet.
        let unmapped = keeping_errno(|| unsafe { libc::munmap(start.as_ptr().cast(), bytes) });
        debug_assert_eq!(unmapped, 0);
    }
}

/// The bytes of address space that the process may have, if that is limited (`ulimit -v`).
pub(crate) fn limit() -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the structure it is given, which outlives it.
    let told = keeping_errno(|| unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) }) == 0;
    (told && limit.rlim_cur != libc::RLIM_INFINITY).then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
}

/// The bytes of address space that the process has, 0 if the system does not say.
pub(crate) fn mapped() -> usize {
    let pages = || {
        let mut lines = Lines::open(c"/proc/self/statm")?;
        let line = str::from_utf8(lines.next()?).ok()?;
        line.split(' ').next()?.parse::<usize>().ok()
    };
    pages().unwrap_or(0).saturating_mul(system_page())
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_mapped() {
        let before = mapped();
        let reservation = Reservation::new(1 << 40, PAGE).expect("address space");
        // Other tests come and go meanwhile, with much less.
        assert!(before > 0 && mapped() - before > 1 << 39, "{before}");
        reservation.give_up();
    }
}
