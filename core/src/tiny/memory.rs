//! The edge where units become pointers.
//!
//! Each region has one pointer, the one it was added with; every pointer that is lent is made from it, and of a pointer
//! that comes back only the address is looked at.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use super::region::{Plan, Region};
use super::{RegionError, TinyHeap, TinyLock};
use crate::carve::Metadata;
use crate::error::{AllocError, BadFree};
use crate::id::CpuId;
use crate::platform::{Context, Platform};

/// The platform of a heap that keeps nothing per CPU: nobody is ever pinned. It only names the lock.
pub(super) struct Alone<L>(PhantomData<L>);

// SAFETY: no call of `enter` answers `Some`, so that nothing is promised for the time after one; and `context` always
// says that nobody may be waited for.
unsafe impl<L: TinyLock> Platform for Alone<L> {
    type Lock = L;

    fn enter() -> Option<CpuId> {
        None
    }

    fn leave(_cpu: CpuId) {}

    fn context() -> Context {
        Context::Nmi
    }
}

/// The pointer that a region was added with.
pub(super) struct Memory(NonNull<u8>);

// SAFETY: it is a pointer to memory that belongs to the region alone, and is used only for parts of it that the region
// has lent to the caller.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// The pointer to an address of the region.
    fn at(&self, address: usize) -> NonNull<u8> {
        let offset = address.wrapping_sub(self.0.addr().get());
        // SAFETY: addresses that a region lends lie inside it, hence behind its start.
        unsafe { self.0.add(offset) }
    }
}

impl<L: TinyLock> TinyHeap<L> {
    /// Adds memory to allocate from. Its own state takes the first bytes: 328 of 4 KiB, 496 of 32 KiB, 1336 of 100 KiB,
    /// 1 % of more; up to 127 more if the region does not start at a multiple of 128.
    ///
    /// May be called any number of times, with regions of any size and alignment, also while the heap serves.
    ///
    /// # Errors
    /// [`RegionError`]; the region remains the caller's then.
    ///
    /// # Safety
    /// The region must be valid for reads and writes, and nobody else's, for as long as the heap is used.
    pub unsafe fn add_region(&self, region: *mut [u8]) -> Result<(), RegionError> {
        let base = NonNull::new(region.cast::<u8>()).ok_or(RegionError::TooSmall)?;
        let (start, bytes) = (base.addr().get(), region.len());
        let plan = Plan::new::<L>(start, bytes)?;
        self.register(start, start + bytes, |before| {
            // SAFETY: the first bytes of the region, which the caller gives away for as long as anyone uses the heap;
            // no bytes of which a region says that they can be lent are among them.
            let metadata =
                unsafe { slice::from_raw_parts_mut(base.as_ptr().cast::<MaybeUninit<u8>>(), plan.metadata_bytes) };
            Region::build(plan, Metadata::new(metadata), Memory(base), before)
        })
    }

    /// Memory for `layout`. A layout of no bytes gets a unit too.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] if no region has as many units in a row; [`AllocError::WouldBlock`] if the memory of a
    /// region could not be looked at, because its lock is held and this [context](Self::with_context) must not wait for
    /// it; [`AllocError::NotReady`] before the first region.
    ///
    /// # Cost
    /// A look at a word for each 32 KiB, then logarithmic in the units of a tree. Where no aligned block is large
    /// enough, a bit for each unit is looked at.
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let (region, address) = self.lend(layout)?;
        Ok(region.memory().at(address))
    }

    /// As [`alloc`](Self::alloc), with every byte of the layout zero.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_zeroed(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let memory = self.alloc(layout)?;
        // SAFETY: just lent, and as long as the layout says.
        unsafe { memory.write_bytes(0, layout.size()) };
        Ok(memory)
    }

    /// Takes memory back that was allocated with this layout. Never waits: if a lock is held, its holder takes the
    /// memory along.
    ///
    /// # Errors
    /// [`BadFree`] for anything that is not lent at that moment with a size of as many units; nothing changes then. The
    /// fault hook is told too.
    ///
    /// # Safety
    /// Nobody may use the memory any more. What cannot be seen is a free of memory that was freed, and lent again.
    pub unsafe fn free(&self, memory: NonNull<u8>, layout: Layout) -> Result<(), BadFree> {
        self.free_address(memory.addr().get(), Some(layout))
    }

    /// As [`free`](Self::free), for whoever does not know the layout.
    ///
    /// # Errors
    /// As [`free`](Self::free), but for the size.
    ///
    /// # Safety
    /// As for [`free`](Self::free).
    pub unsafe fn free_unsized(&self, memory: NonNull<u8>) -> Result<(), BadFree> {
        self.free_address(memory.addr().get(), None)
    }

    /// How many bytes the allocation at `memory` can hold where it lies; `None` if there is none.
    pub fn usable_size(&self, memory: NonNull<u8>) -> Option<usize> {
        self.lent_bytes(memory.addr().get())
    }

    /// Makes an allocation one of `new_size` bytes, with what fits of its content: where it lies if it shrinks or the
    /// next units are free, else elsewhere.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc); [`AllocError::Impossible`] if there is no such allocation, of which the fault hook is
    /// told, or if no layout has that size. The allocation stays as it was.
    ///
    /// # Safety
    /// As for [`free`](Self::free), if this succeeds; the memory to use is what is returned.
    pub unsafe fn realloc(
        &self,
        memory: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> Result<NonNull<u8>, AllocError> {
        let new = Layout::from_size_align(new_size, layout.align()).map_err(|_| AllocError::Impossible)?;
        // SAFETY: the caller's promise.
        unsafe { self.change(memory, layout, new) }
    }

    /// [`realloc`](Self::realloc) to any layout.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub(super) unsafe fn change(
        &self,
        memory: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocError> {
        let address = memory.addr().get();
        let (region, fits) = self.resize(address, old, new)?;
        let from = region.memory().at(address);
        if fits {
            return Ok(from);
        }
        let to = self.alloc(new)?;
        // SAFETY: both are lent, to this caller, and at least as long as the smaller layout says.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to.as_ptr(), old.size().min(new.size())) };
        // It was lent a moment ago; if somebody has freed it since, the hook is told.
        let _ = self.free_address(address, Some(old));
        Ok(to)
    }
}
