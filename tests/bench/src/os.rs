//! What needs `unsafe`: the CPU clocks, reserved address space, and the one peer that wants memory.
#![allow(unsafe_code)]

use buddy_slab_allocator::BuddyAllocator;

/// CPU time of the calling thread in nanoseconds.
pub fn cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of all threads that there are and were, in nanoseconds.
pub fn process_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    let failed = unsafe { libc::clock_gettime(clock, &mut now) };
    assert_eq!(failed, 0, "there is such a clock");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Zeroed memory that takes no room until it is touched.
pub struct Reservation {
    start: *mut libc::c_void,
    len: usize,
}

// SAFETY: the memory belongs to the reservation alone and may be used from any thread.
unsafe impl Send for Reservation {}
// SAFETY: a shared reference to it allows nothing.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `len` bytes, aligned to a page.
    pub fn new(len: usize) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED, "{len} bytes of address space");
        Self { start, len }
    }

    /// The reserved bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is readable, writable, zeroed, `len` bytes long and borrowed by `self` alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.len) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and nobody borrows it any more.
        let failed = unsafe { libc::munmap(self.start, self.len) };
        debug_assert_eq!(failed, 0);
    }
}

/// Starts `buddy` on the first `len` bytes of `region` and returns how many frames it manages there, and where the
/// first of them lies.
pub fn start_buddy(buddy: &mut BuddyAllocator, region: &mut Reservation, len: usize) -> (usize, usize) {
    // SAFETY: `bytes` hands out the whole mapping, which the caller keeps for as long as `buddy`. Only metadata at
    // its start is ever touched.
    unsafe { buddy.init(&mut region.bytes()[..len]) }.expect("the region has room for the metadata");
    let section = buddy.section(0).expect("one region was added");
    (section.total_pages, section.start)
}
