//! The edge where addresses become pointers: what users of objects call, and the traits of others.
//!
//! Every pointer is made from the one that [`Heap::init`] was given, and of a pointer that comes back only the address is
//! used. Memory is touched here, and only what is being lent or moved.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use crate::carve::Metadata;
use crate::config::Config;
use crate::error::{AllocError, BadFree, SetupError};
use crate::frame::FrameSpan;
use crate::heap::Heap;
use crate::platform::Platform;

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Makes this the heap of a machine with `cpus` CPUs and `nodes` nodes, as its [`Frames`](crate::Frames) was told, for
    /// frames inside `span`.
    ///
    /// # Safety
    /// `base` is the address of frame 0. Whenever frame n of the instance is lent, its bytes lie at
    /// `base + n * FRAME_BYTES`, may be read and written through `base`, and are used by nobody but those it is lent to.
    ///
    /// # Errors
    /// [`SetupError::BaseMisaligned`], [`SetupError::State`] for a second call, [`SetupError::TooManyNodes`], [`SetupError::MetadataTooSmall`],
    /// [`SetupError::WouldBlock`] from a context that interrupted the allocator.
    pub unsafe fn init(
        &self,
        base: *mut u8,
        span: FrameSpan,
        cpus: usize,
        nodes: usize,
        metadata: Metadata<'m>,
    ) -> Result<(), SetupError> {
        self.init_state(base.addr(), span, cpus, nodes, metadata, || {
            // SAFETY: the caller's promise.
            unsafe { self.window.open(base) }
        })
    }

    /// An object for `layout`. No size at all is served as the least that the alignment allows.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`], after everything idle was given back; [`AllocError::WouldBlock`] from a context that
    /// interrupted the allocator; [`AllocError::Impossible`] beyond an alignment of an arena.
    ///
    /// # Cost
    /// Some fifteen plain instructions while the CPU's pool lasts, as many more for the mark at
    /// [`Checked`](crate::Checked); a lock once in some tens of calls.
    #[inline(always)]
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.alloc_address(layout).map(|address| self.lend(address))
    }

    /// As [`alloc`](Self::alloc), but neither reclaims nor asks the OOM policy.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        self.answer(layout, false).address().map(|address| self.lend(address))
    }

    /// As [`alloc`](Self::alloc), all bytes zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let object = self.alloc(layout)?;
        // SAFETY: the object was just lent and has so many bytes.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    #[inline(always)]
    fn lend(&self, address: usize) -> NonNull<u8> {
        let object = self.window.pointer(address);
        // SAFETY: frame 0's own address is lent only if `base` is not null; no other address wraps around to null.
        unsafe { NonNull::new_unchecked(object) }
    }

    /// Takes an object back. `layout` is the one it was requested with.
    ///
    /// # Safety
    /// If an object of that class is lent at the address, it is the caller's, and he does not use it any more. Whatever
    /// else the pointer is, it is refused as far as the level says.
    ///
    /// # Errors
    /// [`BadFree`]; then nothing has changed.
    #[inline(always)]
    pub unsafe fn free(&self, object: NonNull<u8>, layout: Layout) -> Result<(), BadFree> {
        self.free_address(object.addr().get(), layout)
    }

    /// Moves an object to a new size, or changes it in place.
    ///
    /// # Safety
    /// As [`free`](Self::free), if it answers `Ok`; the object is as before if not.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub unsafe fn realloc(
        &self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return Err(AllocError::Impossible) };
        if self.fits_in_place(object.addr().get(), layout, new) {
            return Ok(object);
        }
        let moved = self.alloc(new)?;
        // SAFETY: two objects that are lent, neither shorter than this.
        unsafe { ptr::copy_nonoverlapping(object.as_ptr(), moved.as_ptr(), layout.size().min(new_size)) };
        // SAFETY: the caller gives it up.
        let freed = unsafe { self.free(object, layout) };
        debug_assert_eq!(freed, Ok(()));
        Ok(moved)
    }
}

// SAFETY: objects that are lent do not overlap and are as large and as aligned as their layout says; a request never
// unwinds, nor does a free, whose hook may not.
unsafe impl<P: Platform, C: Config> GlobalAlloc for Heap<'static, P, C> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.answer(layout, true).or_null() {
            0 => ptr::null_mut(),
            address => self.window.pointer(address),
        }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // A refused free has been reported by then.
        let _ = self.free_address(object.addr(), layout);
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Heap::alloc_zeroed(self, layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(object) = NonNull::new(object) else { return ptr::null_mut() };
        // SAFETY: the caller's promise is that of `realloc`.
        unsafe { Heap::realloc(self, object, layout, new_size) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}
