//! What the heap says of the frames it uses, so that nobody else frees them, and what it asks about them.

use core::ops::Range;

use crate::arena::Arena;
use crate::config::Config;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frame_table::{Counts, FrameWord, Kind};
use crate::frames::Frames;
use crate::id::NodeId;
use crate::node;
use crate::order::{AlignedBlocks, Order};
use crate::platform::Platform;
use crate::zone::Mark;

impl<P: Platform, C: Config> Frames<'_, P, C> {
    /// Marks lent frames as a slab.
    pub(crate) fn hold_slab(&self, span: FrameSpan) {
        self.hold(span, |_| Kind::Slab);
    }

    /// Marks lent frames as one large object.
    pub(crate) fn hold_large(&self, span: FrameSpan) {
        self.hold(span, |head| if head == span.start() { Kind::LargeHead } else { Kind::LargeTail });
        self.note_counts(span.start(), Counts::exact(span.count()));
    }

    /// Notes in the word of a large object's head how many frames it has, where no level has other use for the place.
    pub(crate) fn note_counts(&self, head: Pfn, counts: Counts) {
        if !C::HARDENED {
            self.note(head, counts.bits());
        }
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
        self.walk_heads(span, |_, order| self.unheld(order));
    }

    /// The head of a lent block that no heap holds.
    fn unheld(&self, order: Order) -> FrameWord {
        if C::CHECKED { FrameWord::lent(order) } else { FrameWord::FREE_AGAIN }
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
    /// Its size stands in its head's word if it has room there; else it is the blocks that follow.
    pub(crate) fn large_at(&self, head: Pfn) -> Option<FrameSpan> {
        self.object_at(head, Kind::LargeHead)
    }

    /// How many frames the large object of `span` was asked for.
    pub(crate) fn asked_of(&self, span: FrameSpan) -> FrameCount {
        let counts = self.word_of(span.start()).filter(|_| !C::HARDENED).and_then(FrameWord::counts);
        counts.map_or(span.count(), |counts| counts.asked)
    }

    fn object_at(&self, head: Pfn, kind: Kind) -> Option<FrameSpan> {
        let word = self.word_of(head).filter(|word| !C::HARDENED && word.kind() == kind);
        if let Some(counts) = word.and_then(FrameWord::counts) {
            return FrameSpan::new(head, counts.all()).ok();
        }
        let mut next = head;
        let mut kind = kind;
        while let Some(order) = self.word_of(next).filter(|word| word.kind() == kind).map(FrameWord::order) {
            next = next.checked_add(order.count())?;
            kind = Kind::LargeTail;
        }
        FrameSpan::new(head, next - head).ok()
    }

    /// What the heap has made of a frame: what for, and the frames of the large object that it is of. Only to explain a
    /// wrong free: what belongs to others may change meanwhile.
    pub(crate) fn object_around(&self, pfn: Pfn) -> Option<(Kind, FrameSpan)> {
        let mut next = pfn;
        loop {
            let arena = self.nodes.arena_of(next)?;
            let (head, word) = arena.table.block_of(arena.index(next)).filter(|(_, word)| word.is_held())?;
            let head = arena.pfn(head);
            match word.kind() {
                Kind::LargeTail => next = Pfn::new(head.number().checked_sub(1)?),
                kind => return Some((kind, self.object_at(head, kind)?)),
            }
        }
    }

    /// Whether a frame is lent, but to no heap, or is not to be lent at all.
    pub(crate) fn is_of_others(&self, pfn: Pfn) -> bool {
        if self.word_of(pfn).is_some_and(FrameWord::is_out_of_service) {
            return true;
        }
        let block = self.nodes.arena_of(pfn).and_then(|arena| arena.table.block_of(arena.index(pfn)));
        block.is_some_and(|(_, word)| word.kind() == Kind::Lent)
    }

    /// The frames of the large object that starts at `head`, if one does that is set aside.
    pub(crate) fn aside_at(&self, head: Pfn) -> Option<FrameSpan> {
        self.object_at(head, Kind::LargeKept)
    }

    /// Sets the large object that starts at `head` aside: it counts as lent here, and its user has it no more. `false`
    /// if somebody else has just done so.
    pub(crate) fn set_aside(&self, head: Pfn) -> bool {
        let Some(arena) = self.nodes.arena_of(head) else { return false };
        let index = arena.index(head);
        let word = arena.table.get(index);
        let mut aside = word.with_kind(Kind::LargeKept);
        if !C::HARDENED {
            aside = aside.with_above(word.counts().map_or(0, |counts| Counts::exact(counts.all()).bits()));
        }
        word.kind() == Kind::LargeHead && arena.table.exchange(index, word, aside)
    }

    /// As [`set_aside`](Self::set_aside) for a large object at `head` for which just so many frames were asked, if that
    /// is known, for whoever then takes it by its word. None of more than `most` frames.
    #[inline]
    pub(crate) fn make_ready(&self, head: Pfn, asked: Option<FrameCount>, most: usize) -> Option<FrameSpan> {
        let arena = self.nodes.arena_of(head)?;
        let count = arena.table.make_ready(arena.index(head), asked, most)?;
        FrameSpan::new(head, count).ok()
    }

    /// Gives a block to a user who has asked for so many of its frames, if it is ready.
    #[inline]
    pub(crate) fn lend_ready(&self, span: FrameSpan, asked: FrameCount) -> bool {
        self.take_ready(span, Kind::LargeHead, Counts { asked, spare: span.count() - asked })
    }

    /// Sets a block aside that is ready, if it is.
    pub(crate) fn keep_ready(&self, span: FrameSpan) -> bool {
        self.take_ready(span, Kind::LargeKept, Counts::exact(span.count()))
    }

    #[inline]
    fn take_ready(&self, span: FrameSpan, kind: Kind, counts: Counts) -> bool {
        let arena = self.nodes.arena_of(span.start());
        arena.is_some_and(|arena| arena.table.take_ready(arena.index(span.start()), span.count(), kind, counts))
    }

    /// Whether a block is ready, as a look sees it.
    pub(crate) fn is_ready(&self, span: FrameSpan) -> bool {
        self.object_at(span.start(), Kind::LargeReady) == Some(span)
    }

    /// Gives a block that was set aside to a user who has asked for so many of its frames.
    pub(crate) fn lend_again(&self, span: FrameSpan, asked: FrameCount) {
        let Some(arena) = self.nodes.arena_of(span.start()) else { return };
        let index = arena.index(span.start());
        let mut word = arena.table.get(index).with_kind(Kind::LargeHead);
        if !C::HARDENED {
            word = word.with_above(Counts { asked, spare: span.count() - asked }.bits());
        }
        arena.table.set(index, word);
    }

    /// Keeps a number of 22 bits with the large object that starts at `head`, for as long as it is held.
    pub(crate) fn note(&self, head: Pfn, note: u32) {
        let Some(arena) = self.nodes.arena_of(head) else { return };
        let index = arena.index(head);
        arena.table.set(index, arena.table.get(index).with_above(note));
    }

    /// The number that was kept.
    pub(crate) fn note_of(&self, head: Pfn) -> u32 {
        self.word_of(head).map_or(0, |word| word.above())
    }

    /// Takes the `more` frames that follow a large object for it, if they are free, of the same zone, and that zone has
    /// them to spare. Nothing idle is asked for: moving the object is no worse than that.
    pub(crate) fn extend_large(&self, span: FrameSpan, more: FrameCount) -> bool {
        let Ok(tail) = FrameSpan::new(span.end(), more) else { return false };
        let Some(home) = self.nodes.arena_of(span.start()) else { return false };
        let alike = |arena: &Arena<'_, P, C>| arena.node() == home.node() && arena.kind() == home.kind();
        if !self.parts(tail).all(|(arena, _)| arena.is_some_and(alike)) {
            return false;
        }
        let spare = self.nodes.get(home.node()).is_some_and(|node| {
            let kinds = node::kinds(AllocFlags::empty());
            node.zone(home.kind()).affords(more.get(), Mark::Low, kinds[0])
        });
        if !spare || self.take_at(tail).is_err() {
            return false;
        }
        self.hold_tail(tail);
        self.note_counts(span.start(), Counts::exact(span.count() + more));
        true
    }

    /// Cuts a large object: its frames from `at` on are merely lent then.
    pub(crate) fn cut_large(&self, span: FrameSpan, at: Pfn) {
        let mut next = span.start();
        while next < span.end() {
            let Some(arena) = self.nodes.arena_of(next) else { return };
            let head = arena.index(next);
            let word = arena.table.get(head);
            let end = head + word.order().frames() as u32;
            if next >= at {
                arena.table.set(head, self.unheld(word.order()));
            } else if next + word.order().count() > at {
                self.cut_block(arena, head..end, arena.index(at));
            }
            next = arena.pfn(end);
        }
        self.note_counts(span.start(), Counts::exact(at - span.start()));
    }

    /// Cuts a block of a large object in two, the second of which is merely lent.
    fn cut_block(&self, arena: &Arena<'_, P, C>, block: Range<u32>, at: u32) {
        let blocks = |from: u32, to: u32| AlignedBlocks::new(from as usize, (to - from) as usize, Order::MAX);
        for (head, order) in blocks(at, block.end) {
            arena.table.set(head as u32, self.unheld(order));
        }
        let kind = arena.table.get(block.start).kind();
        for (head, order) in blocks(block.start, at) {
            let kind = if head as u32 == block.start { kind } else { Kind::LargeTail };
            arena.table.set(head as u32, FrameWord::held(kind, order));
        }
    }

    /// Whether frames that the caller has just got by name or by request, past the pools, were never anybody else's, or
    /// are zero again.
    pub(crate) fn are_clean(&self, span: FrameSpan) -> bool {
        self.parts(span).all(|(arena, part)| {
            arena.is_some_and(|arena| arena.are_clean(arena.index(part.start()), part.count().get() as u32))
        })
    }

    /// The word of a frame, if it is managed.
    fn word_of(&self, pfn: Pfn) -> Option<FrameWord> {
        let arena = self.nodes.arena_of(pfn)?;
        Some(arena.table.get(arena.index(pfn)))
    }

    /// The node that a frame is on, if it is managed.
    pub fn node_of(&self, pfn: Pfn) -> Option<NodeId> {
        self.nodes.arena_of(pfn).map(|arena| arena.node())
    }
}
