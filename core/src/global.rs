//! The edge where addresses become pointers: what users of objects call, and the traits of others.
//!
//! Every pointer is made from the one that [`Heap::init`] was given, and of a pointer that comes back only the address
//! is used. Memory is touched here, and only what is being lent or moved.
#![allow(unsafe_code)]

mod traits;

#[cfg(any(feature = "allocator-api2", feature = "allocator_api"))]
pub(crate) use traits::{allocator, nothing};

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use crate::backing::Relocation;
use crate::carve::Metadata;
use crate::config::Config;
use crate::error::{AllocError, BadFree, SetupError};
use crate::frame::FrameSpan;
use crate::harden::Ask;
use crate::heap::Heap;
use crate::large::{Object, at_least_a_byte};
use crate::placed::Placed;
use crate::platform::Platform;
use crate::size_class::SizeClass;

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Makes this the heap of a machine with `cpus` CPUs and `nodes` nodes, as its [`Frames`](crate::Frames) was told,
    /// for frames inside `span`.
    ///
    /// # Safety
    /// `base` is the address of frame 0. Whenever frame n of the instance is lent, its bytes lie at `base + n *
    /// FRAME_BYTES`, may be read and written through `base`, and are used by nobody but those it is lent to.
    ///
    /// If the configuration says that requests are not [interruptible](Config::INTERRUPTIBLE), then no call of this
    /// heap ever interrupts another one on the same CPU.
    ///
    /// # Errors
    /// [`SetupError::BaseMisaligned`], [`SetupError::State`] for a second call, [`SetupError::TooManyNodes`],
    /// [`SetupError::MetadataTooSmall`], [`SetupError::WouldBlock`] from a context that interrupted the allocator.
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
        if C::HARDENED {
            return self.ask(layout, true, false);
        }
        self.alloc_address(layout).map(|address| self.lend(address))
    }

    /// An object of `class` from what this CPU has at hand; `None` if that takes more, as it always does at
    /// [`Hardened`](crate::Hardened). For those who put [`alloc`](Self::alloc) behind a function of their own, such as
    /// the `malloc` of C: it calls nothing, so such a function needs no stack where this serves.
    #[inline(always)]
    pub fn alloc_at_hand(&self, class: SizeClass) -> Option<NonNull<u8>> {
        if C::HARDENED {
            return None;
        }
        Some(self.lend(self.take_by(class, Self::AT_HAND)?))
    }

    /// Takes an object back whose layout nobody knows any more, if that is right and this CPU has room for it; else
    /// nothing has happened, and it is for [`free_unsized`](Self::free_unsized), unless it is null. It calls nothing,
    /// as [`alloc_at_hand`](Self::alloc_at_hand).
    ///
    /// # Safety
    /// As [`free`](Self::free); null is no object.
    #[inline(always)]
    pub unsafe fn free_at_hand(&self, object: *mut u8) -> bool {
        !C::HARDENED && self.put_unsized(object.addr(), Self::AT_HAND)
    }

    /// As [`free_at_hand`](Self::free_at_hand), for an object whose class is known: fewer steps. At levels that check
    /// it is refused if it is of another; at [`Fast`](crate::Fast) that must not be.
    ///
    /// # Safety
    /// As [`free`](Self::free).
    #[inline(always)]
    pub unsafe fn free_at_hand_as(&self, object: NonNull<u8>, class: SizeClass) -> bool {
        !C::HARDENED && self.put_by(class, object.addr().get(), Self::AT_HAND)
    }

    /// As [`alloc`](Self::alloc), but neither reclaims nor asks the OOM policy.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn try_alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if C::HARDENED {
            return self.ask(layout, false, false);
        }
        self.answer(layout, false).address().map(|address| self.lend(address))
    }

    /// As [`alloc`](Self::alloc), all bytes zero. Large objects of frames that nobody had before are not written, where
    /// [such frames are zero](Config::FRESH_FRAMES_ARE_ZERO).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if C::HARDENED {
            return self.ask(layout, true, true);
        }
        if SizeClass::of(layout).is_none() {
            return self.alloc_other_zeroed(layout);
        }
        let object = self.alloc(layout)?;
        // SAFETY: the object was just lent and has so many bytes.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    /// An object at level [`Hardened`](crate::Hardened).
    #[inline(never)]
    fn ask(&self, layout: Layout, reclaim: bool, zeroed: bool) -> Result<NonNull<u8>, AllocError> {
        self.alloc_hardened(Ask { layout, reclaim, zeroed }, Self::report).map(|address| self.lend(address))
    }

    fn alloc_other_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if SizeClass::of(at_least_a_byte(layout)).is_some() {
            // No size at all: there is nothing to write.
            return self.alloc(layout);
        }
        let (address, zero) = self.alloc_large_zeroed(layout)?;
        let object = self.lend(address);
        if !zero {
            // SAFETY: the object was just lent and has so many bytes.
            unsafe { object.write_bytes(0, layout.size()) };
        }
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
        let address = object.addr().get();
        if C::HARDENED { self.free_hardened(address, Some(layout)) } else { self.free_address(address, layout) }
    }

    /// Takes an object back whose layout nobody knows any more: what it is is found by its address.
    ///
    /// # Safety
    /// As [`free`](Self::free).
    ///
    /// # Errors
    /// [`BadFree`]; then nothing has changed.
    #[inline]
    pub unsafe fn free_unsized(&self, object: NonNull<u8>) -> Result<(), BadFree> {
        let address = object.addr().get();
        if C::HARDENED { self.free_hardened(address, None) } else { self.free_address_unsized(address) }
    }

    /// The bytes that the user of an object may use, which are as many as he asked for or more, and exactly as many at
    /// [`Hardened`](crate::Hardened); `None` if no object that starts there is lent, as far as the level tells.
    pub fn usable_size(&self, object: NonNull<u8>) -> Option<usize> {
        if C::HARDENED {
            return self.size_hardened(object.addr().get());
        }
        self.object_at(object.addr().get()).map(Self::bytes_of)
    }

    /// Changes the size of an object: in place if its class or the next frames allow, else somewhere else.
    ///
    /// # Safety
    /// As [`free`](Self::free), if it answers `Ok`; the object is as before if not.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), and [`AllocError::Impossible`] where [`free`](Self::free) would refuse, which the
    /// fault hook is told.
    #[inline]
    pub unsafe fn realloc(
        &self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return Err(AllocError::Impossible) };
        // SAFETY: the caller's promise.
        unsafe { self.change(object, layout, new, Self::report) }.map_err(Refused::into_error)
    }

    /// As [`realloc`](Self::realloc) for an object whose layout nobody knows any more. It is then one for `new`, to be
    /// freed by [`free_unsized`](Self::free_unsized): what becomes a little smaller may stay where it is.
    ///
    /// # Safety
    /// As [`realloc`](Self::realloc).
    ///
    /// # Errors
    /// As [`realloc`](Self::realloc).
    pub unsafe fn realloc_unsized(&self, object: NonNull<u8>, new: Layout) -> Result<NonNull<u8>, AllocError> {
        let address = object.addr().get();
        if C::HARDENED {
            // SAFETY: the caller's promise.
            let changed = unsafe { self.change_hardened(address, None, new, Self::report) };
            return changed.map(|address| self.lend(address)).map_err(Refused::into_error);
        }
        let Some(held) = self.object_at(address) else {
            let _ = self.refuse(address, None);
            return Err(AllocError::Impossible);
        };
        let new = at_least_a_byte(new);
        let bytes = Self::bytes_of(held);
        let roomy = bytes >= new.size() && bytes / 2 < new.size() && address.is_multiple_of(new.align());
        if matches!(held, Object::Small(_)) && roomy || self.resize(address, held, new) {
            return Ok(self.lend(address));
        }
        // SAFETY: it has so many bytes.
        let moved = unsafe { self.copy(object, bytes, new, |new| self.alloc(new)) }?;
        let freed = self.free_address_unsized(address);
        debug_assert_eq!(freed, Ok(()));
        Ok(moved)
    }

    /// Makes an object that was requested as `old` one for `new`. `fault` is told what is found beside that.
    ///
    /// # Safety
    /// As [`realloc`](Self::realloc).
    unsafe fn change(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
        fault: fn(&Self, BadFree),
    ) -> Result<NonNull<u8>, Refused> {
        // SAFETY: the caller's promise.
        unsafe { self.change_by(object, old, new, fault, |new| self.alloc(new)) }
    }

    /// As [`change`](Self::change), with a new object from `alloc` if there must be one.
    ///
    /// # Safety
    /// As [`realloc`](Self::realloc).
    unsafe fn change_by(
        &self,
        object: NonNull<u8>,
        old: Layout,
        new: Layout,
        fault: fn(&Self, BadFree),
        alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<u8>, Refused> {
        if C::HARDENED {
            // SAFETY: the caller's promise.
            let changed = unsafe { self.change_hardened(object.addr().get(), Some(old), new, fault) };
            return changed.map(|address| self.lend(address));
        }
        let (old, new) = (at_least_a_byte(old), at_least_a_byte(new));
        let address = object.addr().get();
        let held = self.object_of(address, old).map_err(Refused::Free)?;
        if self.resize(address, held, new) {
            return Ok(self.lend(address));
        }
        // SAFETY: it is lent with so many bytes.
        let moved = unsafe { self.copy(object, old.size(), new, alloc) }.map_err(Refused::Alloc)?;
        let freed = self.free_address(address, old);
        debug_assert_eq!(freed, Ok(()));
        Ok(moved)
    }

    /// An object for `new`, from `alloc`, with what another holds, as far as it goes. Who calls this gives the other
    /// one up.
    ///
    /// # Safety
    /// The other one is lent, has `bytes` bytes, and nobody uses it meanwhile or afterwards.
    unsafe fn copy(
        &self,
        object: NonNull<u8>,
        bytes: usize,
        new: Layout,
        alloc: impl FnOnce(Layout) -> Result<NonNull<u8>, AllocError>,
    ) -> Result<NonNull<u8>, AllocError> {
        let moved = alloc(new)?;
        let bytes = bytes.min(new.size());
        // What is longer than any small object is whole frames, on both sides.
        if let Some(moves) = self.moves().filter(|moves| bytes > SizeClass::MAX_BYTES && bytes >= moves.least_bytes) {
            // SAFETY: two large objects that are lent, each of so many frames; only the other one's user knows it, and
            // he has given it up.
            match unsafe { (moves.relocate)(object.as_ptr(), moved.as_ptr(), bytes.next_multiple_of(C::FRAME_BYTES)) } {
                Relocation::Done => return Ok(moved),
                Relocation::Refused => {}
                // It stays lent for ever: nobody may have it.
                Relocation::Lost => return Err(AllocError::NoMemory),
            }
        }
        // SAFETY: two objects that are lent, neither shorter than this.
        unsafe { ptr::copy_nonoverlapping(object.as_ptr(), moved.as_ptr(), bytes) };
        Ok(moved)
    }

    /// Has whoever moves memory settle what is about to be free; `false` if it cannot be.
    pub(crate) fn settle_large(&self, span: FrameSpan) -> bool {
        let Some(moves) = self.moves() else { return true };
        let start = self.window.pointer(self.address_of(span));
        // SAFETY: whole frames of a large object that was given back, and that nobody has yet.
        unsafe { (moves.settle)(start, Self::bytes_in(span)) }
    }
}

impl<P: Platform, C: Config> Placed<'_, '_, P, C> {
    /// As [`Heap::alloc`], where the policy says.
    ///
    /// # Errors
    /// As [`Heap::alloc`]; [`AllocError::NoMemory`] too if the policy allows no node that has any.
    ///
    /// # Cost
    /// A lock, and the walk to a slab.
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        if C::HARDENED {
            return self.heap.alloc(layout);
        }
        self.alloc_address(layout).map(|address| self.heap.lend(address))
    }

    /// As [`alloc`](Self::alloc), all bytes zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let object = self.alloc(layout)?;
        // SAFETY: the object was just lent and has so many bytes.
        unsafe { object.write_bytes(0, layout.size()) };
        Ok(object)
    }

    /// As [`Heap::realloc`]; what moves goes where the policy says.
    ///
    /// # Safety
    /// As [`Heap::realloc`].
    ///
    /// # Errors
    /// As [`Heap::realloc`].
    pub unsafe fn realloc(
        &self,
        object: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return Err(AllocError::Impossible) };
        // SAFETY: the caller's promise.
        unsafe { self.heap.change_by(object, layout, new, Heap::report, |new| self.alloc(new)) }
            .map_err(Refused::into_error)
    }
}

/// Why an object was not changed.
pub(crate) enum Refused {
    Alloc(AllocError),
    /// There is no such object; it has been reported.
    Free(BadFree),
}

impl Refused {
    fn into_error(self) -> AllocError {
        match self {
            Self::Alloc(error) => error,
            Self::Free(_) => AllocError::Impossible,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
