//! What happens before `main` and after it, in whatever way the process ends that it is told of.
//!
//! By the lists of functions that the linker puts together, not by `atexit`: whoever registers something there may be the
//! first to allocate, when the C library is not ready for it.
#![allow(unsafe_code, reason = "places in a program that the linker knows")]

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "profile")]
use crate::profile;
use crate::{ctl, report};

/// Whether the C library is there.
static READY: AtomicBool = AtomicBool::new(false);

/// Whether the C library can start threads: the program's own functions before `main` have had their turn, or have it now.
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
    // A heap that is there already has had to wait for this.
    ctl::all().for_each(|heap| heap.start_wanted());
    #[cfg(feature = "profile")]
    profile::at_start();
}

extern "C" fn end() {
    report::at_exit();
    #[cfg(feature = "profile")]
    profile::at_exit();
}
