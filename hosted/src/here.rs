//! What a thread has for itself: a few words of thread-local storage without destructors.
//!
//! ```text
//!    0 word  4 handlers  8 own  12 forking  16 sitting, supplying, ended, profiling  24 desks: frames, objects  40 homes: the same  56
//! ```
//!
//! A program has them as a `thread_local!`, whose place its linker knows. A shared library's would be found by a call
//! of `__tls_get_addr`, 2.9 ns a pair, and its first use on a thread might ask `malloc` for it. So with the feature
//! `initial-exec` it is a symbol set down in assembly, at a distance from the thread's register that is settled when
//! the library is loaded with the program: two moves, and never an allocation.
#![allow(unsafe_code, reason = "a symbol set down in assembly")]

#[cfg(not(all(feature = "initial-exec", target_arch = "x86_64")))]
use std::sync::atomic::Ordering;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32};

use pagemill::Desk;

#[cfg(not(feature = "initial-exec"))]
use crate::tls::STRANGER;

/// What a thread has for itself. Atomics because signal handlers look at it; relaxed, because they are no other thread.
#[repr(C)]
pub(crate) struct Here {
    pub(crate) word: AtomicU32,
    /// Signal handlers that are running on the thread and have said so.
    pub(crate) handlers: AtomicU32,
    /// The number that it gives back when it ends; STRANGER if there is none.
    pub(crate) own: AtomicU32,
    /// The number that it has claimed while it forks; STRANGER if it does not.
    pub(crate) forking: AtomicU32,
    /// Whether its number is that of a [`Seat`](crate::tls::Seat).
    pub(crate) sitting: AtomicBool,
    /// Whether it is getting memory from the system for some instance.
    pub(crate) supplying: AtomicBool,
    /// Whether it has come to its end.
    pub(crate) ended: AtomicBool,
    /// Whether it is inside the profiler.
    pub(crate) profiling: AtomicBool,
    pub(crate) desks: [AtomicPtr<()>; Desk::COUNT],
    pub(crate) homes: [AtomicPtr<()>; Desk::COUNT],
}

// What a library takes of each thread, of the little that the loader keeps for such libraries.
const _: () = assert!(size_of::<Here>() <= 64);

#[cfg(not(feature = "initial-exec"))]
thread_local! {
    static HERE: Here = const {
        Here {
            word: AtomicU32::new(STRANGER),
            handlers: AtomicU32::new(0),
            own: AtomicU32::new(STRANGER),
            forking: AtomicU32::new(STRANGER),
            sitting: AtomicBool::new(false),
            supplying: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            profiling: AtomicBool::new(false),
            desks: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
            homes: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
        }
    };
}

/// Calls `work` with what the calling thread has.
#[cfg(not(feature = "initial-exec"))]
#[inline(always)]
pub(crate) fn with<R>(work: impl FnOnce(&Here) -> R) -> R {
    HERE.with(work)
}

/// Calls `work` with what the calling thread has.
#[cfg(feature = "initial-exec")]
#[inline(always)]
pub(crate) fn with<R>(work: impl FnOnce(&Here) -> R) -> R {
    // SAFETY: the thread's own memory, which lives as long as the thread and starts as the template below, a valid
    // `Here`. It is all atomics, and no reference to it leaves the thread: `work` may be called with any lifetime.
    work(unsafe { &*address() })
}

/// What lies on a desk of the calling thread.
#[cfg(not(all(feature = "initial-exec", target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn desk<const WHICH: usize>() -> *mut () {
    with(|here| here.desks[WHICH].load(Ordering::Relaxed))
}

/// Lays something there.
#[cfg(not(all(feature = "initial-exec", target_arch = "x86_64")))]
#[inline(always)]
pub(crate) fn lay<const WHICH: usize>(desk: *mut ()) {
    with(|here| here.desks[WHICH].store(desk, Ordering::Relaxed));
}

#[cfg(feature = "initial-exec")]
mod symbol {
    use super::Here;
    use std::arch::{asm, global_asm};
    use std::mem::offset_of;

    // As the picture above has it.
    const _: () = assert!(offset_of!(Here, word) == 0 && offset_of!(Here, handlers) == 4 && offset_of!(Here, own) == 8);
    const _: () = assert!(offset_of!(Here, forking) == 12 && offset_of!(Here, sitting) == 16);
    const _: () = assert!(offset_of!(Here, desks) == 24 && offset_of!(Here, homes) == 40 && size_of::<Here>() == 56);

    // Each thread's copy starts as this: no number, no handlers, no number to give back, no fork; nothing on the desks.
    global_asm!(
        ".pushsection .tdata.pagemill_here,\"awT\",%progbits",
        ".balign 64",
        ".hidden pagemill_here",
        ".globl pagemill_here",
        ".type pagemill_here, %object",
        ".size pagemill_here, 56",
        "pagemill_here:",
        ".4byte 0xffffffff, 0, 0xffffffff, 0xffffffff",
        ".8byte 0",
        ".8byte {empty}, {empty}, {empty}, {empty}",
        ".popsection",
        empty = sym pagemill::EMPTY_DESK,
    );

    /// Where the calling thread's copy is.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(super) fn address() -> *const Here {
        let address;
        // SAFETY: reads two words that stay as they are while a thread lives: how far the copy is from the thread's
        // register, which the loader has written, and that register's value, which x86-64 keeps where it points.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + pagemill_here@GOTTPOFF]",
                "add {0}, qword ptr fs:[0]",
                out(reg) address,
                options(pure, nomem, nostack),
            );
        }
        address
    }

    /// How far it is from the thread's register.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn distance() -> usize {
        let distance;
        // SAFETY: reads a word that the loader has written.
        unsafe {
            asm!(
                "mov {0}, qword ptr [rip + pagemill_here@GOTTPOFF]",
                out(reg) distance,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        distance
    }

    /// What lies on a desk of the calling thread: two moves, where its address would be one more.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn desk<const WHICH: usize>() -> *mut () {
        let desk;
        // SAFETY: a word of the thread's own memory, as in `with`.
        unsafe {
            asm!(
                "mov {0}, qword ptr fs:[{1} + {2}]",
                out(reg) desk,
                in(reg) distance(),
                const offset_of!(Here, desks) + WHICH * size_of::<*mut ()>(),
                options(readonly, nostack, preserves_flags),
            );
        }
        desk
    }

    /// Lays something there.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn lay<const WHICH: usize>(desk: *mut ()) {
        // SAFETY: as in `desk`; the word is one that is stored by moves.
        unsafe {
            asm!(
                "mov qword ptr fs:[{0} + {2}], {1}",
                in(reg) distance(),
                in(reg) desk,
                const offset_of!(Here, desks) + WHICH * size_of::<*mut ()>(),
                options(nostack, preserves_flags),
            );
        }
    }

    /// Where the calling thread's copy is.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    pub(super) fn address() -> *const Here {
        let address;
        // SAFETY: as for x86-64; the register is `tpidr_el0`, which holds the address itself.
        unsafe {
            asm!(
                "mrs {0}, tpidr_el0",
                "adrp {1}, :gottprel:pagemill_here",
                "ldr {1}, [{1}, #:gottprel_lo12:pagemill_here]",
                "add {0}, {0}, {1}",
                out(reg) address,
                out(reg) _,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        address
    }
}

#[cfg(feature = "initial-exec")]
use symbol::address;
#[cfg(all(feature = "initial-exec", target_arch = "x86_64"))]
pub(crate) use symbol::{desk, lay};
