//! The descriptors of slabs: made in chunks when there are none left, kept for ever, and used again.

use super::Slab;
use crate::arena::{Access, Busy};
use crate::carve::{Carver, Metadata, Plan};
use crate::platform::Platform;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Guard, Lock, Ordering, const_fn};

/// Descriptors come with room for 64, 128, … 8192 slots.
const ROOMS: usize = 8;

/// Which of the rooms a slab of so many slots needs.
const fn room(slots: u32) -> usize {
    let words = slots.div_ceil(64);
    words.next_power_of_two().trailing_zeros() as usize
}

/// How many descriptors a chunk has at least.
const CHUNK: usize = 4;

fn plan(room: usize, count: usize, marked: bool) -> Plan {
    let (words, marks) = (count << room, if marked { count << (room + 6) } else { 0 });
    Plan::new().and::<Slab<'_>>(count).and::<AtomicU64>(words).and::<AtomicU8>(marks)
}

/// The bytes of one descriptor of a class's slabs with its bits and marks.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) fn descriptor_bytes<C: crate::config::Config>(class: crate::size_class::SizeClass, marked: bool) -> usize {
    let room = room(super::Shape::of::<C>(class).slots);
    size_of::<Slab<'_>>() + (8 << room) + if marked { 64 << room } else { 0 }
}

/// Descriptors that describe nothing now, by room.
pub(crate) struct SlabStore<'m, P: Platform> {
    free: [Lock<P, Option<&'m Slab<'m>>>; ROOMS],
    /// Bytes of all chunks.
    bytes: AtomicUsize,
    /// Numbers given to object caches so far.
    owners: AtomicU32,
}

impl<'m, P: Platform> SlabStore<'m, P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self { free: [const { Lock::new(None) }; ROOMS], bytes: AtomicUsize::new(0), owners: AtomicU32::new(0) };
            #[cfg(loom)]
            return Self {
                free: core::array::from_fn(|_| Lock::new(None)),
                bytes: AtomicUsize::new(0),
                owners: AtomicU32::new(0),
            };
        }
    }

    fn free<'a>(&'a self, access: Access<'a, P>, room: usize) -> Result<Guard<'a, P, Option<&'m Slab<'m>>>, Busy> {
        match access {
            Access::Wait(pinned) => Ok(self.free[room % ROOMS].lock(pinned)),
            Access::Try => self.free[room % ROOMS].try_lock().ok_or(Busy),
        }
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        self.free.iter().for_each(|free| each.one(free));
    }

    /// A descriptor for a slab of so many slots, if there is one left.
    pub(crate) fn take(&self, access: Access<'_, P>, slots: u32) -> Result<Option<&'m Slab<'m>>, Busy> {
        let mut free = self.free(access, room(slots))?;
        let Some(slab) = free.take() else { return Ok(None) };
        *free = slab.next.get();
        slab.next.set(None);
        Ok(Some(slab))
    }

    /// Takes one back that describes nothing any more.
    pub(crate) fn give(&self, access: Access<'_, P>, slots: u32, slab: &'m Slab<'m>) -> Result<(), Busy> {
        let mut free = self.free(access, room(slots))?;
        slab.forget();
        slab.next.set(*free);
        *free = Some(slab);
        Ok(())
    }

    /// The bytes of a chunk of descriptors for slabs of so many slots: whole frames of `frame_bytes`, a power of two of
    /// them.
    pub(crate) fn chunk_bytes(slots: u32, marked: bool, frame_bytes: usize) -> usize {
        let needed = plan(room(slots), CHUNK, marked).bytes();
        needed.div_ceil(frame_bytes).next_power_of_two() * frame_bytes
    }

    /// Makes descriptors of the bytes that `chunk` gives, which stay this for ever. It is called with the lock held, so
    /// that nothing is spent where the lock cannot be had.
    pub(crate) fn add(
        &self,
        access: Access<'_, P>,
        slots: u32,
        marked: bool,
        chunk: impl FnOnce() -> Option<Metadata<'m>>,
    ) -> Result<(), Busy> {
        let room = room(slots);
        let mut free = self.free(access, room)?;
        let Some(metadata) = chunk() else { return Ok(()) };
        let bytes = metadata.len();
        let mut count = 0;
        while plan(room, count + 1, marked).bytes() <= bytes {
            count += 1;
        }
        let Ok(mut carver) = Carver::new(metadata, plan(room, count, marked).bytes()) else { return Ok(()) };
        let words = carver.zeros::<AtomicU64>(count << room);
        let marks = carver.zeros::<AtomicU8>(if marked { count << (room + 6) } else { 0 });
        let mut words = words.chunks(1 << room);
        let mut marks = marks.chunks(64 << room);
        let slabs = carver.slice(count, |_| Slab::new(words.next().unwrap_or(&[]), marks.next().unwrap_or(&[])));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        for slab in slabs {
            slab.next.set(*free);
            *free = Some(slab);
        }
        Ok(())
    }

    /// A number that no object cache has had, as long as there are any.
    pub(crate) fn new_owner(&self) -> Option<u32> {
        let next = |owners: u32| owners.checked_add(1);
        let before = self.owners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.ok().and_then(next)
    }

    /// Bytes of all descriptors ever made.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
