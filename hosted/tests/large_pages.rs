//! A system whose pages are larger than frames, as with 64 KiB on some machines with aarch64: this program has its own
//! functions for memory, which do to the system's what such a system would do.
#![cfg(all(target_os = "linux", target_env = "gnu", not(target_feature = "crt-static")))]

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::io;
use std::ptr;
use std::thread;

use pagemill_hosted::{Hardened, Pagemill};

#[global_allocator]
static A: Pagemill = Pagemill::new();

const LARGE: usize = 64 << 10;
const MIB: usize = 1 << 20;

/// The C library's function of this name, behind that of this program.
fn next(name: &CStr) -> *mut c_void {
    // SAFETY: a name that ends with 0.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!next.is_null());
    next
}

fn is_whole(start: *mut c_void) -> bool {
    start.addr().is_multiple_of(LARGE)
}

fn refused() -> c_int {
    // SAFETY: the place is the calling thread's own.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { place.write(libc::EINVAL) };
    -1
}

// SAFETY: it answers as the function of this name does.
#[unsafe(no_mangle)]
extern "C" fn getauxval(kind: c_ulong) -> c_ulong {
    if kind == libc::AT_PAGESZ {
        return LARGE as c_ulong;
    }
    // SAFETY: the function of this name is of this type.
    let next = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(c_ulong) -> c_ulong>(next(c"getauxval")) };
    next(kind)
}

fn raw_mmap(start: *mut c_void, bytes: usize, rights: c_int, flags: c_int, file: c_int, offset: i64) -> *mut c_void {
    // SAFETY: as whoever asks for the mapping has it.
    unsafe { libc::syscall(libc::SYS_mmap, start, bytes, rights, flags, file, offset) as *mut c_void }
}

// SAFETY: it does what the function of this name does, on a system with such pages.
#[unsafe(no_mangle)]
extern "C" fn mmap(start: *mut c_void, bytes: usize, rights: c_int, flags: c_int, file: c_int, at: i64) -> *mut c_void {
    // Files are of no interest here.
    if flags & libc::MAP_ANONYMOUS == 0 {
        return raw_mmap(start, bytes, rights, flags, file, at);
    }
    let bytes = bytes.next_multiple_of(LARGE);
    if flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != 0 {
        if is_whole(start) {
            return raw_mmap(start, bytes, rights, flags, file, at);
        }
        refused();
        return libc::MAP_FAILED;
    }
    let first = raw_mmap(start, bytes + LARGE, rights, flags, file, at);
    if first == libc::MAP_FAILED {
        return first;
    }
    let skip = first.addr().next_multiple_of(LARGE) - first.addr();
    let whole = first.wrapping_byte_add(skip);
    for (start, bytes) in [(first, skip), (whole.wrapping_byte_add(bytes), LARGE - skip)] {
        if bytes != 0 {
            // SAFETY: the ends of a new mapping that nobody knows yet.
            unsafe { libc::syscall(libc::SYS_munmap, start, bytes) };
        }
    }
    whole
}

// SAFETY: as above; the same by the name that the standard library calls it.
#[unsafe(no_mangle)]
extern "C" fn mmap64(
    start: *mut c_void,
    bytes: usize,
    rights: c_int,
    flags: c_int,
    file: c_int,
    at: i64,
) -> *mut c_void {
    mmap(start, bytes, rights, flags, file, at)
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn munmap(start: *mut c_void, bytes: usize) -> c_int {
    let bytes = if is_whole(start) { bytes.next_multiple_of(LARGE) } else { bytes };
    // SAFETY: as whoever asks for it has it.
    unsafe { libc::syscall(libc::SYS_munmap, start, bytes) as c_int }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn mprotect(start: *mut c_void, bytes: usize, rights: c_int) -> c_int {
    if !is_whole(start) {
        return refused();
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_mprotect, start, bytes.next_multiple_of(LARGE), rights) as c_int }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int {
    if !is_whole(start) {
        return refused();
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_madvise, start, bytes.next_multiple_of(LARGE), advice) as c_int }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn mremap(
    start: *mut c_void,
    bytes: usize,
    new: usize,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    let fixed = flags & libc::MREMAP_FIXED != 0;
    // A place of the kernel's choice would have to be whole as well.
    if !is_whole(start) || !fixed || !is_whole(to) {
        refused();
        return libc::MAP_FAILED;
    }
    let [bytes, new] = [bytes, new].map(|bytes| bytes.next_multiple_of(LARGE));
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_mremap, start, bytes, new, flags, to) as *mut c_void }
}

/// The layout of the block of a number: small ones, slabs of one, and some of many pages.
fn layout(n: usize) -> Layout {
    Layout::from_size_align(1 + n * 7919 % [600, 40_000, MIB][n % 97 % 3], 16).expect("one")
}

/// A block that is full of its number. Every other one is zero before.
fn take(heap: &dyn GlobalAlloc, n: usize) -> &'static mut [u8] {
    let layout = layout(n);
    let zeroed = n.is_multiple_of(2);
    let block = if zeroed {
        // SAFETY: the layout has bytes.
        unsafe { heap.alloc_zeroed(layout) }
    } else {
        // SAFETY: as above.
        unsafe { heap.alloc(layout) }
    };
    assert!(!block.is_null());
    if !zeroed {
        // SAFETY: just lent.
        unsafe { block.write_bytes(0, layout.size()) };
    }
    // SAFETY: just lent, all written, and nobody else's until it is given back.
    let bytes = unsafe { std::slice::from_raw_parts_mut(block, layout.size()) };
    assert!(bytes.iter().all(|&byte| byte == 0), "block {n}");
    bytes.fill(n as u8);
    bytes
}

/// Takes it back.
fn give(heap: &dyn GlobalAlloc, n: usize, block: &'static mut [u8]) {
    assert!(block.iter().all(|&byte| byte == n as u8), "block {n}");
    // SAFETY: lent with the layout of its number, and used no more.
    unsafe { heap.dealloc(block.as_mut_ptr(), layout(n)) };
}

/// Blocks of all sizes, of which each holds its own number, up and down.
fn live(heap: &(dyn GlobalAlloc + Sync), seed: usize) {
    let mut held: BTreeMap<usize, &'static mut [u8]> = BTreeMap::new();
    for turn in 0..3000 {
        let n = (turn * 31 + seed) % 700;
        match held.remove(&n) {
            Some(block) => give(heap, n, block),
            None => drop(held.insert(n, take(heap, n))),
        }
        if turn % 1000 == 999 {
            A.trim();
        }
    }
    held.into_iter().for_each(|(n, block)| give(heap, n, block));
}

#[test]
fn a_heap_lives_on_large_pages() {
    // SAFETY: a look at what the system told the process when it began, or what this program makes of that.
    assert_eq!(unsafe { libc::getauxval(libc::AT_PAGESZ) }, LARGE as c_ulong, "the functions are those of this file");
    // SAFETY: nothing is there to be protected.
    let refused = unsafe { libc::mprotect(ptr::without_provenance_mut(4096), 4096, libc::PROT_NONE) };
    assert_eq!((refused, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)));
    let threads: Vec<_> = (0..3).map(|seed| thread::spawn(move || live(&A, seed))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    let mut growing = vec![1u8; 2 * MIB];
    while growing.len() < 40 * MIB {
        growing.extend_from_within(..MIB);
    }
    assert!(growing.iter().all(|&byte| byte == 1));
    drop(growing);
    A.trim();
    assert!(A.given_back_bytes() > 30 * MIB && A.stats().dirty_bytes < 4 * MIB, "{}", A.stats());
    A.set_limit(20 * MIB).expect("little is in use");
    assert!(Vec::<u8>::new().try_reserve(30 * MIB).is_err());
    A.set_limit(usize::MAX).expect("no limit");
    assert_eq!(vec![0u8; 30 * MIB].iter().position(|&byte| byte != 0), None);
    common::adds_up(&A);
}

/// Its guards are pages, of which it has none that are small enough: they are filled.
#[test]
fn a_hardened_heap_lives_on_large_pages() {
    static HARD: Pagemill<Hardened> = Pagemill::new();
    live(&HARD, 1);
    HARD.trim();
    live(&HARD, 2);
    common::adds_up(&HARD);
}
