//! Word that a thread ends: a key of its own with a destructor.
//!
//! Not a `thread_local!` with `Drop`, whose list of destructors is itself allocated, and is worked off first:
//! destructors of keys come after those of all thread-locals, which therefore still find their thread's pools.
#![allow(unsafe_code, reason = "calls of the thread library")]

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::errno::keeping_errno;
use crate::tls;

/// The key plus one, 0 before there is one.
static KEY: AtomicU32 = AtomicU32::new(0);

/// Promises that [`tls::end`] is called when the calling thread ends; `false` if the system has no room for the
/// promise.
pub(crate) fn announce() -> bool {
    keeping_errno(|| {
        let Some(key) = key() else { return false };
        // SAFETY: the key exists for ever; the value is only ever compared with null.
        unsafe { libc::pthread_setspecific(key, ptr::without_provenance(1)) == 0 }
    })
}

fn key() -> Option<libc::pthread_key_t> {
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Some(known - 1);
    }
    let mut new = 0;
    // SAFETY: the call writes the key it is given; the destructor may be called on any thread that has set a value.
    if unsafe { libc::pthread_key_create(&mut new, Some(ended)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, new + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(new),
        Err(first) => {
            // SAFETY: the key was made here and nobody else knows it.
            let deleted = unsafe { libc::pthread_key_delete(new) };
            debug_assert_eq!(deleted, 0);
            Some(first - 1)
        }
    }
}

unsafe extern "C" fn ended(_: *mut c_void) {
    tls::end();
}
