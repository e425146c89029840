//! A chain: things that many put in and one takes out, all at once.

use core::marker::PhantomData;
use core::ptr;

use super::{AtomicPtr, Invariant, Ordering, const_fn, mutant};

/// The place in a thing for its next one in a chain.
pub(crate) struct Link<'m, T> {
    next: AtomicPtr<T>,
    lives: Invariant<'m, T>,
}

impl<T> Link<'_, T> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { next: AtomicPtr::new(ptr::null_mut()), lives: PhantomData }
        }
    }
}

/// Things that can be in a chain, in one at a time.
pub(crate) trait Chained<'m>: 'm {
    fn link(&self) -> &Link<'m, Self>
    where
        Self: Sized;
}

/// A stack that is only ever emptied whole, so no element can come back between a look and an exchange (Treiber, 1986,
/// without the part of it that is hard).
pub(crate) struct Chain<'m, T> {
    head: AtomicPtr<T>,
    lives: Invariant<'m, T>,
}

impl<'m, T: Chained<'m>> Chain<'m, T> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { head: AtomicPtr::new(ptr::null_mut()), lives: PhantomData }
        }
    }

    /// Puts `item` in, which must be in no chain.
    pub(crate) fn push(&self, item: &'m T) {
        let place = ptr::from_ref(item).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // Relaxed: published by the exchange.
            item.link().next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire of `take`; who takes the item sees what was done before.
            let success = if mutant("chain_relaxed") { Ordering::Relaxed } else { Ordering::Release };
            match self.head.compare_exchange_weak(head, place, success, Ordering::Relaxed) {
                Ok(_) => return,
                Err(found) => head = found,
            }
        }
    }

    /// Whether there is nothing in it: advice.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes all out, the latest first. One may be put in again as soon as the iterator has given it.
    pub(crate) fn take(&self) -> impl Iterator<Item = &'m T> + use<'m, T> {
        let mut next = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        core::iter::from_fn(move || {
            // SAFETY: null, or from a `&'m T` that `push` was given.
            let item: &'m T = unsafe { next.as_ref() }?;
            next = item.link().next.load(Ordering::Relaxed);
            Some(item)
        })
    }
}
