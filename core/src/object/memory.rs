//! What touches objects: they are constructed, used by handle, and destructed.
#![allow(unsafe_code)]

use core::fmt;
use core::marker::PhantomData;
use core::mem::{self, ManuallyDrop};
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::{MemPool, ObjectCache};
use crate::config::Config;
use crate::error::{AllocError, BadFree};
use crate::platform::Platform;

/// The objects in the first slots of a slab that nobody else has. Dropped, it destructs them; if one of the destructors
/// panics, the others are run all the same.
pub(super) struct Constructed<T> {
    first: *mut u8,
    slot_bytes: usize,
    count: usize,
    objects: PhantomData<T>,
}

impl<T> Constructed<T> {
    /// Constructs an object in each of `slots` slots. If that panics, those before it are destructed again.
    ///
    /// # Safety
    /// The slots stand side by side from `first` on, `slot_bytes` from one to the next, each aligned for a `T` and as
    /// long; and nobody uses them until this is dropped or [kept](Self::keep).
    pub(super) unsafe fn make(first: *mut u8, slot_bytes: usize, slots: usize, construct: fn() -> T) -> Self {
        let mut made = Self { first, slot_bytes, count: 0, objects: PhantomData };
        while made.count < slots {
            let object = construct();
            // SAFETY: by the caller's promise the slot is the caller's, and fit for a `T`.
            unsafe { made.place(made.count).write(object) };
            made.count += 1;
        }
        made
    }

    /// The objects that stand in the slots since `make`.
    ///
    /// # Safety
    /// As [`make`](Self::make), whose objects have been [kept](Self::keep) in all the slots.
    pub(super) unsafe fn again(first: *mut u8, slot_bytes: usize, slots: usize) -> Self {
        Self { first, slot_bytes, count: slots, objects: PhantomData }
    }

    /// Leaves the objects in their slots.
    pub(super) fn keep(self) {
        mem::forget(self);
    }

    fn place(&self, slot: usize) -> *mut T {
        self.first.wrapping_add(slot * self.slot_bytes).cast()
    }
}

impl<T> Drop for Constructed<T> {
    fn drop(&mut self) {
        if !mem::needs_drop::<T>() {
            return;
        }
        /// Goes on with those before the one whose destructor panicked.
        struct Rest<'a, T>(&'a mut Constructed<T>);
        impl<T> Rest<'_, T> {
            fn run(&mut self) {
                while let Some(last) = self.0.count.checked_sub(1) {
                    self.0.count = last;
                    // SAFETY: there is an object in it, which nobody else uses, and it counts no longer.
                    unsafe { self.0.place(last).drop_in_place() };
                }
            }
        }
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.run();
            }
        }
        Rest(self).run();
    }
}

mod sealed {
    use core::ptr::NonNull;

    /// Where an object goes when its handle is dropped.
    pub trait Home<T> {
        /// # Safety
        /// The object is lent by this, to the caller, who does not use it any more.
        unsafe fn give_back(&self, object: NonNull<T>);
    }
}
use sealed::Home;

/// What an [`ObjectBox`] can be from: an [`ObjectCache`] or a [`MemPool`].
pub trait ObjectSource<T>: Home<T> {}

impl<T, P: Platform, C: Config> ObjectSource<T> for ObjectCache<'_, T, P, C> {}
impl<T, P: Platform, const N: usize, C: Config> ObjectSource<T> for MemPool<'_, '_, T, P, N, C> {}

impl<T, P: Platform, C: Config> Home<T> for ObjectCache<'_, T, P, C> {
    unsafe fn give_back(&self, object: NonNull<T>) {
        let freed = self.free_address(object.addr().get());
        debug_assert_eq!(freed, Ok(()), "a handle has the only right to its object");
    }
}

impl<T, P: Platform, const N: usize, C: Config> Home<T> for MemPool<'_, '_, T, P, N, C> {
    unsafe fn give_back(&self, object: NonNull<T>) {
        let freed = self.free_address(object.addr().get());
        debug_assert_eq!(freed, Ok(()), "a handle has the only right to its object");
    }
}

impl<T, P: Platform, const N: usize, C: Config> MemPool<'_, '_, T, P, N, C> {
    /// An object, from the reserve if the cache has none to give without reclaim.
    ///
    /// # Errors
    /// As [`ObjectCache::alloc`], and only when the reserve is empty too.
    pub fn alloc(&self) -> Result<ObjectBox<'_, T, Self>, AllocError> {
        let object = self.alloc_raw()?;
        // SAFETY: it was just lent by this.
        Ok(unsafe { ObjectBox::from_raw(self, object) })
    }

    /// Gives an object back: to the reserve if that is not full.
    ///
    /// # Safety
    /// If the object is lent by this pool it is the caller's, who does not use it any more. Whatever else the pointer
    /// is, it is refused.
    ///
    /// # Errors
    /// [`BadFree`]; then nothing has changed. At [`Fast`](crate::Fast) nobody looks whether it lies in the reserve.
    pub unsafe fn free_raw(&self, object: NonNull<T>) -> Result<(), BadFree> {
        self.free_address(object.addr().get())
    }
}

/// The right to an object of an [`ObjectCache`] or a [`MemPool`], which goes back there when this is dropped: as it is,
/// not destructed. Whoever leaves it as its constructor did leaves it so for the next user.
pub struct ObjectBox<'c, T, S: ObjectSource<T>> {
    object: NonNull<T>,
    source: &'c S,
    owned: PhantomData<T>,
}

// SAFETY: the object is reached by this alone, so it goes along as a `T` does; the source is shared.
unsafe impl<T: Send, S: ObjectSource<T> + Sync> Send for ObjectBox<'_, T, S> {}
// SAFETY: a shared box gives a shared `T` and nothing else.
unsafe impl<T: Sync, S: ObjectSource<T> + Sync> Sync for ObjectBox<'_, T, S> {}

impl<'c, T, S: ObjectSource<T>> ObjectBox<'c, T, S> {
    /// Makes a handle of the bare pointer.
    ///
    /// # Safety
    /// The object is lent by `source`, and the caller's.
    pub unsafe fn from_raw(source: &'c S, object: NonNull<T>) -> Self {
        Self { object, source, owned: PhantomData }
    }

    /// Gives up the handle for the bare pointer.
    pub fn into_raw(self) -> NonNull<T> {
        ManuallyDrop::new(self).object
    }

    /// Where the object is.
    pub fn as_ptr(&self) -> NonNull<T> {
        self.object
    }
}

impl<T, S: ObjectSource<T>> Deref for ObjectBox<'_, T, S> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the object is constructed, and this handle is the only way to it.
        unsafe { self.object.as_ref() }
    }
}

impl<T, S: ObjectSource<T>> DerefMut for ObjectBox<'_, T, S> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.object.as_mut() }
    }
}

impl<T, S: ObjectSource<T>> Drop for ObjectBox<'_, T, S> {
    fn drop(&mut self) {
        // SAFETY: by the promise of `from_raw` it is from there and this handle's, which ends here.
        unsafe { self.source.give_back(self.object) };
    }
}

impl<T: fmt::Debug, S: ObjectSource<T>> fmt::Debug for ObjectBox<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
