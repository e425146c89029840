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
//! How much a stack may hold follows what happens: a refill doubles it, spills without a refill in between make it less.
//! A CPU that takes keeps much at hand, one that only gives back soon holds next to nothing.

use crate::id::NodeId;
use crate::platform::{Desk, Head, Pinned, Platform};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU32, HeadFirst, Ordering, OwnCell, OwnerU32, Room, Stacks, const_fn};

/// Spills in a row after which a CPU counts as one that only frees.
const SPILLS_OF_HALF: u32 = 4;

/// The fewest rounds that a refill brings: an eighth of a batch.
const fn least(class: SizeClass) -> usize {
    class.batch().div_ceil(8)
}

/// What one CPU keeps of objects.
#[repr(C)]
pub(crate) struct ObjectPool {
    head: Head,
    pub(crate) stacks: Stacks,
    /// The node of its CPU.
    node: AtomicU32,
    /// The drain request that was honoured last.
    drained: OwnerU32,
    /// Spills of each class since its last refill.
    spills: [OwnerU32; SizeClass::COUNT],
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
                node: AtomicU32::new(0),
                drained: OwnerU32::new(0),
                #[cfg(not(loom))]
                spills: [const { OwnerU32::new(0) }; SizeClass::COUNT],
                #[cfg(loom)]
                spills: core::array::from_fn(|_| OwnerU32::new(0)),
            }
        }
    }

    /// The node of its CPU.
    pub(crate) fn node(&self) -> NodeId {
        NodeId::new(self.node.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Moves its CPU to a node.
    pub(crate) fn set_node(&self, node: NodeId) {
        self.node.store(node.index() as u32, Ordering::Relaxed);
    }

    /// An object at hand.
    #[inline(always)]
    pub(crate) fn take<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> Option<usize> {
        self.stacks.pop(class)
    }

    /// Keeps an object if there is room.
    #[inline(always)]
    pub(crate) fn put<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass, address: usize) -> bool {
        self.stacks.push(class, address)
    }

    /// Room for one more object, if there is any.
    #[inline(always)]
    pub(crate) fn room<'a, P: Platform>(&'a self, _pinned: &'a mut Pinned<P>, class: SizeClass) -> Option<Room<'a>> {
        self.stacks.room(class)
    }

    /// How many rounds a refill should bring, now that the stack has been found empty: half of what it may hold from
    /// now on, which is twice as much as before.
    pub(crate) fn refill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> usize {
        let limit = (self.stacks.limit(class) * 2).clamp(2 * least(class), class.stack_capacity());
        self.stacks.set_limit(class, limit);
        self.spills[class.index()].set(0);
        limit / 2
    }

    /// How many rounds should go, now that the stack has been found full.
    ///
    /// Half of them at first: the other half is for the next requests. All of them once there have been several spills
    /// with no refill in between, and then the stack may hold less and less: who only frees keeps nothing. A stack that
    /// has never been filled gets its first limit instead, and nothing goes.
    pub(crate) fn spill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> usize {
        let spills = self.spills[class.index()].get();
        self.spills[class.index()].set(spills.saturating_add(1));
        let len = self.stacks.len(class);
        match spills {
            _ if self.stacks.limit(class) == 0 => 0,
            0..SPILLS_OF_HALF => len.div_ceil(2),
            _ => len,
        }
    }

    /// Sets what a stack that has just spilled may hold.
    pub(crate) fn shrink<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) {
        let limit = self.stacks.limit(class);
        let limit = match self.spills[class.index()].get() {
            _ if limit == 0 => 2 * least(class),
            0..=SPILLS_OF_HALF => limit,
            // 64 rounds a spill, then 32, 16, 8.
            spills => (class.batch() >> (spills / SPILLS_OF_HALF).ilog2().min(3)).max(least(class)),
        };
        self.stacks.set_limit(class, limit);
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
