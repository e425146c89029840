//! Memory that is kept warm.
//!
//! A virtual machine may give free memory back to its host, whole huge pages after a second or two. Who is lent such a
//! page next pays for the host's work as well: twenty times as much as for the guest's. That would fall on whoever
//! comes first after a pause, and on users of huge pages most. So the driver holds some touched memory, lets go of it
//! just before each run, and takes it back right after: the worker finds pages that the host has.
#![allow(unsafe_code)]

use std::ptr::{NonNull, null_mut};

use heap_workloads::load::Set;

const PAGE: usize = 4096;

/// Touched memory, in huge pages where there are any.
pub(crate) struct Ballast {
    start: NonNull<u8>,
    len: usize,
}

impl Ballast {
    /// As much as a workload of `set` uses at most.
    pub(crate) fn take(set: Set) -> Option<Self> {
        Self::new(match set {
            Set::Micro => 128 << 20,
            Set::Pages => 512 << 20,
            Set::Memory => 1 << 30,
        })
    }

    /// `None` where there is not so much: the run goes on without.
    fn new(len: usize) -> Option<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(null_mut(), len, access, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the range is the mapping's; advice changes no contents, and it does not matter if it is refused.
        unsafe { libc::madvise(start, len, libc::MADV_HUGEPAGE) };
        let ballast = Self { start: NonNull::new(start.cast())?, len };
        ballast.touch();
        Some(ballast)
    }

    fn touch(&self) {
        for at in (0..self.len).step_by(PAGE) {
            // SAFETY: the byte lies in the mapping.
            let byte = unsafe { self.start.add(at) };
            // SAFETY: the mapping is writable and this value's alone.
            unsafe { byte.write_volatile(1) };
        }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nobody else knows of it.
        let failed = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert_eq!(failed, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_touched_and_given_back() {
        let ballast = Ballast::new(2 * PAGE).unwrap();
        // SAFETY: the byte lies in the mapping.
        let byte = unsafe { ballast.start.add(PAGE) };
        // SAFETY: it is readable, and `new` has written it.
        assert_eq!(unsafe { byte.read() }, 1);
    }
}
