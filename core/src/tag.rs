//! Tags: whose memory it is.
//!
//! A tag counts what was requested in its name. It stands beside the heap, not in it: requests without a tag pay
//! nothing, requests with one an atomic addition to a counter that a few CPUs share.

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;

use crate::config::Config;
use crate::error::{AllocError, BadFree};
use crate::heap::Heap;
use crate::platform::Platform;
use crate::sync::{AtomicU64, AtomicUsize, Ordering, const_fn};

/// Counters of a tag, so that CPUs seldom meet: each uses that of its number.
const SHARDS: usize = 8;

/// One shard, alone on its cache line.
#[repr(align(64))]
struct Shard {
    objects: AtomicUsize,
    bytes: AtomicUsize,
    requests: AtomicU64,
}

impl Shard {
    const_fn! {
        const fn new() -> Self {
            Self { objects: AtomicUsize::new(0), bytes: AtomicUsize::new(0), requests: AtomicU64::new(0) }
        }
    }
}

/// The name of a user of memory, and what it has.
pub struct Tag {
    name: &'static str,
    shards: [Shard; SHARDS],
}

/// What a tag has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TagCount {
    /// Objects that are lent in its name.
    pub objects: usize,
    /// The bytes that were asked for, of these objects.
    pub bytes: usize,
    /// Requests ever served in its name.
    pub requests: u64,
}

impl Tag {
    const_fn! {
        /// A tag that has nothing yet.
        pub const fn new(name: &'static str) -> Self {
            #[cfg(not(loom))]
            return Self { name, shards: [const { Shard::new() }; SHARDS] };
            #[cfg(loom)]
            return Self { name, shards: core::array::from_fn(|_| Shard::new()) };
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it has now. Exact while nothing moves.
    pub fn count(&self) -> TagCount {
        // Wrapping: an object may be requested by one CPU and freed by another, so a shard alone can be below zero.
        self.shards.iter().fold(TagCount::default(), |sum, shard| TagCount {
            objects: sum.objects.wrapping_add(shard.objects.load(Ordering::Relaxed)),
            bytes: sum.bytes.wrapping_add(shard.bytes.load(Ordering::Relaxed)),
            requests: sum.requests + shard.requests.load(Ordering::Relaxed),
        })
    }

    fn shard<P: Platform>(&self) -> &Shard {
        let cpu = P::pin().map_or(0, |pinned| pinned.cpu().index());
        &self.shards[cpu % SHARDS]
    }

    fn lent<P: Platform>(&self, bytes: usize) {
        let shard = self.shard::<P>();
        // Relaxed, all of them: counts order nothing.
        shard.objects.fetch_add(1, Ordering::Relaxed);
        shard.bytes.fetch_add(bytes, Ordering::Relaxed);
        shard.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn came_back<P: Platform>(&self, bytes: usize) {
        let shard = self.shard::<P>();
        shard.objects.fetch_sub(1, Ordering::Relaxed);
        shard.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.count();
        write!(f, "{}: {} objects, {} bytes", self.name, count.objects, count.bytes)
    }
}

/// A handle on a heap whose requests are counted under a tag.
///
/// What it lends must come back through a handle with the same tag, or the counts are wrong; the heap's are right all
/// the same.
pub struct Tagged<'a, 'm, P: Platform, C: Config> {
    heap: &'a Heap<'m, P, C>,
    tag: &'a Tag,
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// This heap, with everything counted under `tag`.
    pub fn tagged<'a>(&'a self, tag: &'a Tag) -> Tagged<'a, 'm, P, C> {
        Tagged { heap: self, tag }
    }
}

impl<P: Platform, C: Config> Tagged<'_, '_, P, C> {
    /// As [`Heap::alloc`].
    ///
    /// # Errors
    /// As [`Heap::alloc`].
    pub fn alloc(&self, layout: Layout) -> Result<NonNull<u8>, AllocError> {
        let object = self.heap.alloc(layout)?;
        self.tag.lent::<P>(layout.size());
        Ok(object)
    }

    /// As [`Heap::free`].
    ///
    /// # Safety
    /// As [`Heap::free`].
    ///
    /// # Errors
    /// As [`Heap::free`]; then nothing is counted.
    #[allow(unsafe_code, reason = "passes the caller's promise on")]
    pub unsafe fn free(&self, object: NonNull<u8>, layout: Layout) -> Result<(), BadFree> {
        // SAFETY: the caller's promise.
        unsafe { self.heap.free(object, layout) }?;
        self.tag.came_back::<P>(layout.size());
        Ok(())
    }
}
