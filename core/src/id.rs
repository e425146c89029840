//! CPUs and nodes by number.

use core::fmt;

/// The number of a CPU: an index into what each CPU has of its own. Hosted, a thread is a CPU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CpuId(u32);

impl CpuId {
    /// Names CPU `number`.
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a NUMA node, below [`NodeId::LIMIT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(u8);

impl NodeId {
    /// Nodes are numbered from 0 to one less than this, so that a set of them is one word.
    pub const LIMIT: usize = 64;
    /// The first node, and the only one of a machine without NUMA.
    pub const ZERO: Self = Self(0);

    /// Node `number`, or `None` at or above [`NodeId::LIMIT`].
    #[inline]
    pub const fn new(number: u32) -> Option<Self> {
        if (number as usize) < Self::LIMIT { Some(Self(number as u8)) } else { None }
    }

    /// The number as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A set of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct NodeMask(u64);

impl NodeMask {
    const LIMIT: usize = NodeId::LIMIT;
    /// No node.
    pub const EMPTY: Self = Self(0);
    /// Every node there can be.
    pub const ALL: Self = Self(!0);

    /// The set of just `node`.
    #[inline]
    pub const fn of(node: NodeId) -> Self {
        Self(1 << node.0)
    }

    /// This set and `node`.
    #[inline]
    pub const fn with(self, node: NodeId) -> Self {
        Self(self.0 | 1 << node.0)
    }

    /// Whether `node` is in the set.
    #[inline]
    pub const fn contains(self, node: NodeId) -> bool {
        self.0 >> node.0 & 1 == 1
    }

    /// The nodes that are in both.
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Of this set, the nodes below `count`.
    #[inline]
    pub(crate) const fn first(self, count: usize) -> Self {
        if count >= Self::LIMIT { self } else { Self(self.0 & ((1 << count) - 1)) }
    }

    /// How many nodes it holds.
    #[inline]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Its nodes, ascending.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            let node = NodeId::new(rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(node)
        })
    }
}

impl fmt::Debug for NodeMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(NodeId::index)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_lists_its_nodes_ascending() {
        let node = |number| NodeId::new(number).unwrap();
        let mask = NodeMask::of(node(63)).with(node(0)).with(node(7));
        let mut nodes = mask.iter().map(NodeId::index);
        assert_eq!([nodes.next(), nodes.next(), nodes.next(), nodes.next()], [Some(0), Some(7), Some(63), None]);
        assert_eq!(mask.count(), 3);
        assert!(NodeId::new(64).is_none());
    }
}
