//! The atomics of a run under shuttle: the machine's own, with a point before each access at which another thread of
//! the run may go on.
//!
//! Not shuttle's own ones: those are an order of magnitude larger than the word, so metadata would have another shape,
//! and zero bytes would be no atomics. Both kinds know one order only, the sequentially consistent one: what a weaker
//! order allows is for the models, what many steps of many threads do to one another is for these runs.
#![allow(unsafe_code)]

use core::ops::Deref;
use core::sync::atomic::{self, Ordering};

/// Lets the scheduler choose who goes on. Nothing outside a run, and while a run sets up or looks at what is left.
#[inline]
pub(crate) fn point() {
    if crate::models::is_exploring() {
        // This is how its threads say that they have come to a step; it knows no time.
        shuttle::thread::sleep(core::time::Duration::ZERO);
    }
}

/// An atomic of the machine's: whoever gets at it has come to a point first, so there is one before each access.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Point<A>(A);

impl<A> Deref for Point<A> {
    type Target = A;

    fn deref(&self) -> &A {
        point();
        &self.0
    }
}

macro_rules! word {
    ($name:ident, $word:ty) => {
        pub(crate) type $name = Point<atomic::$name>;

        impl $name {
            pub(crate) const fn new(value: $word) -> Self {
                Self(atomic::$name::new(value))
            }
        }
    };
}

word!(AtomicU8, u8);
word!(AtomicU16, u16);
word!(AtomicU32, u32);
word!(AtomicU64, u64);
word!(AtomicUsize, usize);

pub(crate) type AtomicPtr<T> = Point<atomic::AtomicPtr<T>>;

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(atomic::AtomicPtr::new(value))
    }
}

/// Exchanges that elsewhere are weak ones. Those of the machine may fail for reasons of their own, and a run must be
/// the same each time.
macro_rules! strong {
    ([$($generics:tt)*] $name:ty, $word:ty) => {
        impl<$($generics)*> $name {
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $word,
                new: $word,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$word, $word> {
                self.compare_exchange(old, new, success, failure)
            }
        }
    };
}

strong!([] AtomicU32, u32);
strong!([T] AtomicPtr<T>, *mut T);

/// Orders nothing that a step does not order.
pub(crate) fn fence(_order: Ordering) {}

/// The lock of a run's platform: who waits lets others go on.
pub(crate) struct PointLock(core::sync::atomic::AtomicBool);

// SAFETY: who has exchanged `false` for `true` has it, until he stores `false`.
unsafe impl lock_api::RawMutex for PointLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "as the trait has it")]
    const INIT: Self = Self(core::sync::atomic::AtomicBool::new(false));
    type GuardMarker = lock_api::GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            super::relax();
        }
    }

    fn try_lock(&self) -> bool {
        point();
        !self.0.swap(true, Ordering::Acquire)
    }

    unsafe fn unlock(&self) {
        point();
        self.0.store(false, Ordering::Release);
    }
}
