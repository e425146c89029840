//! Which node a request is meant for, and which may serve it instead.

use crate::config::Config;
use crate::id::{NodeId, NodeMask};
use crate::node::Nodes;
use crate::platform::Platform;

/// Where a request wants its memory to lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Policy {
    /// On the CPU's own node, else the nearest that has any.
    #[default]
    Local,
    /// On these nodes and no others, nearest first.
    Bind(NodeMask),
    /// On this node, else the nearest to it.
    Preferred(NodeId),
    /// On one of these nodes, nearest first, else anywhere.
    PreferredMany(NodeMask),
    /// On these nodes in turn.
    Interleave(NodeMask),
    /// On these nodes in turn, each as often as its weight says.
    WeightedInterleave(NodeMask),
}

/// A policy applied to one request: the node it is meant for, and those that may serve it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) first: NodeId,
    pub(crate) allowed: NodeMask,
    pub(crate) interleaved: bool,
    /// Whether every node may serve it in a second round.
    pub(crate) then_any: bool,
}

impl Route {
    /// Meant for `first`, served by any.
    pub(crate) const fn near(first: NodeId) -> Self {
        Self { first, allowed: NodeMask::ALL, interleaved: false, then_any: false }
    }

    /// The route of one request from a CPU of `local`; `turn` counts the requests of its policy before it.
    ///
    /// `None` if the policy names no node that has memory.
    pub(crate) fn of<P: Platform, C: Config>(
        nodes: &Nodes<'_, P, C>,
        policy: Policy,
        local: NodeId,
        turn: u32,
    ) -> Option<Self> {
        match policy {
            Policy::Local => Some(Self::near(nodes.nearest(local, NodeMask::ALL)?)),
            Policy::Preferred(node) => Some(Self::near(nodes.nearest(node, NodeMask::ALL)?)),
            Policy::Bind(mask) => {
                let first = nodes.nearest(local, mask)?;
                Some(Self { first, allowed: mask, interleaved: false, then_any: false })
            }
            Policy::PreferredMany(mask) => match nodes.nearest(local, mask) {
                Some(first) => Some(Self { first, allowed: mask, interleaved: false, then_any: true }),
                None => Some(Self::near(nodes.nearest(local, NodeMask::ALL)?)),
            },
            Policy::Interleave(mask) => Self::in_turn(nodes, mask, turn, |_| 1),
            Policy::WeightedInterleave(mask) => {
                Self::in_turn(nodes, mask, turn, |node| nodes.get(node).map_or(1, |node| node.weight()))
            }
        }
    }

    fn in_turn<P: Platform, C: Config>(
        nodes: &Nodes<'_, P, C>,
        mask: NodeMask,
        turn: u32,
        weight: impl Fn(NodeId) -> u32,
    ) -> Option<Self> {
        let usable = || mask.and(nodes.mask()).iter().filter(|&node| nodes.get(node).is_some_and(|n| n.has_memory()));
        // Wide enough for all weights together.
        let weight = |node| u64::from(weight(node));
        let total: u64 = usable().map(weight).sum();
        let mut rest = u64::from(turn).checked_rem(total)?;
        let found = usable().find(|&node| match rest.checked_sub(weight(node)) {
            Some(left) => {
                rest = left;
                false
            }
            None => true,
        });
        // Weights that somebody has just lowered may leave a rest.
        let first = found.or_else(|| usable().next())?;
        Some(Self { first, allowed: NodeMask::ALL, interleaved: true, then_any: false })
    }
}
