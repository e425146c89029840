//! What happens on a wrong free: a line on the error output and an end, or what the program wants instead.
#![allow(unsafe_code, reason = "a function kept as a word")]

use std::sync::atomic::{AtomicPtr, Ordering};

use pagemill::BadFree;

use crate::options::options;
use crate::print::Print;

/// The program's own function, as an address; null if there is none.
static HOOK: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Has `hook` called with every refused free from now on.
pub(crate) fn on_bad_free(hook: fn(BadFree)) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// A free was refused: says so and ends the process, or does what
/// [`Pagemill::on_bad_free`](crate::Pagemill::on_bad_free) was told. For the C library, which knows of more that is
/// wrong. Allocates nothing.
#[doc(hidden)]
pub fn refused(fault: BadFree) {
    let hook = HOOK.load(Ordering::Acquire);
    if hook.is_null() {
        say(&fault);
        if options().abort() {
            std::process::abort();
        }
        // The free is ignored.
        return;
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

fn say(fault: &BadFree) {
    // SAFETY: a call that cannot fail. Older C libraries have no function for it.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    Print::to_errors().line(format_args!("pagemill: {fault}, in thread {thread}"));
}
