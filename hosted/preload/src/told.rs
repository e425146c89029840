//! What C's functions tell about the heap: in the forms of the GNU C library, with this heap's numbers.
#![allow(unsafe_code, reason = "C calls these, and gives a stream")]

use std::ffi::{c_int, c_void};
use std::fmt::{self, Write};

use libc::FILE;
use pagemill_hosted::{Pagemill, Stats};

use crate::ctl::pagemill_c::pagemill_report;
use crate::heap::by_level;

/// `struct mallinfo2`: bytes, but for the counts of blocks.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// `struct mallinfo`: the same in the words of long ago.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct Mallinfo {
    arena: c_int,
    ordblks: c_int,
    smblks: c_int,
    hblks: c_int,
    hblkhd: c_int,
    usmblks: c_int,
    fsmblks: c_int,
    uordblks: c_int,
    fordblks: c_int,
    keepcost: c_int,
}

/// What the heap says without asking the system.
fn stats() -> Stats {
    by_level!(L => Pagemill::<L>::new().own_stats())
}

/// Where the bytes of the heap are: all of it, what is in use, what is free, and what of that could go back at once.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> Mallinfo2 {
    let stats = stats();
    Mallinfo2 {
        arena: stats.memory_bytes,
        uordblks: stats.used_bytes,
        fordblks: stats.free_bytes,
        keepcost: stats.dirty_bytes + stats.kept_bytes,
        ..Mallinfo2::default()
    }
}

/// As [`mallinfo2`], but what is more than such a number holds is the most that it holds.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> Mallinfo {
    let all = mallinfo2();
    let small = |bytes: usize| c_int::try_from(bytes).unwrap_or(c_int::MAX);
    Mallinfo {
        arena: small(all.arena),
        uordblks: small(all.uordblks),
        fordblks: small(all.fordblks),
        keepcost: small(all.keepcost),
        ..Mallinfo::default()
    }
}

/// Writes where the bytes of the heap are to the error output.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    // There is nobody to tell if that takes nothing.
    let _ = pagemill_report(libc::STDERR_FILENO, 0);
}

/// Writes the same to a stream, as XML in the manner of glibc's. Answers 0, or -1 if that fails or there are options.
///
/// # Safety
/// The stream is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut FILE) -> c_int {
    if options != 0 || stream.is_null() {
        crate::errno::none(libc::EINVAL);
        return -1;
    }
    let stats = stats();
    let mut text = Text::new();
    let _ = write!(
        text,
        "<malloc version=\"1\">\n<heap nr=\"0\">\n<system type=\"current\" size=\"{}\"/>\n<total type=\"used\" size=\"{}\"/>\n\
         <total type=\"free\" size=\"{}\"/>\n<total type=\"dirty\" size=\"{}\"/>\n<total type=\"kept\" size=\"{}\"/>\n\
         </heap>\n</malloc>\n",
        stats.memory_bytes, stats.used_bytes, stats.free_bytes, stats.dirty_bytes, stats.kept_bytes
    );
    // SAFETY: so many bytes are there to be read, and the stream is the caller's promise.
    let written = unsafe { libc::fwrite(text.bytes.as_ptr().cast::<c_void>(), 1, text.len, stream) };
    if written == text.len { 0 } else { -1 }
}

/// A text that is put together without allocating.
struct Text {
    bytes: [u8; 1024],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; 1024], len: 0 }
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let part = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        Ok(())
    }
}
