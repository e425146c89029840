//! What an object cache tells of itself.

use core::fmt;

/// Objects shown of a leak.
const SHOWN: usize = 8;

/// Counts of an [`ObjectCache`](super::ObjectCache), as slabinfo has them. Exact while nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheInfo {
    /// What it is called.
    pub name: &'static str,
    /// Bytes of an object.
    pub object_bytes: usize,
    /// Bytes from one object to the next.
    pub slot_bytes: usize,
    /// What objects are aligned to.
    pub align_bytes: usize,
    /// Objects that are lent.
    pub active: usize,
    /// Objects in all slabs, lent or not: each has been constructed.
    pub total: usize,
    /// Slabs.
    pub slabs: usize,
    /// Of these, slabs of which nothing is lent.
    pub empty_slabs: usize,
    /// Bytes of a slab.
    pub slab_bytes: usize,
    /// Objects of a slab.
    pub slab_slots: usize,
    /// At how many offsets slabs start in turn.
    pub colours: usize,
    /// Objects that were ever taken from slabs, by requests that failed as a whole too.
    pub allocations: u64,
}

impl fmt::Display for CacheInfo {
    /// A line as in `/proc/slabinfo`: name, active, total, object bytes, slots of a slab, bytes of a slab, slabs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, active, total, object_bytes, slab_slots, slab_bytes, slabs, .. } = self;
        write!(f, "{name:<20} {active:>8} {total:>8} {object_bytes:>6} {slab_slots:>5} {slab_bytes:>7} {slabs:>6}")
    }
}

/// What kept a cache from being destroyed: objects that are still lent. It has the cache, which goes on as before.
pub struct Leak<K> {
    cache: K,
    count: usize,
    first: [usize; SHOWN],
}

impl<K> Leak<K> {
    /// The leak of `cache` whose `lent` objects stand at these addresses.
    pub(super) fn new(cache: K, lent: impl FnOnce(&K, &mut dyn FnMut(usize))) -> Self {
        let (mut count, mut first) = (0, [0; SHOWN]);
        lent(&cache, &mut |address| {
            if let Some(place) = first.get_mut(count) {
                *place = address;
            }
            count += 1;
        });
        Self { cache, count, first }
    }

    /// How many objects are lent; 0 if there is none, but this context could not take a lock that is held.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The addresses of the first few.
    pub fn addresses(&self) -> &[usize] {
        &self.first[..self.count.min(SHOWN)]
    }

    /// The cache, to go on with it, or to destroy it when the objects have come back.
    pub fn into_cache(self) -> K {
        self.cache
    }
}

impl<K> fmt::Display for Leak<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("a lock is held by what this context interrupted");
        }
        write!(f, "{} objects are still lent:", self.count)?;
        self.addresses().iter().try_for_each(|address| write!(f, " {address:#x}"))?;
        if self.count > SHOWN { f.write_str(" …") } else { Ok(()) }
    }
}

impl<K> fmt::Debug for Leak<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leak").field("count", &self.count).field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl<K> core::error::Error for Leak<K> {}
