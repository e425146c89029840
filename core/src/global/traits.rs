//! The traits by which Rust asks for memory.
//!
//! A global allocator must not unwind, but a request may call hooks, and those are others' code. So whatever calls
//! anything is an `extern "C"` function here, out of which a panic aborts. The part that calls nothing stands before
//! it, in line.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::config::Config;
#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
use crate::error::AllocError;
use crate::error::BadFree;
use crate::harden::Ask;
use crate::heap::Heap;
#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
use crate::placed::Placed;
use crate::platform::Platform;
use crate::size_class::SizeClass;

use super::Refused;

// SAFETY: objects that are lent do not overlap and are as large and as aligned as their layout says; nothing unwinds,
// see above.
unsafe impl<P: Platform, C: Config> GlobalAlloc for Heap<'static, P, C> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if C::HARDENED {
            return hardened_rest(self, layout, false);
        }
        if let Some(class) = SizeClass::of(layout)
            && let Some(address) = self.take_pooled(class)
        {
            return self.window.pointer(address);
        }
        // SAFETY: size and alignment of one layout.
        match unsafe { alloc_rest(layout.size(), layout.align(), self) } {
            0 => ptr::null_mut(),
            address => self.window.pointer(address),
        }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        self.take_back(object.addr(), layout);
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if C::HARDENED {
            return hardened_rest(self, layout, true);
        }
        if SizeClass::of(layout).is_none() {
            return zeroed_rest(self, layout);
        }
        // SAFETY: the caller's promise.
        let object = unsafe { GlobalAlloc::alloc(self, layout) };
        if !object.is_null() {
            // SAFETY: the object was just lent and has so many bytes.
            unsafe { object.write_bytes(0, layout.size()) };
        }
        object
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise is that of `Heap::realloc`.
        unsafe { realloc_rest(self, object, layout, new_size) }
    }
}

impl<P: Platform, C: Config> Heap<'_, P, C> {
    /// Takes an object back for somebody to whom an error cannot be told.
    #[inline(always)]
    fn take_back(&self, address: usize, layout: Layout) {
        if !C::HARDENED
            && let Some(class) = SizeClass::of(layout)
            && self.put_pooled(class, address)
        {
            return;
        }
        // SAFETY: as in `alloc`.
        unsafe { free_rest(address, layout.size(), layout.align(), self) };
    }

    /// What follows a wrong free, which the hook knows of by now: nothing if there is one and it has returned, else the
    /// end of the program, since what runs on would run on memory of somebody else.
    fn judge(&self, fault: BadFree) {
        assert!(self.on_fault.get().is_some(), "{fault}");
    }

    /// Tells the hook of what it does not know yet, and then as [`judge`](Self::judge).
    fn report_and_judge(&self, fault: BadFree) {
        self.report(fault);
        self.judge(fault);
    }
}

/// A layout that came in two registers: those in which Rust's functions get it, so that none of them moves it.
///
/// # Safety
/// Size and alignment are those of one layout.
unsafe fn known(size: usize, align: usize) -> Layout {
    debug_assert!(Layout::from_size_align(size, align).is_ok());
    // SAFETY: the caller's promise.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "for its panics, not for foreign callers")]
unsafe extern "C" fn alloc_rest<P: Platform, C: Config>(size: usize, align: usize, heap: &Heap<'_, P, C>) -> usize {
    // SAFETY: the caller has them of one layout.
    let layout = unsafe { known(size, align) };
    heap.alloc_slow(layout, true).or_null()
}

#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn hardened_rest<P: Platform, C: Config>(heap: &Heap<'_, P, C>, layout: Layout, zeroed: bool) -> *mut u8 {
    match heap.alloc_hardened(Ask { layout, reclaim: true, zeroed }, Heap::report_and_judge) {
        Ok(address) => heap.window.pointer(address),
        Err(_) => ptr::null_mut(),
    }
}

#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
extern "C" fn zeroed_rest<P: Platform, C: Config>(heap: &Heap<'_, P, C>, layout: Layout) -> *mut u8 {
    heap.alloc_zeroed(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// # Safety
/// As [`Heap::realloc`].
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
unsafe extern "C" fn realloc_rest<P: Platform, C: Config>(
    heap: &Heap<'_, P, C>,
    object: *mut u8,
    layout: Layout,
    new_size: usize,
) -> *mut u8 {
    let Some(object) = NonNull::new(object) else { return ptr::null_mut() };
    let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return ptr::null_mut() };
    // SAFETY: the caller's promise.
    match unsafe { heap.change(object, layout, new, Heap::report_and_judge) } {
        Ok(changed) => changed.as_ptr(),
        Err(Refused::Alloc(_)) => ptr::null_mut(),
        Err(Refused::Free(fault)) => {
            heap.judge(fault);
            ptr::null_mut()
        }
    }
}

#[cold]
#[inline(never)]
#[allow(improper_ctypes_definitions, reason = "as above")]
unsafe extern "C" fn free_rest<P: Platform, C: Config>(
    address: usize,
    size: usize,
    align: usize,
    heap: &Heap<'_, P, C>,
) {
    // SAFETY: the caller has them of one layout.
    let layout = unsafe { known(size, align) };
    let freed = match SizeClass::of(layout) {
        _ if C::HARDENED => heap.free_hardened(address, Some(layout)),
        // The pool has been asked.
        Some(class) => heap.free_rest(class, address),
        None => heap.free_address(address, layout),
    };
    if let Err(fault) = freed {
        heap.judge(fault);
    }
}

/// An implementation of `Allocator` as the standard library has it, of which there are two: its own, behind a feature
/// of the compiler, and a copy of it for stable Rust.
#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
macro_rules! allocator {
    ([$($generics:tt)*] $heap:ty, $($allocator:ident)::+, $($error:ident)::+) => {
        // SAFETY: a heap is reached through a reference, whose copies mean the same heap. Objects that are lent do not
        // overlap, stay where they are, and are as large and as aligned as their layout says. No bytes at all are not
        // the heap's.
        unsafe impl<$($generics)*> $($allocator)::+ for &$heap {
            #[inline]
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, $($error)::+> {
                if layout.size() == 0 {
                    return Ok($crate::global::nothing(layout));
                }
                let object = self.alloc(layout).map_err(|_| $($error)::+)?;
                Ok(NonNull::slice_from_raw_parts(object, layout.size()))
            }

            #[inline]
            fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, $($error)::+> {
                if layout.size() == 0 {
                    return Ok($crate::global::nothing(layout));
                }
                let object = self.alloc_zeroed(layout).map_err(|_| $($error)::+)?;
                Ok(NonNull::slice_from_raw_parts(object, layout.size()))
            }

            #[inline]
            unsafe fn deallocate(&self, object: NonNull<u8>, layout: Layout) {
                if layout.size() != 0 {
                    self.take_back(object.addr().get(), layout);
                }
            }

            #[inline]
            unsafe fn grow(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, $($error)::+> {
                // SAFETY: the caller's promise.
                unsafe { self.fit(object, old, new) }.ok_or($($error)::+)
            }

            #[inline]
            unsafe fn grow_zeroed(
                &self,
                object: NonNull<u8>,
                old: Layout,
                new: Layout,
            ) -> Result<NonNull<[u8]>, $($error)::+> {
                if old.size() == 0 {
                    return self.allocate_zeroed(new);
                }
                // SAFETY: the caller's promise.
                let grown = unsafe { self.fit(object, old, new) }.ok_or($($error)::+)?;
                // SAFETY: it has as many bytes as `new` says, which are no fewer than those of `old`.
                let rest = unsafe { grown.cast::<u8>().add(old.size()) };
                // SAFETY: as above.
                unsafe { rest.write_bytes(0, new.size() - old.size()) };
                Ok(grown)
            }

            #[inline]
            unsafe fn shrink(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, $($error)::+> {
                // SAFETY: the caller's promise.
                unsafe { self.fit(object, old, new) }.ok_or($($error)::+)
            }
        }
    };
}

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
pub(crate) use allocator;

#[cfg(feature = "allocator-api2")]
allocator!([P: Platform, C: Config] Heap<'_, P, C>, allocator_api2::alloc::Allocator, allocator_api2::alloc::AllocError);
#[cfg(feature = "allocator-api2")]
allocator!([P: Platform, C: Config] Placed<'_, '_, P, C>, allocator_api2::alloc::Allocator, allocator_api2::alloc::AllocError);
#[cfg(feature = "allocator_api")]
allocator!([P: Platform, C: Config] Heap<'_, P, C>, core::alloc::Allocator, core::alloc::AllocError);
#[cfg(feature = "allocator_api")]
allocator!([P: Platform, C: Config] Placed<'_, '_, P, C>, core::alloc::Allocator, core::alloc::AllocError);

/// No bytes, aligned.
#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
pub(crate) fn nothing(layout: Layout) -> NonNull<[u8]> {
    let place = ptr::without_provenance_mut(layout.align());
    NonNull::slice_from_raw_parts(NonNull::new(place).unwrap_or(NonNull::dangling()), 0)
}

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
impl<P: Platform, C: Config> Heap<'_, P, C> {
    /// Makes an object for `old` one for `new`, either of which may be of no bytes at all.
    ///
    /// # Safety
    /// As [`Heap::realloc`].
    unsafe fn fit(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        // SAFETY: the caller's promise.
        unsafe { self.fit_by(object, old, new, |new| self.alloc(new)) }
    }

    /// As [`fit`](Self::fit), with a new object from `alloc` if there must be one.
    ///
    /// # Safety
    /// As [`Heap::realloc`].
    unsafe fn fit_by(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
        alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocError>,
    ) -> Option<NonNull<[u8]>> {
        let fitted = match (old.size(), new.size()) {
            (_, 0) => {
                if old.size() != 0 {
                    self.take_back(object.addr().get(), old);
                }
                return Some(nothing(new));
            }
            (0, _) => alloc(new).ok()?,
            // SAFETY: the caller's promise.
            _ => match unsafe { self.change_by(object, old, new, Self::report_and_judge, alloc) } {
                Ok(fitted) => fitted,
                Err(Refused::Alloc(_)) => return None,
                Err(Refused::Free(fault)) => {
                    self.judge(fault);
                    return None;
                }
            },
        };
        Some(NonNull::slice_from_raw_parts(fitted, new.size()))
    }
}

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
impl<P: Platform, C: Config> Placed<'_, '_, P, C> {
    fn take_back(&self, address: usize, layout: Layout) {
        self.heap.take_back(address, layout);
    }

    /// # Safety
    /// As [`Heap::realloc`].
    unsafe fn fit(&self, object: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        // SAFETY: the caller's promise.
        unsafe { self.heap.fit_by(object, old, new, |new| self.alloc(new)) }
    }
}
