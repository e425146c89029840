//! The object pool of one CPU: what makes most requests for small objects a few plain moves.
//!
//! ```text
//!             stacks, one a class
//!            ┌ 8 ┐ ┌ 16 ┐ ┌ 24 ┐     ┌ 32K ┐
//!   alloc ◄──│   │ │    │ │    │  …  │     │
//!   free ───►└─▲─┘ └──▲─┘ └─▲──┘     └──▲──┘
//!              └──────┴─────┴───────────┘  refill and spill: a batch from or to the depot, else the slabs
//! ```
//!
//! How much a stack may hold follows what happens: a refill doubles it. Beyond two batches it is *deep*, of which there
//! is as much as [`Config::DEEP_BYTES`](crate::Config::DEEP_BYTES) allows. A CPU that takes keeps much at hand. A stack
//! that spills several times without a refill in between is a *stream* of frees: all of it goes at each spill, and all
//! streams of a CPU together hold no more than [`STREAM_BYTES`]. A CPU that has spilled often with no refill of any
//! stack in between is *tearing down*: everything at hand goes, and from then on whatever it frees is a stream. If that
//! goes on, and nobody wants what it frees, it is *leaving*: of larger objects, which are few to a slab, it holds none,
//! since each that it holds when it falls asleep keeps a slab from going home, for as long as it sleeps.

mod outbox;

pub(crate) use outbox::{Outbox, PARCEL};

use crate::id::NodeId;
use crate::platform::{Desk, Head, Pinned, Platform};
use crate::size_class::SizeClass;
use crate::slab::NODE_SHIFT;
use crate::sync::{
    AtomicU32, AtomicUsize, HeadFirst, Ordering, OwnCell, OwnerU32, OwnerU64, OwnerUsize, Reach, Room, Stacks, const_fn,
};

/// The spill without a refill before it by which a stack becomes a stream.
const NEW_STREAM: u32 = 5;

/// Spills of any stacks with no refill in between after which a CPU is tearing down.
const TEARING_DOWN: u32 = 8;

/// Bytes of larger objects that it spilled and no depot wanted, less those that one did, with no refill in between,
/// after which it is leaving.
const LEAVING_BYTES: u32 = 512 << 10;

/// How often streams spill, each of them, until it is seen afresh which stacks are any.
const STREAM_SPILLS: u32 = 64;

/// What all streams of a CPU may hold together, in bytes of objects.
const STREAM_BYTES: usize = 32 << 10;

/// The fewest rounds that a refill brings: an eighth of a batch.
const fn least(class: SizeClass) -> usize {
    class.batch().div_ceil(8)
}

/// What one CPU keeps of objects.
#[repr(C)]
pub(crate) struct ObjectPool {
    head: Head,
    pub(crate) stacks: Stacks,
    /// The node of its CPU, as [`Slab::is_of_on`](crate::slab::Slab::is_of_on) wants it.
    home: AtomicU32,
    /// Objects of other nodes on their way home.
    pub(crate) outbox: Outbox,
    /// The drain request that was honoured last.
    drained: OwnerU32,
    /// Spills of each class since its last refill.
    spills: [OwnerU32; SizeClass::COUNT],
    /// What the limits of stacks are beyond two batches, in bytes of objects.
    deep_bytes: OwnerUsize,
    /// How many stacks are streams, and how often they have spilled since it was seen afresh which are.
    streams: OwnerU32,
    stream_spills: OwnerU32,
    /// Spills of all classes since the last refill of any.
    spills_in_a_row: OwnerU32,
    /// Bytes that larger classes spilled and nobody wanted, less those that somebody did.
    unwanted: OwnerU32,
    pub(crate) gap: Gap,
}

/// What the limits of all CPUs' stacks are beyond two batches, in bytes of objects; and how much they may be.
pub(crate) struct Deep {
    bytes: AtomicUsize,
    most_bytes: usize,
}

/// The share of what may be deep that one CPU may have, as a divisor.
const DEEP_SHARE: usize = 4;

impl Deep {
    const_fn! {
        pub(crate) const fn new(most_bytes: usize) -> Self {
            Self { bytes: AtomicUsize::new(0), most_bytes }
        }
    }

    /// Says that there is no CPU any more but that of this pool.
    #[cfg(not(loom))]
    pub(crate) fn in_copy(&self, pool: Option<&ObjectPool>) {
        self.bytes.store(pool.map_or(0, |pool| pool.deep_bytes.get()), Ordering::Relaxed);
    }

    fn has_room_for(&self, pool: &ObjectPool) -> bool {
        // Relaxed, here and where it is counted: a bound that each CPU may miss by a stack.
        pool.deep_bytes.get() < self.most_bytes / DEEP_SHARE && self.bytes.load(Ordering::Relaxed) < self.most_bytes
    }
}

/// How far it is to the next sample of a CPU.
pub(crate) struct Gap {
    /// Bytes that are lent until then, as of this wish for samples.
    pub(crate) bytes: OwnerUsize,
    pub(crate) wish: OwnerU32,
    /// The state that random numbers come from, 0 at first.
    pub(crate) random: OwnerU64,
}

#[allow(unsafe_code, reason = "a statement about the layout above, which `sync` relies on")]
// SAFETY: `repr(C)` puts `head` first.
unsafe impl HeadFirst for ObjectPool {
    const DESK: usize = Desk::OBJECTS;

    fn head(&self) -> &Head {
        &self.head
    }
}

impl ObjectPool {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                head: Head { owner: OwnCell::new(0) },
                stacks: Stacks::new(),
                home: AtomicU32::new(0),
                outbox: Outbox::new(),
                drained: OwnerU32::new(0),
                #[cfg(not(loom))]
                spills: [const { OwnerU32::new(0) }; SizeClass::COUNT],
                #[cfg(loom)]
                spills: core::array::from_fn(|_| OwnerU32::new(0)),
                deep_bytes: OwnerUsize::new(0),
                streams: OwnerU32::new(0),
                stream_spills: OwnerU32::new(0),
                spills_in_a_row: OwnerU32::new(0),
                unwanted: OwnerU32::new(0),
                gap: Gap { bytes: OwnerUsize::new(0), wish: OwnerU32::new(0), random: OwnerU64::new(0) },
            }
        }
    }

    /// The node of its CPU.
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.home() >> NODE_SHIFT).unwrap_or_default()
    }

    /// The node of its CPU, as the slabs know it.
    #[inline(always)]
    pub(crate) fn home(&self) -> u32 {
        self.home.load(Ordering::Relaxed)
    }

    /// Moves its CPU to a node.
    pub(crate) fn set_node(&self, node: NodeId) {
        self.home.store((node.index() as u32) << NODE_SHIFT, Ordering::Relaxed);
    }

    /// An object at hand.
    #[inline(always)]
    pub(crate) fn take<P: Platform>(&self, pinned: &mut Pinned<P>, class: SizeClass) -> Option<usize> {
        self.take_by(pinned, class, Reach::Folded)
    }

    /// As [`take`](Self::take).
    #[inline(always)]
    pub(crate) fn take_by<P: Platform>(&self, _: &mut Pinned<P>, class: SizeClass, reach: Reach) -> Option<usize> {
        let (object, next) = self.stacks.pop_and_peek(class, reach)?;
        P::prefetch(next);
        Some(object)
    }

    /// An object at hand that is marked as a sample, and the token that it was marked with.
    pub(crate) fn take_marked<P: Platform>(&self, _: &mut Pinned<P>, class: SizeClass) -> Option<(usize, usize)> {
        self.stacks.pop_marked(class)
    }

    /// Keeps an object if there is room.
    #[inline(always)]
    pub(crate) fn put<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass, address: usize) -> bool {
        self.stacks.push(class, address)
    }

    /// Room for one more object, if there is any.
    #[inline(always)]
    pub(crate) fn room<'a, P: Platform>(
        &'a self,
        _pinned: &'a mut Pinned<P>,
        class: SizeClass,
        reach: Reach,
    ) -> Option<Room<'a>> {
        self.stacks.room(class, reach)
    }

    /// How many rounds a refill should bring, now that the stack has been found empty: half of what it may hold from
    /// now on, which is twice as much as before.
    pub(crate) fn refill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass, deep: &Deep) -> usize {
        self.end_stream(class);
        self.spills_in_a_row.set(0);
        self.unwanted.set(0);
        let before = self.stacks.limit(class);
        let most = if deep.has_room_for(self) { class.stack_capacity() } else { before.max(2 * class.batch()) };
        let limit = (before * 2).clamp(2 * least(class), most);
        self.limit_to(class, limit, deep);
        limit / 2
    }

    /// How many rounds should go, now that the stack has been found full.
    ///
    /// Half of them at first: the other half is for the next requests. All of them if it is a stream. A stack that has
    /// never been filled gets its first limit instead, and nothing goes.
    pub(crate) fn spill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> usize {
        let spills = self.spills[class.index()].get().saturating_add(1);
        self.set_spills(class, spills);
        self.spills_in_a_row.set(self.spills_in_a_row.get().saturating_add(1));
        let len = self.stacks.len(class);
        match self.stacks.limit(class) {
            0 => 0,
            _ if self.is_stream(class) => len,
            _ => len.div_ceil(2),
        }
    }

    /// Sets what a stack that has just spilled may hold; streams have equal shares. Answers whether all streams should
    /// be [ended](Self::next_stream), so that those that flow no more have no share.
    pub(crate) fn set_limit<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass, deep: &Deep) -> bool {
        if self.spills_in_a_row.get() > TEARING_DOWN && !self.is_stream(class) {
            self.set_spills(class, NEW_STREAM);
        }
        if self.stacks.limit(class) == 0 {
            self.limit_to(class, 2 * least(class), deep);
        }
        if !self.is_stream(class) {
            return false;
        }
        let streams = self.streams.get();
        let share = STREAM_BYTES / streams as usize / class.bytes();
        self.limit_to(class, share.max(least(class)), deep);
        let spills = self.stream_spills.get() + 1;
        self.stream_spills.set(if spills > streams * STREAM_SPILLS { 0 } else { spills });
        spills > streams * STREAM_SPILLS
    }

    /// Whether the CPU has just begun to tear down: then all that is [at hand](Self::next_at_hand) is to go.
    pub(crate) fn begins_to_tear_down<P: Platform>(&self, _pinned: &mut Pinned<P>) -> bool {
        self.spills_in_a_row.get() == TEARING_DOWN
    }

    /// Whether the CPU is leaving.
    pub(crate) fn is_leaving<P: Platform>(&self, _pinned: &mut Pinned<P>) -> bool {
        self.unwanted.get() >= LEAVING_BYTES
    }

    /// Notes that so many bytes of a larger class were spilled, and whether somebody wanted them.
    pub(crate) fn note_spill<P: Platform>(&self, _pinned: &mut Pinned<P>, bytes: usize, is_wanted: bool) {
        let (unwanted, bytes) = (self.unwanted.get(), bytes as u32);
        self.unwanted.set(if is_wanted { unwanted.saturating_sub(bytes) } else { unwanted.saturating_add(bytes) });
    }

    /// A stack of a larger class that holds something or may, when the CPU has just begun to leave: all of it is to go.
    pub(crate) fn next_held<P: Platform>(&self, _pinned: &mut Pinned<P>) -> Option<SizeClass> {
        let is_held = |class: &SizeClass| self.is_stream(*class) || self.stacks.limit(*class) > 0;
        SizeClass::all().rev().find(is_held).filter(|class| class.is_larger())
    }

    /// A stack that is no stream and holds something.
    pub(crate) fn next_at_hand<P: Platform>(&self, _pinned: &mut Pinned<P>) -> Option<SizeClass> {
        SizeClass::all().find(|&class| !self.is_stream(class) && self.stacks.len(class) > 0)
    }

    /// A stack that is a stream, and is none any more: what it holds is to go.
    pub(crate) fn next_stream<P: Platform>(&self, _pinned: &mut Pinned<P>) -> Option<SizeClass> {
        let class = SizeClass::all().find(|&class| self.is_stream(class))?;
        self.end_stream(class);
        Some(class)
    }

    /// Lets a stack that has been emptied hold nothing until it is used again.
    pub(crate) fn close<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass, deep: &Deep) {
        self.end_stream(class);
        self.limit_to(class, 0, deep);
    }

    /// Lets a stack hold so many rounds.
    fn limit_to(&self, class: SizeClass, limit: usize, deep: &Deep) {
        let before = self.deep_bytes_of(class);
        self.stacks.set_limit(class, limit);
        if before != self.deep_bytes_of(class) {
            // All of them: marks of samples may have raised others.
            let bytes = SizeClass::all().map(|class| self.deep_bytes_of(class)).sum();
            let counted = self.deep_bytes.get();
            self.deep_bytes.set(bytes);
            // Wrapping, as the addition does: what is taken off was added before.
            deep.bytes.fetch_add(bytes.wrapping_sub(counted), Ordering::Relaxed);
        }
    }

    fn deep_bytes_of(&self, class: SizeClass) -> usize {
        self.stacks.limit(class).saturating_sub(2 * class.batch()) * class.bytes()
    }

    fn is_stream(&self, class: SizeClass) -> bool {
        self.spills[class.index()].get() >= NEW_STREAM
    }

    fn end_stream(&self, class: SizeClass) {
        self.set_spills(class, 0);
    }

    /// Says how often a stack has spilled. Here alone, so that there are as many streams as are counted whenever one
    /// ends.
    fn set_spills(&self, class: SizeClass, spills: u32) {
        let was = self.is_stream(class);
        self.spills[class.index()].set(spills);
        let streams = self.streams.get() + u32::from(self.is_stream(class)) - u32::from(was);
        self.streams.set(streams);
    }

    /// Takes the objects of other nodes out that wait to go home.
    pub(crate) fn take_posted<P: Platform>(&self, _pinned: &mut Pinned<P>, out: &mut [usize; PARCEL]) -> usize {
        self.outbox.take(out)
    }

    /// Whether somebody has asked for a drain since the last.
    pub(crate) fn is_asked(&self, requests: &AtomicU32) -> bool {
        requests.load(Ordering::Relaxed) != self.drained.get()
    }

    /// Notes the request that is honoured.
    pub(crate) fn set_drained<P: Platform>(&self, _pinned: &mut Pinned<P>, epoch: u32) {
        self.drained.set(epoch);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
