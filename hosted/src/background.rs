//! A thread that gives memory back when nobody else comes by: for programs that sleep after a burst.
//!
//! It is started by the thread library itself: whoever starts it may be the allocator, and the first to allocate at
//! all.
#![allow(unsafe_code, reason = "calls of the thread library, and a sleep that can be ended")]

use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::errno::keeping_errno;
use crate::members::Member;
use crate::tls::without_signals;

/// What it needs; where the library's own words do not fit beside it, it gets what the library thinks right.
const STACK_BYTES: usize = 64 << 10;

/// Whether there is such a thread.
pub(crate) struct Background {
    /// Whose memory it looks after.
    member: &'static Member,
    /// Milliseconds from one look to the next, 0 if nobody wants it. The thread sleeps on this word.
    period_ms: AtomicU32,
    /// Whether it runs.
    runs: AtomicBool,
}

impl Background {
    pub(crate) const fn new(member: &'static Member) -> Self {
        Self { member, period_ms: AtomicU32::new(0), runs: AtomicBool::new(false) }
    }

    /// Says how often it should look: not at all if the period is zero. A thread that is there already follows at once.
    pub(crate) fn want(&'static self, period: Duration) {
        let ms = if period.is_zero() { 0 } else { u32::try_from(period.as_millis()).unwrap_or(u32::MAX).max(1) };
        // SeqCst, as wherever both words are looked at: either the thread that ends sees that it is wanted, or who
        // wants it sees that it has ended.
        self.period_ms.store(ms, Ordering::SeqCst);
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        keeping_errno(|| {
            // SAFETY: the call touches no memory: the address is that of a queue of sleepers.
            unsafe { libc::syscall(libc::SYS_futex, self.period_ms.as_ptr(), operation, i32::MAX) }
        });
    }

    /// Whether somebody wants it and it is not there, as after a `fork`.
    pub(crate) fn is_missing(&self) -> bool {
        self.period_ms.load(Ordering::Relaxed) != 0 && !self.runs.load(Ordering::Relaxed)
    }

    /// The process is a copy, with one thread.
    pub(crate) fn in_copy(&self) {
        self.runs.store(false, Ordering::Relaxed);
    }

    /// As [`start`](Self::start), in the middle of other people's code; if the system has no thread for it, nobody
    /// wants it any more.
    pub(crate) fn start_by_the_way(&'static self) {
        if keeping_errno(|| self.start()).is_err() {
            self.period_ms.store(0, Ordering::Relaxed);
        }
    }

    /// Starts it, if it is wanted and does not run. Nothing is held by the caller, since the library allocates.
    pub(crate) fn start(&'static self) -> io::Result<()> {
        if self.period_ms.load(Ordering::SeqCst) == 0 || self.runs.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let mut failed = 0;
        // The program's signal handlers are not for this thread, nor for its stack.
        without_signals(|| {
            failed = self.spawn(Some(STACK_BYTES));
            if failed == libc::EINVAL {
                failed = self.spawn(None);
            }
        });
        if failed == 0 {
            return Ok(());
        }
        self.runs.store(false, Ordering::SeqCst);
        Err(io::Error::from_raw_os_error(failed))
    }

    /// Starts the thread with a stack of so many bytes; answers the error number, 0 if it is there.
    fn spawn(&'static self, stack: Option<usize>) -> libc::c_int {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        // SAFETY: the call writes the attributes it is given.
        let made = unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) };
        if made != 0 {
            return made;
        }
        // SAFETY: made by the call above. What is refused here leaves the attributes as they were.
        unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) };
        if let Some(bytes) = stack {
            // SAFETY: as above.
            unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), bytes) };
        }
        let mut thread = MaybeUninit::uninit();
        let own = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: the attributes are made, the thread's name is written, and what the thread gets lives for ever.
        let created = unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), run, own) };
        // SAFETY: made above, and used no more.
        unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        created
    }

    /// What the thread does.
    fn work(&'static self) {
        loop {
            match self.period_ms.load(Ordering::SeqCst) {
                0 => {
                    self.runs.store(false, Ordering::SeqCst);
                    let is_wanted_again = self.period_ms.load(Ordering::SeqCst) != 0;
                    if !is_wanted_again || self.runs.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
                ms if self.sleep(ms) => self.member.instance().tick(),
                _ => {}
            }
        }
    }

    /// Sleeps for so long; `false` if somebody has changed that meanwhile.
    fn sleep(&self, ms: u32) -> bool {
        let time = libc::timespec { tv_sec: (ms / 1000).into(), tv_nsec: (ms % 1000 * 1_000_000).into() };
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the kernel reads the word and the time, which outlive the call.
        unsafe { libc::syscall(libc::SYS_futex, self.period_ms.as_ptr(), operation, ms, ptr::from_ref(&time)) };
        // Woken or not, what counts is whether it is still wanted so often.
        self.period_ms.load(Ordering::SeqCst) == ms
    }
}

extern "C" fn run(background: *mut c_void) -> *mut c_void {
    // SAFETY: what `spawn` has handed over, which lives for ever.
    let background = unsafe { &*background.cast::<Background>().cast_const() };
    // SAFETY: a name of less than 16 bytes, for the calling thread.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"pagemill".as_ptr()) };
    background.work();
    ptr::null_mut()
}
