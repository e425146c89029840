//! The atomics of a run under shuttle: the machine's own, with a point before each access at which another thread of the
//! run may go on.
//!
//! Not shuttle's own ones: those are an order of magnitude larger than the word, so metadata would have another shape, and
//! zero bytes would be no atomics. Both kinds know one order only, the sequentially consistent one: what a weaker order
//! allows is for the models, what many steps of many threads do to one another is for these runs.
#![allow(unsafe_code)]

use core::sync::atomic::Ordering;

/// Lets the scheduler choose who goes on. Nothing outside a run, and while a run sets up or looks at what is left.
#[inline]
pub(crate) fn point() {
    if crate::models::is_exploring() {
        // This is how its threads say that they have come to a step; it knows no time.
        shuttle::thread::sleep(core::time::Duration::ZERO);
    }
}

macro_rules! word {
    ($name:ident, $word:ty) => {
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub(crate) struct $name(core::sync::atomic::$name);

        impl $name {
            pub(crate) const fn new(value: $word) -> Self {
                Self(core::sync::atomic::$name::new(value))
            }

            through!(load() -> $word);
            through!(store(value: $word) -> ());
            through!(swap(value: $word) -> $word);
            through!(fetch_add(value: $word) -> $word);
            through!(fetch_sub(value: $word) -> $word);
            through!(fetch_or(value: $word) -> $word);
            through!(fetch_and(value: $word) -> $word);
            through!(fetch_max(value: $word) -> $word);
            exchanges!($word);

            #[allow(dead_code, reason = "not every word is used in every way")]
            pub(crate) fn fetch_update(
                &self,
                set: Ordering,
                get: Ordering,
                change: impl FnMut($word) -> Option<$word>,
            ) -> Result<$word, $word> {
                point();
                self.0.fetch_update(set, get, change)
            }
        }
    };
}

macro_rules! through {
    ($method:ident($($value:ident: $type:ty)?) -> $answer:ty) => {
        #[allow(dead_code, reason = "as above")]
        pub(crate) fn $method(&self, $($value: $type,)? order: Ordering) -> $answer {
            point();
            self.0.$method($($value,)? order)
        }
    };
}

macro_rules! exchanges {
    ($word:ty) => {
        #[allow(dead_code, reason = "as above")]
        pub(crate) fn compare_exchange(
            &self,
            old: $word,
            new: $word,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$word, $word> {
            point();
            self.0.compare_exchange(old, new, success, failure)
        }

        #[allow(dead_code, reason = "as above")]
        pub(crate) fn compare_exchange_weak(
            &self,
            old: $word,
            new: $word,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$word, $word> {
            // Not the weak one of the machine, which may fail for reasons of its own.
            self.compare_exchange(old, new, success, failure)
        }
    };
}

word!(AtomicU8, u8);
word!(AtomicU16, u16);
word!(AtomicU32, u32);
word!(AtomicU64, u64);
word!(AtomicUsize, usize);

#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct AtomicPtr<T>(core::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub(crate) const fn new(value: *mut T) -> Self {
        Self(core::sync::atomic::AtomicPtr::new(value))
    }

    through!(load() -> *mut T);
    through!(store(value: *mut T) -> ());
    through!(swap(value: *mut T) -> *mut T);
    exchanges!(*mut T);
}

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
