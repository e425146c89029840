//! Profiles by a signal: the handler wakes a thread that writes them.
//!
//! A handler may have interrupted anything, and writing a profile takes memory and locks. So the thread waits for it,
//! and the handler does no more than count.
#![allow(unsafe_code, reason = "a signal handler, and a word to sleep on")]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use crate::errno::keeping_errno;
use crate::tls::without_signals;

/// Signals that have come.
static ASKED: AtomicU32 = AtomicU32::new(0);
/// Whether the thread is there.
static WAITS: AtomicBool = AtomicBool::new(false);

/// Calls `work` on a thread of its own, whenever the process gets this signal. Signals that come while it works are
/// one.
pub(super) fn on(signal: i32, work: fn()) -> io::Result<()> {
    if !WAITS.swap(true, Ordering::Relaxed) {
        let wait = move || {
            let mut seen = 0;
            loop {
                sleep_while(seen);
                let asked = ASKED.load(Ordering::Acquire);
                if asked != seen {
                    seen = asked;
                    work();
                }
            }
        };
        // The program's handlers are not for this thread.
        let mut spawned = Ok(());
        without_signals(|| {
            spawned = thread::Builder::new().name("pagemill-profile".into()).spawn(wait).map(drop);
        });
        if spawned.is_err() {
            WAITS.store(false, Ordering::Relaxed);
            return spawned;
        }
    }
    install(signal)
}

/// The process is a copy, which has no such thread.
pub(super) fn in_copy() {
    WAITS.store(false, Ordering::Relaxed);
}

fn install(signal: i32) -> io::Result<()> {
    // SAFETY: zeros are an action with no flags, no mask, and a handler that is set below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = asked as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler below may interrupt anything; nothing is written where the action before would be.
    match unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn asked(_: libc::c_int) {
    ASKED.fetch_add(1, Ordering::Release);
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the call touches no memory: the address is that of a queue of sleepers.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_futex, ASKED.as_ptr(), operation, 1) });
}

fn sleep_while(seen: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let no_end = std::ptr::null::<libc::timespec>();
    // SAFETY: the kernel reads the word, which lives for ever.
    unsafe { libc::syscall(libc::SYS_futex, ASKED.as_ptr(), operation, seen, no_end) };
}
