//! What the heap says of the frames it uses, so that nobody else frees them, and what it asks about them.

use crate::config::Config;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frame_table::{FrameWord, Kind};
use crate::frames::Frames;
use crate::id::NodeId;
use crate::order::{AlignedBlocks, Order};
use crate::platform::Platform;

impl<P: Platform, C: Config> Frames<'_, P, C> {
    /// Marks lent frames as a slab.
    pub(crate) fn hold_slab(&self, span: FrameSpan) {
        self.hold(span, |_| Kind::Slab);
    }

    /// Marks lent frames as one large object.
    pub(crate) fn hold_large(&self, span: FrameSpan) {
        self.hold(span, |head| if head == span.start() { Kind::LargeHead } else { Kind::LargeTail });
    }

    /// Marks lent frames as part of the large object that ends where they begin.
    pub(crate) fn hold_tail(&self, span: FrameSpan) {
        self.hold(span, |_| Kind::LargeTail);
    }

    fn hold(&self, span: FrameSpan, kind: impl Fn(Pfn) -> Kind) {
        if C::CHECKED {
            return self.walk_heads(span, |head, order| FrameWord::held(kind(head), order));
        }
        // Without checks what is lent has no heads until here.
        for (arena, part) in self.parts(span) {
            let Some(arena) = arena else { continue };
            let first = arena.index(part.start()) as usize;
            for (index, order) in AlignedBlocks::new(first, part.count().get(), Order::MAX) {
                let index = index as u32;
                arena.table.set(index, FrameWord::held(kind(arena.pfn(index)), order));
            }
        }
    }

    /// Marks frames that were held as merely lent.
    pub(crate) fn unhold(&self, span: FrameSpan) {
        self.walk_heads(span, |_, order| if C::CHECKED { FrameWord::lent(order) } else { FrameWord::FREE_AGAIN });
    }

    /// Gives the head of each block of a range a new word.
    fn walk_heads(&self, span: FrameSpan, word: impl Fn(Pfn, Order) -> FrameWord) {
        let mut next = span.start();
        while next < span.end() {
            let Some(arena) = self.nodes.arena_of(next) else { return };
            let index = arena.index(next);
            let order = arena.table.get(index).order();
            arena.table.set(index, word(next, order));
            let Some(after) = next.checked_add(order.count()) else { return };
            next = after;
        }
    }

    /// The frames of the large object that starts at `head`, if one does.
    ///
    /// Its size is written nowhere: it is the blocks that follow.
    pub(crate) fn large_at(&self, head: Pfn) -> Option<FrameSpan> {
        let mut next = head;
        let mut kind = Kind::LargeHead;
        while let Some(order) = self.word_of(next).filter(|word| word.kind() == kind).map(FrameWord::order) {
            next = next.checked_add(order.count())?;
            kind = Kind::LargeTail;
        }
        FrameSpan::new(head, next - head).ok().filter(|span| span.count() != FrameCount::ZERO)
    }

    /// The word of a frame, if it is managed.
    fn word_of(&self, pfn: Pfn) -> Option<FrameWord> {
        let arena = self.nodes.arena_of(pfn)?;
        Some(arena.table.get(arena.index(pfn)))
    }

    /// The node that a frame is on, if it is managed.
    pub(crate) fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        self.nodes.arena_of(pfn).map(|arena| arena.node())
    }
}
