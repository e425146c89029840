//! What happens on a wrong free: a line on the error output and an end, or what the program wants instead.
#![allow(unsafe_code, reason = "a system call, and a function kept as a word")]

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicPtr, Ordering};

use pagemill::BadFree;

use crate::errno::keeping_errno;

/// The program's own function, as an address; null if there is none.
static HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Has `hook` called with every refused free from now on.
pub(crate) fn on_bad_free(hook: fn(BadFree)) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// A free was refused. Allocates nothing.
pub(crate) fn refused(fault: BadFree) {
    let hook = HOOK.load(Ordering::Acquire);
    if hook.is_null() {
        say(&fault);
        std::process::abort();
    }
    // SAFETY: only `on_bad_free` stores anything, and it stores functions of this type.
    let hook = unsafe { std::mem::transmute::<*mut (), fn(BadFree)>(hook) };
    without_unwinding(hook, &fault);
}

/// What unwinds out of here ends the process: no caller of a global allocator expects it.
#[expect(improper_ctypes_definitions, reason = "called from here alone; C for its way with panics")]
extern "C" fn without_unwinding(hook: fn(BadFree), fault: &BadFree) {
    hook(*fault);
}

/// A line that is put together without allocating.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let part = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        Ok(())
    }
}

fn say(fault: &BadFree) {
    let mut line = Line { bytes: [0; 256], len: 0 };
    // Nothing in it fails; what is too long is cut.
    let _ = writeln!(line, "pagemill: {fault}");
    // SAFETY: the bytes are the line's.
    let _ = keeping_errno(|| unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) });
}
