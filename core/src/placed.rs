//! Objects where a policy wants them.
//!
//! ```text
//!   Heap::alloc    the CPU's pool ──► slabs of its node ──► frames, near first
//!   Placed::alloc                     slabs of the node that the policy names ──► frames of that node, then the next one
//! ```
//!
//! A CPU's pool holds objects of the CPU's own node alone, so requests of a handle go past it, to a lock: they are for
//! what is large, or lives long, or is used by everybody. What comes back is freed like any other object, by whoever
//! likes.

use core::alloc::Layout;

use crate::config::Config;
use crate::error::AllocError;
use crate::heap::Heap;
use crate::id::{NodeId, NodeMask};
use crate::large::at_least_a_byte;
use crate::platform::Platform;
use crate::policy::{Policy, Route};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU32, Ordering};

/// A handle on a heap whose requests follow a policy: see [`Heap::placed`].
pub struct Placed<'h, 'm, P: Platform, C: Config> {
    pub(crate) heap: &'h Heap<'m, P, C>,
    policy: Policy,
    /// Requests so far, for policies that go round.
    turn: AtomicU32,
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// A handle whose objects lie where `policy` says, as far as there is room: interleaved over nodes, or bound to
    /// some. They are freed by the heap or by any handle on it.
    ///
    /// Where the configuration has [one node](Config::NUMA) and at [`Hardened`](crate::Hardened) the policy has no
    /// meaning.
    pub fn placed(&self, policy: Policy) -> Placed<'_, 'm, P, C> {
        Placed { heap: self, policy, turn: AtomicU32::new(0) }
    }

    /// An object on `first` or the nearest to it of `allowed`.
    fn alloc_near(&self, first: NodeId, allowed: NodeMask, layout: Layout) -> Result<usize, AllocError> {
        let fallback = self.frames.nodes.get(first).into_iter().flat_map(|node| node.fallback());
        for node in fallback.filter_map(|index| NodeId::new(index as u32)).filter(|&node| allowed.contains(node)) {
            match self.alloc_at(node, layout) {
                Err(AllocError::NoMemory) => {}
                answer => return answer,
            }
        }
        Err(AllocError::NoMemory)
    }

    /// An object on a node and no other.
    fn alloc_at(&self, node: NodeId, layout: Layout) -> Result<usize, AllocError> {
        let Some(class) = SizeClass::of(layout) else { return self.alloc_large_at(node, layout) };
        // Others may take a new slab's slots before this request does, but not for ever.
        for _ in 0..8 {
            if let Some(answer) = self.slot_at(node, class) {
                return answer;
            }
            let on = self.grow_cache(class, node)?;
            if on != node {
                self.release_empty(class, on, C::KEEP_EMPTY_SLABS);
                break;
            }
        }
        Err(AllocError::NoMemory)
    }
}

impl<P: Platform, C: Config> Placed<'_, '_, P, C> {
    /// The policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// An object for `layout`, as the policy wants it.
    pub(crate) fn alloc_address(&self, layout: Layout) -> Result<usize, AllocError> {
        let (heap, layout) = (self.heap, at_least_a_byte(layout));
        if !C::NUMA {
            return heap.alloc_address(layout);
        }
        // Relaxed: whose turn it is orders nothing.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let nodes = if let Policy::Bind(mask) = self.policy { mask } else { NodeMask::ALL };
        heap.serve_on(nodes, layout, true, || {
            let route = Route::of(&heap.frames.nodes, self.policy, heap.home(), turn).ok_or(AllocError::NoMemory)?;
            match heap.alloc_near(route.first, route.allowed, layout) {
                Err(AllocError::NoMemory) if route.then_any => heap.alloc_near(route.first, NodeMask::ALL, layout),
                answer => answer,
            }
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
