//! Which memory becomes which zone: a node's memory, cut where old devices stop reaching. Pure.

use pagemill::{FrameSpan, ZoneKind};

use crate::fixed_vec::FixedVec;
use crate::memory_map::{FRAME_BYTES, PhysRange};
use crate::topology::{MAX_NODE_RANGES, NodeRange};

/// Where devices of the first PCs stop reaching.
const DMA_END: u64 = 16 << 20;
/// Where devices of 32 address bits do.
const DMA32_END: u64 = 1 << 32;

/// Pieces a machine's memory may be cut into: each border cuts one range at most.
pub const MAX_PIECES: usize = MAX_NODE_RANGES + 2;

/// Memory of one node and one kind, in whole frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Index of its node.
    pub node: usize,
    /// What it is good for.
    pub kind: ZoneKind,
    /// Where it lies.
    pub range: PhysRange,
}

impl Default for Piece {
    fn default() -> Self {
        Self { node: 0, kind: ZoneKind::Normal, range: PhysRange::default() }
    }
}

impl Piece {
    /// Its frames; `None` if it has none.
    pub fn span(&self) -> Option<FrameSpan> {
        span_of(self.range)
    }
}

/// The whole frames inside a range, as pagemill counts them; `None` if there are none.
pub fn span_of(range: PhysRange) -> Option<FrameSpan> {
    FrameSpan::inside_bytes(range.start() as usize, range.bytes() as usize, FRAME_BYTES as usize).ok()
}

/// Cuts the memory of all nodes into zones by address. All memory of node `movable`, if there is one, that lies above
/// 4 GiB is for what can be moved only, so that the node can be emptied.
pub fn pieces(memory: &[NodeRange], movable: Option<usize>) -> FixedVec<Piece, MAX_PIECES> {
    let borders = [0, DMA_END, DMA32_END, u64::MAX];
    let mut pieces = FixedVec::new();
    for &NodeRange { range, node } in memory {
        for (index, bounds) in borders.windows(2).enumerate() {
            let part = PhysRange::new(bounds[0], bounds[1]).and_then(|bounds| bounds.intersection(range));
            let Some(range) = part.and_then(PhysRange::frames_inside) else { continue };
            let kind = match index {
                0 => ZoneKind::Dma,
                1 => ZoneKind::Dma32,
                _ if movable == Some(node) => ZoneKind::Movable,
                _ => ZoneKind::Normal,
            };
            // Cannot be full: see `MAX_PIECES`.
            let _ = pieces.push(Piece { node, kind, range });
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const GIB: u64 = 1 << 30;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(start, end).unwrap()
    }

    fn cut(memory: &[(u64, u64, usize)], movable: Option<usize>) -> Vec<(usize, ZoneKind, PhysRange)> {
        let memory: Vec<_> =
            memory.iter().map(|&(start, end, node)| NodeRange { range: range(start, end), node }).collect();
        pieces(&memory, movable).iter().map(|piece| (piece.node, piece.kind, piece.range)).collect()
    }

    #[test]
    fn borders_cut_what_lies_across() {
        let found = cut(&[(0x1000, 5 * GIB, 0), (5 * GIB, 6 * GIB, 1)], None);
        let expected = [
            (0, ZoneKind::Dma, range(0x1000, DMA_END)),
            (0, ZoneKind::Dma32, range(DMA_END, DMA32_END)),
            (0, ZoneKind::Normal, range(DMA32_END, 5 * GIB)),
            (1, ZoneKind::Normal, range(5 * GIB, 6 * GIB)),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_movable_node_keeps_what_devices_need() {
        let found = cut(&[(0, GIB, 0), (3 * GIB, 5 * GIB, 1), (5 * GIB, 6 * GIB, 0)], Some(1));
        let kinds: Vec<_> = found.iter().map(|&(node, kind, _)| (node, kind)).collect();
        use ZoneKind::{Dma, Dma32, Movable, Normal};
        assert_eq!(kinds, [(0, Dma), (0, Dma32), (1, Dma32), (1, Movable), (0, Normal)]);
    }

    #[test]
    fn every_border_on_a_border_gives_one_piece() {
        assert_eq!(cut(&[(0, DMA_END, 0)], None).len(), 1);
        assert_eq!(cut(&[(DMA_END, DMA32_END, 0), (DMA32_END, DMA32_END + 0x1000, 0)], None).len(), 2);
    }

    #[test]
    fn spans_count_frames() {
        let span = span_of(range(0x3000, 0x8000)).unwrap();
        assert_eq!((span.start().number(), span.count().get()), (3, 5));
        assert_eq!(span_of(range(0x3001, 0x3fff)), None);
    }
}
