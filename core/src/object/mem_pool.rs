//! Memory pools: objects that are there when memory has ended.

use core::ptr::NonNull;

use super::ObjectCache;
use super::reserve::Reserve;
use crate::config::{Checked, Config};
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::platform::{Context, Platform};
use crate::sync::const_fn;

/// A reserve of `N` objects over an [`ObjectCache`]: what must go on when memory has ended, as writing pages to a disk
/// must so that memory can be had again, takes its objects from one of these.
///
/// A request is served by the cache as long as that has memory, else from the reserve; an object that comes back goes
/// to the reserve first. So once the reserve was [filled](Self::fill) no request fails, in any context, while fewer
/// than `N` objects of the pool are out. What is taken from the reserve must come back some time without waiting for
/// the next one of the same pool.
///
/// Taking from the reserve and giving back to it needs no lock, which a handler could find held. It costs a look at
/// some of the `N` places; at [`Checked`] each free looks at all of them, and refuses what lies there. Two wrong frees
/// of one object at the same moment may both miss it.
///
/// ```
#[doc = include_str!("machine.txt")]
/// use pagemill::{CacheOptions, MemPool, ObjectCache};
///
/// struct Write {
///     sector: u64,
/// }
///
/// static WRITES: ObjectCache<'static, Write, Machine> =
///     ObjectCache::new(&HEAP, CacheOptions::new("write"), || Write { sector: 0 });
/// static SWAP_OUT: MemPool<'static, 'static, Write, Machine, 2> = MemPool::new(&WRITES);
///
/// SWAP_OUT.fill()?;
/// // Somebody takes all memory there is.
/// while WRITES.alloc_raw().is_ok() {}
/// let mut write = SWAP_OUT.alloc()?;
/// write.sector = 8;
/// assert_eq!(SWAP_OUT.reserved(), 1);
/// drop(write);
/// assert_eq!(SWAP_OUT.reserved(), 2);
/// # Ok::<(), AllocError>(())
/// ```
pub struct MemPool<'c, 'm, T, P: Platform, const N: usize, C: Config = Checked> {
    cache: &'c ObjectCache<'m, T, P, C>,
    reserve: Reserve<N>,
}

impl<'c, 'm, T, P: Platform, const N: usize, C: Config> MemPool<'c, 'm, T, P, N, C> {
    const_fn! {
        /// A pool over `cache`, whose reserve is empty as yet.
        pub const fn new(cache: &'c ObjectCache<'m, T, P, C>) -> Self {
            Self { cache, reserve: Reserve::new() }
        }
    }

    /// The cache that the objects are from.
    pub fn cache(&self) -> &'c ObjectCache<'m, T, P, C> {
        self.cache
    }

    /// Fills the reserve up, before it is needed.
    ///
    /// # Errors
    /// As [`ObjectCache::alloc`]; what was got stays in the reserve.
    pub fn fill(&self) -> Result<(), AllocError> {
        while self.reserve.len() < N {
            let object = self.cache.alloc_raw()?.addr().get();
            if !self.reserve.put(object) {
                // Frees have filled it meanwhile.
                let freed = self.cache.free_address(object);
                debug_assert_eq!(freed, Ok(()));
                break;
            }
        }
        Ok(())
    }

    /// How many objects the reserve has now.
    pub fn reserved(&self) -> usize {
        self.reserve.len()
    }

    /// As [`alloc`](Self::alloc), for embedders that keep pointers. It goes back by [`free_raw`](Self::free_raw).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    pub fn alloc_raw(&self) -> Result<NonNull<T>, AllocError> {
        let error = match self.cache.try_alloc_raw() {
            Ok(object) => return Ok(object),
            Err(error) => error,
        };
        if let Some(object) = self.take_reserved() {
            return Ok(object);
        }
        match (error, P::context()) {
            (AllocError::NoMemory, Context::Task) => self.cache.alloc_raw(),
            _ => Err(error),
        }
    }

    /// An object out of the reserve.
    pub(super) fn take_reserved(&self) -> Option<NonNull<T>> {
        self.reserve.take().and_then(|address| self.cache.object(address))
    }

    pub(super) fn free_address(&self, address: usize) -> Result<(), BadFree> {
        // What lies in the reserve is lent, as far as the cache knows.
        if C::CHECKED && self.reserve.holds(address) {
            let object_bytes = self.cache.slot_bytes();
            let fault = BadFree { kind: BadFreeKind::NotLent, address, object_bytes, block: 0 };
            return self.cache.refuse(fault);
        }
        self.cache.check(address)?;
        if self.reserve.put(address) { Ok(()) } else { self.cache.free_address(address) }
    }

    /// Gives the reserve's objects back to the cache.
    fn empty(&self) {
        while let Some(object) = self.reserve.take() {
            let freed = self.cache.free_address(object);
            debug_assert_eq!(freed, Ok(()));
        }
    }
}

impl<T, P: Platform, const N: usize, C: Config> Drop for MemPool<'_, '_, T, P, N, C> {
    fn drop(&mut self) {
        self.empty();
    }
}
