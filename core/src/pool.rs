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
//! How much a stack may hold follows what happens: a refill doubles it, a spill without a refill in between halves it. A
//! CPU that takes keeps much at hand, one that only gives back, or ends, soon holds next to nothing.

use crate::id::NodeId;
use crate::platform::{Desk, Head, Pinned, Platform};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU32, HeadFirst, Ordering, OwnCell, OwnerU32, Stacks, const_fn};

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

    /// How many rounds a refill should bring, now that the stack has been found empty: half of what it may hold from
    /// now on, which is twice as much as before.
    pub(crate) fn refill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> usize {
        let limit = (self.stacks.limit(class) * 2).clamp(2 * least(class), class.stack_capacity());
        self.stacks.set_limit(class, limit);
        limit / 2
    }

    /// How many rounds should go, now that the stack has been found full: half of them, a batch at most.
    ///
    /// A stack that has never been filled gets its first limit instead, and nothing goes.
    pub(crate) fn spill_count<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) -> usize {
        if self.stacks.limit(class) == 0 {
            self.stacks.set_limit(class, 2 * least(class));
            return 0;
        }
        self.stacks.len(class).div_ceil(2).min(class.batch())
    }

    /// Lets a stack that has just spilled hold an eighth less: a CPU that only frees soon holds little.
    pub(crate) fn shrink<P: Platform>(&self, _pinned: &mut Pinned<P>, class: SizeClass) {
        let limit = self.stacks.limit(class);
        self.stacks.set_limit(class, (limit - limit / 8).max(2 * least(class)));
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
