//! `fork`: the child has one thread, and every lock as it was.
//!
//! So the thread that forks takes all locks before, and gives them back on both sides. Its handlers are registered with
//! the first request of the process, mostly before anybody else's: then they are the last to run before the fork and
//! the first after it, and the handlers of others may allocate.
#![allow(unsafe_code, reason = "calls of the thread library")]

use std::sync::atomic::{AtomicBool, Ordering};

use pagemill::{CpuId, Platform};

use crate::errno::keeping_errno;
#[cfg(feature = "profile")]
use crate::profile;
use crate::tls::{self, Hosted};
use crate::{members, numbers};

/// Registers the handlers, once.
pub(crate) fn prepare() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    // SAFETY: the handlers may run on any thread that forks.
    let registered = keeping_errno(|| unsafe { libc::pthread_atfork(Some(before), Some(after), Some(in_child)) });
    // Where there is no room for them a child may hang, as with most allocators.
    debug_assert_eq!(registered, 0);
}

unsafe extern "C" fn before() {
    // Who forks in a handler that interrupted the allocator gets the locks as they are: they may be its own.
    if tls::is_supplying() {
        return;
    }
    let Some(pinned) = Hosted::pin() else { return };
    // So that a handler that finds no memory does not wait for the lock behind which there may be more: it is this
    // thread's.
    tls::set_supplying(true);
    members::before_fork(&pinned);
    #[cfg(feature = "profile")]
    profile::before_fork();
    tls::set_forking(Some(pinned.cpu()));
    // The claim stays, so that handlers do not wait for the locks.
    std::mem::forget(pinned);
}

unsafe extern "C" fn after() {
    if let Some(cpu) = tls::set_forking(None) {
        give_back(cpu, None);
    }
}

unsafe extern "C" fn in_child() {
    let cpu = tls::set_forking(None);
    // The numbers of other threads stay taken: nobody knows what they were doing to their pools.
    numbers::lose_all_but(tls::own_number());
    #[cfg(feature = "profile")]
    profile::in_copy(numbers::lost().next().is_some());
    if let Some(cpu) = cpu {
        give_back(cpu, Some(cpu));
    }
}

fn give_back(cpu: CpuId, copied_as: Option<CpuId>) {
    #[cfg(feature = "profile")]
    profile::after_fork();
    members::after_fork(copied_as);
    tls::set_supplying(false);
    Hosted::leave(cpu);
}
