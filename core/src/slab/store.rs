//! The descriptors of slabs: made in chunks when there are none left, kept for ever, and used again.
//!
//! ```text
//!   run of frames   │ chunk │ chunk │ chunk │ not yet cut │        chunk: some descriptors of one room, their words, their marks
//! ```
//!
//! A chunk pins its huge frame for ever, and may be made when memory is nearly gone and its last frames lie anywhere.
//! So chunks are cut from runs, of which a heap has few.

use super::Slab;
use crate::arena::{Access, Busy};
use crate::carve::{Carver, Metadata, Plan};
use crate::config::Config;
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

/// Which part of all memory a run has.
const SHARE: usize = 128;

fn plan(room: usize, count: usize, marked: bool) -> Plan {
    let (words, marks) = (count << room, if marked { count << (room + 6) } else { 0 });
    Plan::new().and::<Slab<'_>>(count).and::<AtomicU64>(words).and::<AtomicU8>(marks)
}

/// The bytes of a chunk: whole frames, a power of two of them.
fn chunk_bytes(room: usize, marked: bool, frame_bytes: usize) -> usize {
    plan(room, CHUNK, marked).bytes().div_ceil(frame_bytes).next_power_of_two() * frame_bytes
}

/// The bytes of one descriptor of a class's slabs with its bits and marks.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) fn descriptor_bytes<C: Config>(class: crate::size_class::SizeClass, marked: bool) -> usize {
    let room = room(super::Shape::of::<C>(class).slots);
    size_of::<Slab<'_>>() + (8 << room) + if marked { 64 << room } else { 0 }
}

/// Descriptors that describe nothing now, by room.
pub(crate) struct SlabStore<'m, P: Platform> {
    free: [Lock<P, Option<&'m Slab<'m>>>; ROOMS],
    /// What is left of the last run.
    run: Lock<P, Option<Metadata<'m>>>,
    /// Bytes of all runs.
    bytes: AtomicUsize,
    /// Numbers given to object caches so far.
    owners: AtomicU32,
}

impl<'m, P: Platform> SlabStore<'m, P> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self {
                free: [const { Lock::new(None) }; ROOMS],
                run: Lock::new(None),
                bytes: AtomicUsize::new(0),
                owners: AtomicU32::new(0),
            };
            #[cfg(loom)]
            return Self {
                free: core::array::from_fn(|_| Lock::new(None)),
                run: Lock::new(None),
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
        each.one(&self.run);
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

    /// The bytes of a chunk of descriptors for slabs of so many slots.
    pub(crate) fn chunk_bytes(slots: u32, marked: bool, frame_bytes: usize) -> usize {
        chunk_bytes(room(slots), marked, frame_bytes)
    }

    /// The frames of the next run, of so many bytes each, where chunks for slabs of so many slots are to be cut from it
    /// and memory has `all` frames; and the fewest that will do, which are a chunk. Both are powers of two.
    pub(crate) fn run_frames<C: Config>(slots: u32, marked: bool, all: usize) -> [usize; 2] {
        let least = chunk_bytes(room(slots), marked, C::FRAME_BYTES) / C::FRAME_BYTES;
        if C::LINEAR_SHADOW {
            // Descriptors have no marks here and are few; a run would keep what is behind it from going back.
            return [least, least];
        }
        let share = (all / SHARE / 2 + 1).next_power_of_two().min(1 << C::HUGE_ORDER);
        [least.max(share), least]
    }

    /// Makes descriptors of the next bytes of the run, else of a new run that `take` gives; answers whether there are
    /// any. They stay descriptors for ever. `take` is called with the locks held, so that nothing is spent where they
    /// cannot be had; it may give what it got from others than the frames.
    pub(crate) fn add(
        &self,
        access: Access<'_, P>,
        slots: u32,
        marked: bool,
        frame_bytes: usize,
        take: impl FnOnce() -> Option<Metadata<'m>>,
    ) -> Result<bool, Busy> {
        let room = room(slots);
        let mut free = self.free(access, room)?;
        let Some(metadata) = self.cut(access, chunk_bytes(room, marked, frame_bytes), take)? else { return Ok(false) };
        let bytes = metadata.len();
        let mut count = 0;
        while plan(room, count + 1, marked).bytes() <= bytes {
            count += 1;
        }
        let Ok(mut carver) = Carver::new(metadata, plan(room, count, marked).bytes()) else { return Ok(false) };
        let words = carver.zeros::<AtomicU64>(count << room);
        let marks = carver.zeros::<AtomicU8>(if marked { count << (room + 6) } else { 0 });
        let mut words = words.chunks(1 << room);
        let mut marks = marks.chunks(64 << room);
        let slabs = carver.slice(count, |_| Slab::new(words.next().unwrap_or(&[]), marks.next().unwrap_or(&[])));
        for slab in slabs {
            slab.next.set(*free);
            *free = Some(slab);
        }
        Ok(true)
    }

    /// A chunk of the run, or of the one that `take` gives, which takes its place.
    fn cut(
        &self,
        access: Access<'_, P>,
        bytes: usize,
        take: impl FnOnce() -> Option<Metadata<'m>>,
    ) -> Result<Option<Metadata<'m>>, Busy> {
        let mut run = match access {
            Access::Wait(pinned) => self.run.lock(pinned),
            Access::Try => self.run.try_lock().ok_or(Busy)?,
        };
        let chunk = match run.take().map(|rest| rest.split_at(bytes)) {
            Some(Ok((chunk, rest))) => {
                *run = Some(rest);
                return Ok(Some(chunk));
            }
            Some(Err(short)) => {
                *run = Some(short);
                take()
            }
            None => take(),
        };
        let Some(chunk) = chunk else { return Ok(None) };
        self.bytes.fetch_add(chunk.len(), Ordering::Relaxed);
        match chunk.split_at(bytes) {
            // What is left of the one before is less than a chunk; it stays if there is no more of the new one.
            Ok((chunk, rest)) => {
                if !rest.is_empty() {
                    *run = Some(rest);
                }
                Ok(Some(chunk))
            }
            Err(short) => Ok(Some(short)),
        }
    }

    /// A number that no object cache has had, as long as there are any.
    pub(crate) fn new_owner(&self) -> Option<u32> {
        let next = |owners: u32| owners.checked_add(1);
        let before = self.owners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.ok().and_then(next)
    }

    /// Bytes of all descriptors ever made, and of what others can be made of.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}
