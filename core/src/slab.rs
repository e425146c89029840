//! Slabs: blocks of frames cut into slots of one size, and what is known of each slot beside them.
//!
//! ```text
//!   the slab, lent out              its descriptor, elsewhere
//!  ┌──────┬──────┬──────┬───┐      ┌────────────────────────────────┐
//!  │ slot │ slot │ slot │ … │      │ start, class, node             │
//!  └──────┴──────┴──────┴───┘      │ state   used │ QUEUED          │  one word: who frees last knows it
//!                                  │ bits    1 a slot: free in here │  remote frees set them
//!                                  │ marks   1 byte a slot: lent    │  levels that check every free
//!                                  └────────────────────────────────┘
//! ```
//!
//! A slot is *out* from when a cache takes it for some pool until it comes back to its bit; `used` counts these. Any
//! CPU gives slots back without a lock: it sets their bits, then takes them off `used`. By that second step it learns
//! whether the slab has just ceased to be full, or has become empty. If so it marks the slab as queued in the same
//! exchange and puts it into its cache's queue; if not, that exchange is its last access. A cache takes slots and makes
//! decisions under its lock, and releases a slab only when nothing is used and nobody has it queued: then nobody has it
//! at all.
//!
//! Descriptors are never given back. One may serve another slab later, so a late look through a stale address finds a
//! descriptor, though perhaps of something else; what it was found by is compared again.

mod store;

pub(crate) use store::SlabStore;
#[cfg(all(test, not(any(loom, shuttle))))]
pub(crate) use store::descriptor_bytes;

use core::marker::PhantomData;
use core::ops::Range;

use crate::config::Config;
use crate::id::NodeId;
use crate::size_class::SizeClass;
use crate::sync::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Chained, Link, Ordering, Publish, const_fn, mutant};

/// Slots of a bitmap word.
const WORD_SLOTS: u32 = 64;

/// What slabs of a class look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    /// Bytes of the slab, a power of two: also what its start is a multiple of.
    pub(crate) bytes: usize,
    /// Slots in it.
    pub(crate) slots: u32,
}

/// The shapes of all classes.
struct Shapes<C>(PhantomData<C>);

impl<C: Config> Shapes<C> {
    const TABLE: [Shape; SizeClass::PLACES] = {
        let mut table = [Shape { bytes: 0, slots: 0 }; SizeClass::PLACES];
        let mut index = 0;
        while index < SizeClass::COUNT {
            if let Some(class) = SizeClass::new(index) {
                table[index] = Shape::of_bytes::<C>(class.bytes());
            }
            index += 1;
        }
        table
    };
}

impl Shape {
    /// The shape of a class.
    #[inline(always)]
    pub(crate) const fn of<C: Config>(class: SizeClass) -> Self {
        Shapes::<C>::TABLE[class.index()]
    }

    /// The shape for slots of `size` bytes: a slab or twice or four times that, until two of them fit and an eighth at
    /// most is left. Of four slabs a fifth is, at worst: longer ones would seldom go home.
    pub(crate) const fn of_bytes<C: Config>(size: usize) -> Self {
        const { assert!(C::SLAB_BYTES.is_power_of_two() && C::SLAB_BYTES <= 64 << 10 && C::SLAB_BYTES >= C::FRAME_BYTES) };
        let mut bytes = C::SLAB_BYTES;
        while bytes < 2 * size || bytes % size > bytes / 8 && bytes < 4 * C::SLAB_BYTES {
            bytes *= 2;
        }
        Self { bytes, slots: (bytes / size) as u32 }
    }
}

/// `2^32 / bytes`, rounded up, of each class: a multiplication finds the slot of an offset, and what is left over tells
/// whether the offset is a slot's start (Lemire, Kaser and Kurz, "Faster remainder by direct computation", 2019).
const RECIPROCAL: [u32; SizeClass::PLACES] = {
    let mut reciprocal = [0; SizeClass::PLACES];
    let mut index = 0;
    while index < SizeClass::COUNT {
        if let Some(class) = SizeClass::new(index) {
            reciprocal[index] = (1u64 << 32).div_ceil(class.bytes() as u64) as u32;
        }
        index += 1;
    }
    reciprocal
};

/// The slot at `offset` bytes of a slab, if one starts there.
#[inline(always)]
pub(crate) fn slot_at(class: SizeClass, offset: usize) -> Option<u32> {
    let reciprocal = RECIPROCAL[class.index()];
    // Wrapping: only the offset of a stale look is that large, and is then compared with nothing.
    let product = (offset as u64).wrapping_mul(u64::from(reciprocal));
    ((product as u32) < reciprocal).then_some((product >> 32) as u32)
}

/// The slot that `offset` is in.
#[inline(always)]
pub(crate) fn slot_around(class: SizeClass, offset: usize) -> u32 {
    ((offset as u64).wrapping_mul(u64::from(RECIPROCAL[class.index()])) >> 32) as u32
}

/// What a slab is cut into, and for whom.
#[derive(Clone, Copy)]
pub(crate) enum Contents {
    /// Slots of a class, for the heap itself.
    Class(SizeClass),
    /// Slots of so many bytes, for the object cache of this number.
    Objects {
        /// The number, which is not 0.
        owner: u32,
        /// The bytes from one slot to the next.
        slot_bytes: u32,
    },
}

/// Where the node stands in a slab's kind.
pub(crate) const NODE_SHIFT: u32 = 8;

/// What [`Slab::brief`] says of a slab of this class on the node that a pool has as its home.
#[inline(always)]
pub(crate) fn brief_of(class: SizeClass, home: u32) -> u32 {
    home | class.index() as u32 | SOME
}

/// The class that a brief tells, if it is that of a slab.
#[inline(always)]
pub(crate) fn class_of_brief(brief: u32) -> Option<SizeClass> {
    if brief & SOME == 0 { None } else { Some(SizeClass::from_low_bits(brief)) }
}

/// Bit of a slab's brief: it is not that of no slab.
const SOME: u32 = 1 << 31;
const _: () = assert!((NodeId::LIMIT as u64) << NODE_SHIFT <= SOME as u64);

/// Class of a slab that has none.
const NO_CLASS: u32 = 0xff;
const _: () = assert!(SizeClass::COUNT < NO_CLASS as usize);

/// Bit of [`Slab::state`]: the slab is in its cache's queue, or on the way there.
const QUEUED: u32 = 1 << 31;

/// Where a slab is listed by its cache. Changed under the cache's lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Listed {
    /// Nowhere: all its slots are out, or it is no slab now.
    Nowhere,
    /// Among those with slots to take.
    Partial,
    /// Among those with nothing out.
    Empty,
}

/// The descriptor of a slab.
pub(crate) struct Slab<'m> {
    /// The first slot's address.
    start: AtomicUsize,
    /// Class in the low byte, node in the next: one word, so that a stale look reads both of one slab.
    kind: AtomicU32,
    /// The number of the object cache that it is for, or 0.
    owner: AtomicU32,
    /// Bytes from one slot to the next.
    slot_bytes: AtomicU32,
    /// Slots that are out, and [`QUEUED`].
    state: AtomicU32,
    listed: AtomicU32,
    slots: AtomicU32,
    /// Who has taken last, and the word where he began, as [`Taker::pack`] has them. Under the cache's lock.
    last: AtomicU32,
    link: Link<'m, Self>,
    pub(crate) next: Publish<'m, Self>,
    pub(crate) previous: Publish<'m, Self>,
    bits: &'m [AtomicU64],
    marks: &'m [AtomicU8],
}

/// Who takes slots: a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taker(u32);

impl Taker {
    /// Who has no pool, and whose slots come from anywhere.
    pub(crate) const NOBODY: Self = Self(0xff_ffff);

    pub(crate) fn cpu(index: usize) -> Self {
        Self((index as u32).min(Self::NOBODY.0 - 1))
    }

    fn pack(self, word: usize) -> u32 {
        self.0 << 8 | word as u32
    }
}

/// Some of the slots of one word were free already: a double free that came this far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FreeAlready(pub(crate) u64);

impl<'m> Chained<'m> for Slab<'m> {
    fn link(&self) -> &Link<'m, Self> {
        &self.link
    }
}

impl<'m> Slab<'m> {
    const_fn! {
        pub(crate) const fn new(bits: &'m [AtomicU64], marks: &'m [AtomicU8]) -> Self {
            Self {
                start: AtomicUsize::new(0),
                kind: AtomicU32::new(u32::MAX),
                owner: AtomicU32::new(0),
                slot_bytes: AtomicU32::new(0),
                state: AtomicU32::new(0),
                listed: AtomicU32::new(Listed::Nowhere as u32),
                slots: AtomicU32::new(0),
                last: AtomicU32::new(0),
                link: Link::new(),
                next: Publish::empty(),
                previous: Publish::empty(),
                bits,
                marks,
            }
        }
    }

    /// Makes this the descriptor of the slab at `start`, all of whose slots are free. Nobody else may have it.
    pub(crate) fn describe(&self, start: usize, contents: Contents, node: NodeId, slots: u32) {
        let (class, owner, slot_bytes) = match contents {
            Contents::Class(class) => (class.index() as u32, 0, class.bytes() as u32),
            Contents::Objects { owner, slot_bytes } => (NO_CLASS, owner, slot_bytes),
        };
        self.start.store(start, Ordering::Relaxed);
        self.kind.store(class | (node.index() as u32) << NODE_SHIFT, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
        self.slot_bytes.store(slot_bytes, Ordering::Relaxed);
        self.state.store(0, Ordering::Relaxed);
        self.slots.store(slots, Ordering::Relaxed);
        self.last.store(0, Ordering::Relaxed);
        for (word, bits) in (0..).zip(self.bits) {
            let here = slots.saturating_sub(word * WORD_SLOTS).min(WORD_SLOTS);
            bits.store(low_bits(here), Ordering::Relaxed);
        }
        // What was here before may have left some, if two frees of one object passed at the same moment.
        self.marks.iter().take(slots as usize).for_each(|mark| mark.store(0, Ordering::Relaxed));
    }

    /// Describes nothing from now on.
    pub(crate) fn forget(&self) {
        self.kind.store(u32::MAX, Ordering::Relaxed);
        self.owner.store(0, Ordering::Relaxed);
    }

    /// The first slot's address.
    #[inline(always)]
    pub(crate) fn start(&self) -> usize {
        self.start.load(Ordering::Relaxed)
    }

    /// Whether its slots are of this class.
    #[inline(always)]
    pub(crate) fn is_of(&self, class: SizeClass) -> bool {
        self.kind.load(Ordering::Relaxed) as u8 == class.index() as u8
    }

    /// Whether its slots are of this class and its memory is on the node that a pool has as [its
    /// home](crate::pool::ObjectPool::home).
    #[inline(always)]
    pub(crate) fn is_of_on(&self, class: SizeClass, home: u32) -> bool {
        self.kind.load(Ordering::Relaxed) == home | class.index() as u32
    }

    /// Class and node in one word, which is 0 for no slab, and for one of no class.
    pub(crate) fn brief(&self) -> u32 {
        self.class().map_or(0, |_| self.kind.load(Ordering::Relaxed) | SOME)
    }

    /// Whether it is for the object cache of this number.
    pub(crate) fn is_owned_by(&self, owner: u32) -> bool {
        owner != 0 && self.owner.load(Ordering::Relaxed) == owner
    }

    /// The class of its slots, if it describes a slab of the heap's own.
    #[inline(always)]
    pub(crate) fn class(&self) -> Option<SizeClass> {
        SizeClass::kept(u32::from(self.kind.load(Ordering::Relaxed) as u8))
    }

    /// The node that its memory is on.
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.kind.load(Ordering::Relaxed) >> NODE_SHIFT & 0xff).unwrap_or_default()
    }

    /// How many slots it has.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.load(Ordering::Relaxed)
    }

    /// How many of them are out.
    pub(crate) fn used(&self) -> u32 {
        self.state.load(Ordering::Relaxed) & !QUEUED
    }

    /// The slot that starts at `address`, which lies in the slab.
    #[inline(always)]
    pub(crate) fn slot_of(&self, class: SizeClass, address: usize) -> Option<u32> {
        slot_at(class, address.wrapping_sub(self.start()))
    }

    /// The mark of a slot, if slots are marked.
    #[inline(always)]
    pub(crate) fn mark(&self, slot: u32) -> Option<&'m AtomicU8> {
        self.marks.get(slot as usize)
    }

    /// Where the cache has listed it. For the holder of the cache's lock.
    pub(crate) fn listed(&self) -> Listed {
        match self.listed.load(Ordering::Relaxed) {
            0 => Listed::Nowhere,
            1 => Listed::Partial,
            _ => Listed::Empty,
        }
    }

    /// For the holder of the cache's lock.
    pub(crate) fn set_listed(&self, listed: Listed) {
        self.listed.store(listed as u32, Ordering::Relaxed);
    }

    /// Takes up to `most` slots out, lowest first. For the holder of the cache's lock; answers how many, and whether
    /// more are to be had.
    ///
    /// A CPU that finds that another one was here before begins at a word of which nobody has anything: the marks of a
    /// word's slots share a cache line, and small slots do. (Two threads with a pair of 64 bytes each at
    /// [`Checked`](crate::Checked): 8.0 ns without.)
    ///
    /// It may find none although some have come back, if their bits are not seen yet; it then says that there are more,
    /// and the next look sees them.
    pub(crate) fn take(&self, most: usize, taker: Taker, mut give: impl FnMut(usize)) -> (usize, bool) {
        let (start, size) = (self.start(), self.slot_bytes.load(Ordering::Relaxed) as usize);
        let first = self.first_word(taker);
        let mut taken = 0;
        let words = self.bits.iter().enumerate();
        for (word, bits) in words.clone().skip(first).chain(words.take(first)) {
            if taken == most {
                break;
            }
            let free = bits.load(Ordering::Relaxed);
            let want = lowest(free, most - taken);
            if want == 0 {
                continue;
            }
            // Acquire: pairs with the Release of `put`; the last owner of a slot is done with it before the next
            // begins.
            let order = if mutant("refill_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
            if mutant("refill_plain") {
                bits.store(free & !want, Ordering::Relaxed);
            } else {
                bits.fetch_and(!want, order);
            }
            taken += want.count_ones() as usize;
            runs(want).for_each(|run| {
                let mut address = start + (word * WORD_SLOTS as usize + run.start as usize) * size;
                run.for_each(|_| {
                    give(address);
                    address += size;
                });
            });
        }
        // Acquire: pairs with the Release of `retire`; who finds slots taken off sees their bits too. As many bits are
        // clear as slots count, less those that are in by their bits and not yet taken off.
        let order = if mutant("take_blind") { Ordering::Relaxed } else { Ordering::Acquire };
        let used = (self.state.fetch_add(taken as u32, order) & !QUEUED) + taken as u32;
        (taken, used < self.slots())
    }

    /// The word where a CPU begins to take.
    fn first_word(&self, taker: Taker) -> usize {
        let last = self.last.load(Ordering::Relaxed);
        let first = last as usize & 0xff;
        if taker == Taker::NOBODY || taker.pack(first) == last {
            return first;
        }
        let whole = |word: usize| low_bits(self.slots().saturating_sub(word as u32 * WORD_SLOTS).min(WORD_SLOTS));
        let untouched = self.bits.iter().enumerate().position(|(word, bits)| {
            let free = bits.load(Ordering::Relaxed);
            free != 0 && free == whole(word)
        });
        let first = untouched.unwrap_or(0);
        self.last.store(taker.pack(first), Ordering::Relaxed);
        first
    }

    /// Sets the bits of slots that come back: any number of one word. The count follows by [`retire`](Self::retire).
    pub(crate) fn put(&self, word: u32, mask: u64) -> Result<(), FreeAlready> {
        let Some(bits) = self.bits.get(word as usize) else { return Err(FreeAlready(mask)) };
        // Release: pairs with the Acquire of `take`.
        let order = if mutant("put_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        let twice = bits.fetch_or(mask, order) & mask;
        if twice == 0 { Ok(()) } else { Err(FreeAlready(twice)) }
    }

    /// Takes `count` slots that were put off those that are out. If it answers `true` the caller must put the slab into
    /// its cache's queue; if not, he must not touch it any more.
    #[must_use]
    pub(crate) fn retire(&self, count: u32) -> bool {
        let slots = self.slots();
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let before = state & !QUEUED;
            let after = before.wrapping_sub(count);
            // More slots than there are count as out while some are in by their bits and not yet taken off.
            let was_full = if mutant("full_exactly") { before == slots } else { before >= slots };
            let turns = (was_full && after < slots) || after == 0 && !mutant("empty_unseen");
            let queue = turns && state & QUEUED == 0;
            let next = after | (state & QUEUED) | if queue { QUEUED } else { 0 };
            // Release: pairs with the Acquire of `is_idle` under the cache's lock. What this CPU did to the slab is
            // done before it is released.
            let order = if mutant("retire_relaxed") { Ordering::Relaxed } else { Ordering::Release };
            match self.state.compare_exchange_weak(state, next, order, Ordering::Relaxed) {
                Ok(_) => return queue,
                Err(found) => state = found,
            }
        }
    }

    /// Says that the slab is out of the queue. For the holder of the cache's lock, before he looks at the slab: what
    /// changes later queues it again.
    pub(crate) fn unqueue(&self) {
        self.state.fetch_and(!QUEUED, Ordering::Relaxed);
    }

    /// Whether nothing is out and nobody has it queued. For the holder of the cache's lock.
    pub(crate) fn is_idle(&self) -> bool {
        let order = if mutant("idle_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        let state = self.state.load(order);
        if mutant("release_queued") { state & !QUEUED == 0 } else { state == 0 }
    }

    /// Slots that are free in here by their bits.
    pub(crate) fn free_bits(&self) -> u32 {
        self.bits.iter().map(|bits| bits.load(Ordering::Relaxed).count_ones()).sum()
    }

    /// Whether a slot's bit says that it is in here.
    pub(crate) fn holds(&self, slot: u32) -> bool {
        let bits = self.bits.get((slot / WORD_SLOTS) as usize);
        bits.is_some_and(|bits| bits.load(Ordering::Relaxed) >> (slot % WORD_SLOTS) & 1 != 0)
    }
}

/// The word of a slot's bit, and the bit.
pub(crate) const fn bit_of(slot: u32) -> (u32, u64) {
    (slot / WORD_SLOTS, 1 << (slot % WORD_SLOTS))
}

/// A word with this many low bits set.
const fn low_bits(count: u32) -> u64 {
    if count >= WORD_SLOTS { u64::MAX } else { (1 << count) - 1 }
}

/// The `count` lowest set bits of a word, all if there are fewer.
fn lowest(word: u64, count: usize) -> u64 {
    if count >= word.count_ones() as usize {
        return word;
    }
    let run = runs(word).next().unwrap_or_default();
    if count <= run.len() {
        return low_bits(count as u32) << run.start;
    }
    let mut rest = word;
    for _ in 0..count {
        rest &= rest - 1;
    }
    word & !rest
}

/// The places of a word's set bits, lowest first, as many at a time as follow one another: of a slab that is new, all.
fn runs(mut word: u64) -> impl Iterator<Item = Range<u32>> {
    core::iter::from_fn(move || {
        let start = (word != 0).then(|| word.trailing_zeros())?;
        let end = start + (word >> start).trailing_ones();
        word &= !low_bits(end);
        Some(start..end)
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
