//! What happens before `main` and after it, in whatever way the process ends that it is told of.
//!
//! By the lists of functions that the linker puts together, not by `atexit`: whoever registers something there may be
//! the first to allocate, when the C library is not ready for it.
#![allow(unsafe_code, reason = "places in a program that the linker knows")]

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "profile")]
use crate::profile;
use crate::{ctl, report};

/// Whether the C library is there.
static READY: AtomicBool = AtomicBool::new(false);

/// Whether the C library can start threads: the program's own functions before `main` have had their turn, or have it
/// now.
pub(crate) fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

// SAFETY: functions of this kind are what is to be here.
#[cfg(not(miri))]
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

// SAFETY: as above.
#[cfg(not(miri))]
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

extern "C" fn begin() {
    READY.store(true, Ordering::Relaxed);
    stay();
    // A heap that is there already has had to wait for this.
    ctl::all().for_each(|heap| heap.start_wanted());
    #[cfg(feature = "profile")]
    profile::at_start();
}

/// Keeps a plug-in that this is part of from being unloaded. The C library knows addresses in it: of what threads call
/// at their end, of handlers and of a thread in the background; and its objects may be anybody's. The archive and the
/// library of `malloc` are no plug-ins, and other C libraries unload nothing.
fn stay() {
    #[cfg(all(target_env = "gnu", not(target_feature = "crt-static"), not(feature = "initial-exec"), not(miri)))]
    {
        const PAGE: usize = 4096;
        let mut about = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: an address of this code, and a place for the answer.
        if unsafe { libc::dladdr(begin as extern "C" fn() as *const libc::c_void, about.as_mut_ptr()) } == 0 {
            return;
        }
        // SAFETY: written by the call.
        let about = unsafe { about.assume_init() };
        // SAFETY: a look at what the system told the process when it began.
        let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
        // Those of the program are in its first page.
        if headers.wrapping_sub(about.dli_fbase.addr()) >= PAGE {
            let how = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
            // SAFETY: the name of what is being loaded already, so that nothing begins anew. It is held for ever.
            unsafe { libc::dlopen(about.dli_fname, how) };
        }
    }
}

extern "C" fn end() {
    report::at_exit();
    #[cfg(feature = "profile")]
    profile::at_exit();
}
