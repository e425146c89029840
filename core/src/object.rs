//! Object caches: objects of one type, constructed once and used many times.
//!
//! ```text
//!                     ┌───────────── ObjectCache<T> ─────────────┐
//!   alloc ◄───────────│ slot of the fullest slab                 │          the slot's object is as its constructor, or
//!   free ────────────►│ its bit, with no lock                    │          its last user, has left it
//!                     └──┬────────────────────────────────▲──────┘
//!           a new slab:  │ constructors       destructors │  an empty slab
//!                        ▼                                │
//!                             frames of the heap
//! ```
//!
//! As kernels have known them since Bonwick, "The Slab Allocator" (1994): the work of making an object is done once for
//! each slot, not once for each request, and what comes back goes out again as it is. A cache has slabs of its own, cut
//! for the exact size of its type, in colours; they stand in the heap's directory under the number of their cache, so
//! the heap refuses such objects and a cache all others.
//!
//! **Checks.** No pool stands before the slabs, so an object that is not lent has its bit set, and a free that finds it
//! set is refused, whoever was first: of two frees at the same moment one is. No check can see a free that comes when
//! the slot is lent again. A request takes the cache's lock, once for many objects by
//! [`alloc_bulk`](ObjectCache::alloc_bulk); a free takes none.
//!
//! **Constructors and destructors** are called with no lock and no pin held, and may use the heap. They are not called
//! in [`Context::Nmi`], where only what is constructed already is given out; destructors are called by frees in
//! [`Context::Task`] alone. If one panics the panic goes to the caller, and nothing is lost: what was constructed in
//! that slab is destructed, its frames go back, and the cache is as before.
#![allow(unsafe_code)]

#[deny(unsafe_code)]
mod mem_pool;
mod memory;
#[deny(unsafe_code)]
mod options;
#[deny(unsafe_code)]
mod report;
#[deny(unsafe_code)]
mod reserve;
#[deny(unsafe_code)]
mod slabs;

use core::alloc::Layout;
use core::cell::Cell;
use core::marker::PhantomData;
use core::ops::Add;
use core::ptr::NonNull;

use memory::Constructed;
use slabs::Slabs;

pub use mem_pool::MemPool;
pub use memory::{ObjectBox, ObjectSource};
pub use options::CacheOptions;
pub use report::{CacheInfo, Leak};
#[cfg(all(test, loom))]
pub(crate) use reserve::Reserve;

use crate::config::{Checked, Config};
use crate::error::{AllocError, BadFree};
use crate::frame::FrameCount;
use crate::heap::{Heap, HeapInvalid};
use crate::platform::{Context, Platform};
use crate::reclaim::Shrink;
use crate::sync::{Lock, const_fn};

/// A cache of objects of one type, as kernels have them for inodes, tasks and requests.
///
/// Made `const`, so that it can be a `static`; it takes its first frames at the first request. Dropped, it destructs
/// its objects and gives its frames back; what is still lent then stays where it is for ever, which
/// [`destroy`](Self::destroy) tells instead.
///
/// Its lock is none of those that [`Heap::lock_all`] takes: the copy of a process that forks must not use a cache which
/// another thread may have been using at that moment.
///
/// ```
#[doc = include_str!("object/machine.txt")]
/// use pagemill::{CacheOptions, ObjectCache};
///
/// struct Inode {
///     links: u32,
///     blocks: [u64; 14],
/// }
///
/// static INODES: ObjectCache<'static, Inode, Machine> =
///     ObjectCache::new(&HEAP, CacheOptions::new("inode").line_aligned(), || Inode { links: 0, blocks: [0; 14] });
///
/// let mut inode = INODES.alloc()?;
/// inode.links = 1;
/// assert_eq!(INODES.info()?.active, 1);
/// // An object goes back as its constructor made it.
/// inode.links = 0;
/// drop(inode);
///
/// println!("{}", INODES.info()?);
/// assert_eq!(INODES.shrink().get(), 8, "a slab of 32 KiB");
/// # Ok::<(), AllocError>(())
/// ```
pub struct ObjectCache<'m, T, P: Platform, C: Config = Checked> {
    slabs: Slabs<'m, P, C>,
    construct: fn() -> T,
    /// Objects go from thread to thread through this, but are not shared by it, as through a lock.
    objects: PhantomData<Lock<P, T>>,
}

impl<'m, T, P: Platform, C: Config> ObjectCache<'m, T, P, C> {
    const_fn! {
        /// A cache over `heap` whose objects are made by `construct`.
        ///
        /// Objects are at most 32 KiB long: larger ones are frames, and a cache of them answers each request with
        /// [`AllocError::Impossible`].
        pub const fn new(heap: &'m Heap<'m, P, C>, options: CacheOptions, construct: fn() -> T) -> Self {
            Self { slabs: Slabs::new(heap, Layout::new::<T>(), options), construct, objects: PhantomData }
        }
    }

    /// An object, as its constructor or its last user has left it.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`], after everything idle was given back; [`AllocError::WouldBlock`] from a context that
    /// interrupted the allocator; [`AllocError::Impossible`] for what no slab is cut into; [`AllocError::NotReady`]
    /// before the heap is initialised.
    ///
    /// # Cost
    /// A lock and two atomic exchanges; for a new slab, its frames and a constructor a slot.
    #[inline]
    pub fn alloc(&self) -> Result<ObjectBox<'_, T, Self>, AllocError> {
        let object = self.alloc_raw()?;
        // SAFETY: it was just lent by this.
        Ok(unsafe { ObjectBox::from_raw(self, object) })
    }

    /// As [`alloc`](Self::alloc), for embedders that keep pointers. It goes back by [`free_raw`](Self::free_raw).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_raw(&self) -> Result<NonNull<T>, AllocError> {
        let mut object = [None];
        self.alloc_all(&mut object, true)?;
        object[0].ok_or(AllocError::NoMemory)
    }

    /// As [`alloc_raw`](Self::alloc_raw), but neither asks the heap's source for more nor reclaims.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn try_alloc_raw(&self) -> Result<NonNull<T>, AllocError> {
        let mut object = [None];
        self.alloc_all(&mut object, false)?;
        object[0].ok_or(AllocError::NoMemory)
    }

    /// An object for each place, or none at all: then all places are `None`. What was in them is overwritten.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_bulk(&self, places: &mut [Option<NonNull<T>>]) -> Result<(), AllocError> {
        self.alloc_all(places, true)
    }

    /// Gives an object back.
    ///
    /// # Safety
    /// If the object is lent by this cache it is the caller's, who does not use it any more. Whatever else the pointer
    /// is, it is refused.
    ///
    /// # Errors
    /// [`BadFree`], of which the heap's fault hook is told; then nothing has changed.
    #[inline]
    pub unsafe fn free_raw(&self, object: NonNull<T>) -> Result<(), BadFree> {
        self.free_address(object.addr().get())
    }

    /// Gives objects back, all or none. They are sorted by address meanwhile, so that each slab is touched once.
    ///
    /// # Safety
    /// As [`free_raw`](Self::free_raw), for each of them.
    ///
    /// # Errors
    /// The first [`BadFree`] by address; then nothing has changed. An object that is there twice is one.
    pub unsafe fn free_bulk(&self, objects: &mut [NonNull<T>]) -> Result<(), BadFree> {
        objects.sort_unstable_by_key(|object| object.addr());
        self.slabs.put_all(objects.iter().map(|object| object.addr().get()))?;
        self.tidy();
        Ok(())
    }

    /// Destructs the objects of all empty slabs, and gives their frames back; answers how many. Registered by
    /// [`Heap::add_shrinker`], a cache is asked for that when memory has ended.
    pub fn shrink(&self) -> FrameCount {
        self.release(0)
    }

    /// Destructs all objects and gives all frames back, or says what is still lent.
    ///
    /// # Errors
    /// [`Leak`], which has the cache.
    #[expect(clippy::result_large_err, reason = "the cache comes back by value, as it came")]
    pub fn destroy(self) -> Result<(), Leak<Self>> {
        self.release(0);
        match self.slabs.count() {
            Ok(count) if count.slabs == 0 => Ok(()),
            _ => Err(self.into_leak()),
        }
    }

    fn into_leak(self) -> Leak<Self> {
        Leak::new(self, |cache, give| cache.slabs.lent().for_each(give))
    }

    /// Counts; exact while nothing moves.
    ///
    /// # Errors
    /// [`AllocError::WouldBlock`] from a context that interrupted the allocator.
    pub fn info(&self) -> Result<CacheInfo, AllocError> {
        let count = self.slabs.count().map_err(|_| AllocError::WouldBlock)?;
        let cut = self.slabs.cut;
        let slab_slots = cut.map_or(0, |cut| cut.shape.slots as usize);
        // What is listed nowhere is full.
        let full = count.slabs.saturating_sub(count.partial + count.empty);
        Ok(CacheInfo {
            name: self.slabs.options.name(),
            object_bytes: size_of::<T>(),
            slot_bytes: self.slot_bytes(),
            align_bytes: cut.map_or(align_of::<T>(), |cut| cut.align_bytes),
            active: full * slab_slots + count.partial_used,
            total: count.slabs * slab_slots,
            slabs: count.slabs,
            empty_slabs: count.empty,
            slab_bytes: cut.map_or(0, |cut| cut.shape.bytes),
            slab_slots,
            colours: cut.map_or(0, |cut| cut.colours),
            allocations: count.taken,
        })
    }

    /// Checks every slab. To be called while nothing moves.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), HeapInvalid> {
        self.slabs.validate().map(drop)
    }

    /// The heap that it has its frames from.
    pub fn heap(&self) -> &'m Heap<'m, P, C> {
        self.slabs.heap
    }

    fn alloc_all(&self, places: &mut [Option<NonNull<T>>], reclaim: bool) -> Result<(), AllocError> {
        let places = Cell::from_mut(places).as_slice_of_cells();
        let filled = match self.fill(places) {
            Err(AllocError::NoMemory | AllocError::NotReady) if reclaim => self.alloc_hard(places),
            filled => filled,
        };
        // What a part of the places had been filled with is idle now, and more than a cache keeps.
        filled.inspect_err(|_| self.tidy())
    }

    /// Lets the heap do what it does when memory has ended.
    #[cold]
    fn alloc_hard(&self, places: &[Cell<Option<NonNull<T>>>]) -> Result<(), AllocError> {
        let cut = self.slabs.cut.ok_or(AllocError::Impossible)?;
        let slab = Layout::from_size_align(cut.shape.bytes, cut.shape.bytes).map_err(|_| AllocError::Impossible)?;
        self.slabs.heap.serve(slab, true, || self.fill(places))
    }

    /// Fills all places or none.
    fn fill(&self, places: &[Cell<Option<NonNull<T>>>]) -> Result<(), AllocError> {
        let mut taken = Taken { cache: self, places, count: 0 };
        while let left @ 1.. = places.len() - taken.count {
            let found = self.slabs.take(left, |address| {
                places[taken.count].set(self.object(address));
                taken.count += 1;
            })?;
            if found < left {
                self.grow()?;
            }
        }
        taken.places = &[];
        Ok(())
    }

    /// Makes a slab of constructed objects.
    #[cold]
    fn grow(&self) -> Result<(), AllocError> {
        let mut fresh = self.slabs.fresh()?;
        let cut = fresh.cut();
        let first = self.slabs.heap.window.pointer(fresh.start());
        // SAFETY: the slab is cut for objects of this layout, and nobody else has it until it is listed.
        let made = unsafe { Constructed::make(first, cut.slot_bytes, cut.shape.slots as usize, self.construct) };
        fresh.list()?;
        made.keep();
        Ok(())
    }

    /// Destructs and gives back empty slabs, all but `keep`; answers how many frames.
    fn release(&self, keep: usize) -> FrameCount {
        let slabs = core::iter::from_fn(|| self.release_one(keep));
        slabs.fold(FrameCount::ZERO, Add::add)
    }

    fn release_one(&self, keep: usize) -> Option<FrameCount> {
        let idle = self.slabs.release(keep)?;
        let cut = idle.cut();
        let first = self.slabs.heap.window.pointer(idle.start());
        // SAFETY: each slot of a listed slab was constructed by `grow`; none is lent, and nobody else has the slab.
        drop(unsafe { Constructed::<T>::again(first, cut.slot_bytes, cut.shape.slots as usize) });
        Some(FrameCount::new(cut.shape.bytes / C::FRAME_BYTES))
    }

    /// Releases what frees have left, if it is more than the cache keeps.
    #[inline]
    fn tidy(&self) {
        let keep = self.slabs.options.keep_slabs();
        if self.slabs.may_release(keep) && P::context() == Context::Task {
            self.release(keep);
        }
    }

    fn free_address(&self, address: usize) -> Result<(), BadFree> {
        self.slabs.put(address)?;
        self.tidy();
        Ok(())
    }

    /// Whether an object of this cache is lent there.
    fn check(&self, address: usize) -> Result<(), BadFree> {
        self.slabs.find(address).map(drop).or_else(|fault| self.refuse(fault))
    }

    fn refuse(&self, fault: BadFree) -> Result<(), BadFree> {
        self.slabs.heap.report(fault);
        Err(fault)
    }

    fn slot_bytes(&self) -> usize {
        self.slabs.cut.map_or(0, |cut| cut.slot_bytes)
    }

    /// The object at an address of a slot.
    fn object(&self, address: usize) -> Option<NonNull<T>> {
        NonNull::new(self.slabs.heap.window.pointer(address).cast())
    }
}

impl<T, P: Platform, C: Config> Drop for ObjectCache<'_, T, P, C> {
    fn drop(&mut self) {
        self.release(0);
    }
}

impl<T: Send, P: Platform, C: Config> Shrink for ObjectCache<'_, T, P, C> {
    fn count(&self) -> usize {
        self.info().map_or(0, |info| info.empty_slabs * info.slab_slots)
    }

    fn scan(&self, target: usize) -> usize {
        let slab_slots = self.slabs.cut.map_or(1, |cut| cut.shape.slots as usize);
        let mut gave = 0;
        while gave < target && self.release_one(0).is_some() {
            gave += slab_slots;
        }
        gave
    }
}

/// Places that are being filled. Dropped before all are, by an error or a panic, it empties them.
struct Taken<'a, 'm, T, P: Platform, C: Config> {
    cache: &'a ObjectCache<'m, T, P, C>,
    /// None once all are filled.
    places: &'a [Cell<Option<NonNull<T>>>],
    /// How many are.
    count: usize,
}

impl<T, P: Platform, C: Config> Drop for Taken<'_, '_, T, P, C> {
    fn drop(&mut self) {
        let filled = self.count.min(self.places.len());
        for object in self.places[..filled].iter().filter_map(Cell::take) {
            let put = self.cache.slabs.put(object.addr().get());
            debug_assert_eq!(put, Ok(()));
        }
        // What was in the others is no object of this cache.
        self.places[filled..].iter().for_each(|place| place.set(None));
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(all(test, not(any(loom, shuttle))))]
mod twin;
