//! Slabs and the cache that has them: who takes slots under the lock, and who frees without it.

use std::sync::Arc;
use std::vec::Vec;

use loom::thread::JoinHandle;

use super::machine::{Bytes, Cpus, on_cpu};
use super::runner::check_within;
use crate::arena::Access;
use crate::cache::Cache;
use crate::carve::{Carver, Plan};
use crate::id::NodeId;
use crate::platform::Platform;
use crate::size_class::SizeClass;
use crate::slab::{Contents, Slab, Taker, bit_of};
use crate::sync::{AtomicU64, OwnerU32};

/// Where the first slab begins; the others follow at `STRIDE`.
const START: usize = 1 << 20;
const STRIDE: usize = 1 << 12;

fn class() -> SizeClass {
    SizeClass::new(12).unwrap()
}

/// A cache of a few slabs, and what stands in their objects.
struct Objects {
    cache: &'static Cache<'static, Cpus>,
    slabs: &'static [Slab<'static>],
    slots: u32,
    /// One word an object, written by whoever has it: two who have it at once, or one after the other with nothing that
    /// orders them, are a race that loom reports.
    contents: Vec<OwnerU32>,
    // What the others are made of.
    _bytes: Bytes,
}

impl Objects {
    /// A cache that has `slabs` empty slabs of `slots` slots.
    fn new(slabs: usize, slots: u32) -> Arc<Self> {
        let plan = Plan::new().and::<AtomicU64>(slabs).and::<Slab<'_>>(slabs).and::<Cache<'_, Cpus>>(1);
        let (bytes, metadata) = Bytes::new(plan.bytes());
        let mut carver = Carver::new(metadata, plan.bytes()).unwrap();
        let mut words = carver.zeros::<AtomicU64>(slabs).chunks(1);
        let contents = (0..slabs * slots as usize).map(|_| OwnerU32::new(0)).collect();
        let slabs = carver.slice(slabs, |_| Slab::new(words.next().unwrap(), &[]));
        let cache = &carver.slice(1, |_| Cache::new())[0];
        let objects = Self { cache, slabs, slots, contents, _bytes: bytes };
        slabs.iter().enumerate().for_each(|(place, slab)| objects.add(slab, place));
        Arc::new(objects)
    }

    /// Makes `slab` the one at `place`, all of whose objects are free.
    fn add(&self, slab: &'static Slab<'static>, place: usize) {
        slab.describe(START + place * STRIDE, Contents::Class(class()), NodeId::ZERO, self.slots);
        assert!(self.cache.add(Access::Wait(&Cpus::pin().unwrap()), slab).is_ok());
    }

    /// Writes into an object, whose owner the caller is.
    fn write(&self, object: usize) {
        let (place, slot) = ((object - START) / STRIDE, (object - START) % STRIDE / class().bytes());
        self.contents[place * self.slots as usize + slot].set(1);
    }

    /// Takes up to `most` objects, and writes into them.
    fn take(&self, most: usize) -> Vec<usize> {
        let mut taken = Vec::new();
        let count =
            self.cache.take(Access::Wait(&Cpus::pin().unwrap()), most, Taker::cpu(0), |object| taken.push(object));
        assert!(count == Ok(taken.len()));
        taken.iter().for_each(|&object| self.write(object));
        taken
    }

    /// Writes into objects of one slab for the last time and gives them back without the lock.
    fn free(&self, objects: &[usize]) {
        let place = (objects[0] - START) / STRIDE;
        let slab = &self.slabs[place];
        for &object in objects {
            self.write(object);
            let (word, bit) = bit_of(slab.slot_of(class(), object).unwrap());
            assert_eq!(slab.put(word, bit), Ok(()), "a right free was refused");
        }
        self.cache.retire(slab, objects.len() as u32);
    }

    /// Starts a thread that frees `out`.
    fn freer(self: &Arc<Self>, out: &[usize]) -> JoinHandle<()> {
        let (objects, out) = (self.clone(), out.to_vec());
        on_cpu(1, move || objects.free(&out))
    }

    /// Takes an empty slab out, if there is one, and writes all over it, as whoever next has its frames does.
    fn release(&self) -> Option<&'static Slab<'static>> {
        let released = self.cache.release(Access::Wait(&Cpus::pin().unwrap()), 0);
        let slab = released.ok().unwrap()?;
        (0..self.slots as usize).for_each(|slot| self.write(slab.start() + slot * class().bytes()));
        Some(slab)
    }

    /// Everything at rest and nothing out: the slabs that are left agree with themselves, and all can be released.
    fn finish(&self, slabs: usize) {
        assert!(self.cache.validate(Access::Wait(&Cpus::pin().unwrap()), |slab| slab.is_of(class())) == Ok(Ok(())));
        (0..slabs).for_each(|_| assert!(self.release().is_some(), "an empty slab was forgotten"));
        assert!(self.release().is_none());
    }
}

/// Threads: one that frees object 0 of a slab of three, of which another is out; and one that takes two.
///
/// Property: whatever is taken is nobody else's, with what its last owner did done; nothing is lost and nothing is
/// taken twice.
///
/// * `put_relaxed`: the bit says that the object is back before its owner is done with it;
/// * `refill_relaxed`: the same from the other side;
/// * `refill_plain`: what comes back while others are taken is lost.
fn remote_free() {
    let objects = Objects::new(1, 3);
    let out = objects.take(2);
    let freer = objects.freer(&out[..1]);
    let mut taken = objects.take(2);
    freer.join().unwrap();
    taken.extend(objects.take(2));
    taken.sort_unstable();
    assert_eq!(taken, [out[0], START + 2 * class().bytes()], "lost, or taken twice");
    taken.push(out[1]);
    objects.free(&taken);
    objects.finish(1);
}

#[test]
fn a_refill_meets_a_remote_free_in_one_word() {
    check_within(5, "slab_refill", &["put_relaxed", "refill_relaxed", "refill_plain"], remote_free);
}

/// Threads: two, each of which frees one of the two objects of a slab that is full; the first then releases the slab if
/// it can, and makes its descriptor that of another slab at once.
///
/// Property: full, partial, empty: once it is found empty, nobody has anything to do any more with its memory nor with
/// its descriptor; if not, it is found later.
///
/// * `retire_relaxed`: the count says that the slab is empty before the last owner is done with its memory;
/// * `idle_relaxed`: the same from the other side;
/// * `empty_unseen`: who frees the last object does not queue the slab, and it is never released;
/// * `release_queued`: the slab is released while somebody is about to put it into the queue.
fn life() {
    let objects = Objects::new(1, 2);
    let out = objects.take(2);
    let other = objects.freer(&out[1..]);
    objects.free(&out[..1]);
    let released = objects.release();
    if let Some(slab) = released {
        objects.add(slab, 0);
    }
    other.join().unwrap();
    if released.is_some() {
        // It is the one that is listed as empty, so a second one would be queued.
        assert!(!objects.cache.may_release(1), "somebody had the slab when it was released");
    }
    objects.finish(1);
}

#[test]
fn a_slab_is_released_when_nobody_has_it() {
    check_within(5, "slab_life", &["retire_relaxed", "idle_relaxed", "empty_unseen", "release_queued"], life);
}

/// Threads: two, each of which frees the only object of a slab of its own; the first then releases what it finds.
///
/// Property: both slabs are found, with what their owners did done.
///
/// * `chain_relaxed`: who empties the queue sees a slab but not the one behind it.
fn queue() {
    let objects = Objects::new(2, 1);
    let out = objects.take(2);
    let other = objects.freer(&out[1..]);
    objects.free(&out[..1]);
    let released = usize::from(objects.release().is_some());
    other.join().unwrap();
    objects.finish(2 - released);
}

#[test]
fn every_slab_that_is_queued_is_found() {
    check_within(5, "slab_queue", &["chain_relaxed"], queue);
}

/// Threads: one that frees an object of a slab of three, of which another is out; and one that takes as many as there
/// are.
///
/// Property: the taker comes to an end, and what it takes is nobody else's.
///
/// * `take_blind`: the slab counts a slot as free whose bit is not seen, and the taker looks for ever.
fn late_bit() {
    let objects = Objects::new(1, 3);
    let out = objects.take(2);
    let freer = objects.freer(&out[..1]);
    let mut taken = objects.take(3);
    freer.join().unwrap();
    taken.extend(objects.take(3));
    taken.push(out[1]);
    assert_eq!(taken.len(), 3, "lost, or taken twice");
    objects.free(&taken);
    objects.finish(1);
}

#[test]
fn a_slot_that_counts_as_free_is_found() {
    check_within(5, "slab_late_bit", &["take_blind"], late_bit);
}

/// Threads: one that frees the one object that is out of a slab of three; and one that takes all there are and gives
/// two back as one.
///
/// Property: while the first has set its bit and not yet counted it, the slab counts as more than full; when it is that
/// no more it is found.
///
/// * `full_exactly`: only a slab that was full exactly is queued when it is full no more.
fn overfull() {
    let objects = Objects::new(1, 3);
    let out = objects.take(1);
    let freer = objects.freer(&out[..1]);
    let mut taken = objects.take(3);
    objects.free(&taken.split_off(taken.len() - 2));
    freer.join().unwrap();
    taken.extend(objects.take(3));
    assert_eq!(taken.len(), 3, "the slab was forgotten");
    objects.free(&taken);
    objects.finish(1);
}

#[test]
fn a_slab_that_was_more_than_full_is_found() {
    check_within(5, "slab_overfull", &["full_exactly"], overfull);
}
