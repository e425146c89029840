//! The lock of hosted instances: taken by one exchange, given back by one store, and waited for asleep.
#![allow(unsafe_code, reason = "system calls, and the promise of RawMutex")]

use std::hint::spin_loop;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::errno::keeping_errno;

const FREE: u32 = 0;
const HELD: u32 = 1;

/// A lock that its waiters sleep on.
///
/// They spin for a while, since nobody holds it for long, and then sleep in the kernel, since its holder may be waiting
/// for a processor. The holder gives it back by a plain store and looks afterwards whether anybody sleeps: between the
/// two he may miss one who is just lying down. No fence prevents that, which would cost every unlock as much as a
/// second exchange; whoever sleeps looks again by himself before long.
#[derive(Debug)]
pub struct HostedLock {
    word: AtomicU32,
    /// Whether anybody may be asleep.
    sleepers: AtomicU32,
}

/// About two microseconds; the lock is held for less.
const SPINS: u32 = 64;
/// How long a sleeper may miss that he was not woken.
const LOOK_AGAIN_NS: libc::c_long = 1_000_000;

// SAFETY: it is taken by an exchange of `FREE` for `HELD`, by one thread at a time, and is `FREE` again only when that
// one has given it back. Acquire and Release order what its holders do.
unsafe impl lock_api::RawMutex for HostedLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "what lock_api asks for")]
    const INIT: Self = Self { word: AtomicU32::new(FREE), sleepers: AtomicU32::new(0) };

    type GuardMarker = lock_api::GuardSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        self.word.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.word.store(FREE, Ordering::Release);
        if self.sleepers.load(Ordering::Relaxed) != 0 {
            self.wake();
        }
    }
}

impl HostedLock {
    #[cold]
    #[inline(never)]
    fn wait(&self) {
        use lock_api::RawMutex;
        loop {
            for _ in 0..SPINS {
                if self.word.load(Ordering::Relaxed) == FREE && self.try_lock() {
                    return;
                }
                spin_loop();
            }
            // Whoever gets the lock from here on leaves the word as it is: there may be others.
            self.sleepers.store(1, Ordering::Relaxed);
            if self.try_lock() {
                return;
            }
            self.sleep();
        }
    }

    /// Sleeps while the lock is held, for a while.
    fn sleep(&self) {
        let timeout = libc::timespec { tv_sec: 0, tv_nsec: LOOK_AGAIN_NS };
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        keeping_errno(|| {
            // SAFETY: the kernel reads the word and the time, which outlive the call.
            unsafe { libc::syscall(libc::SYS_futex, self.word.as_ptr(), operation, HELD, ptr::from_ref(&timeout)) }
        });
    }

    #[cold]
    #[inline(never)]
    fn wake(&self) {
        self.sleepers.store(0, Ordering::Relaxed);
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        keeping_errno(|| {
            // SAFETY: the call touches no memory: the address is that of a queue of sleepers.
            unsafe { libc::syscall(libc::SYS_futex, self.word.as_ptr(), operation, 1) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lock_api::Mutex;

    #[test]
    fn a_held_lock_is_waited_for_and_held_once() {
        let count = Mutex::<HostedLock, u32>::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..10_000 {
                        let mut count = count.lock();
                        *count += 1;
                        if turn % 1000 == 0 {
                            // The others fall asleep meanwhile.
                            std::thread::sleep(std::time::Duration::from_micros(200));
                        }
                    }
                });
            }
        });
        assert_eq!(*count.lock(), 40_000);
        assert!(count.try_lock().is_some());
    }

    #[test]
    fn waiting_leaves_errno_alone() {
        let lock = Mutex::<HostedLock, ()>::new(());
        let held = lock.lock();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                // SAFETY: closing no file at all only says so.
                let closed = unsafe { libc::close(-1) };
                drop(lock.lock());
                (closed, std::io::Error::last_os_error().raw_os_error())
            });
            std::thread::sleep(std::time::Duration::from_millis(5));
            drop(held);
            assert_eq!(waiter.join().unwrap(), (-1, Some(libc::EBADF)));
        });
    }
}
