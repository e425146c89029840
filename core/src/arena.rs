//! An arena: what one lock covers, up to 1 GiB, and how CPUs meet there.
//!
//! Under the lock lies a [`Buddy`]. Beside it, readable by all: the frame words, the free frames of each tree, and the
//! pending map. Every stay under the lock begins by taking what is pending and ends by publishing what has changed (to
//! the words, the zone's [`Ledger`] and its [`Hints`]), all before the unlock; after the unlock the holder looks
//! whether somebody left a frame meanwhile.
//!
//! Frames are counted from the arena's naturally aligned base, so indexes have the alignment of frame numbers even
//! where the arena's memory starts or ends in the middle.

mod dirty;
mod handover;
mod take_back;

use core::ops::Range;

use crate::buddy::{Buddy, End};
use crate::config::{Config, Geometry};
use crate::frame::{FrameSpan, Pfn};
use crate::frame_table::{FrameTable, FrameWord, Word};
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::ledger::{EVERY_KIND, Hints, Ledger};
use crate::order::Order;
use crate::pending::{PendingMap, ROW_FRAMES};
use crate::platform::{Pinned, Platform};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Lock, Ordering, Publish, mutant};

/// How a caller may come by a lock.
pub(crate) enum Access<'a, P: Platform> {
    /// It is pinned, so the holder is another CPU and will be done soon.
    Wait(&'a Pinned<P>),
    /// It interrupted this CPU, perhaps the very holder: try once.
    Try,
}

impl<P: Platform> Clone for Access<'_, P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Platform> Copy for Access<'_, P> {}

/// The lock was held and the caller may not wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Busy;

/// What the lock covers.
pub(crate) struct State<'m, C: Config> {
    pub(crate) buddy: Buddy<'m, C>,
    /// Free frames as the ledger knows them.
    folded: usize,
    /// Chunk kinds as the hints know them.
    hinted: u32,
    /// Whether somebody came in vain: the hints promise too much.
    misled: bool,
    /// Frames that are free and dirty, and how many of them the ledger knows.
    dirty_free: u32,
    dirty_folded: u32,
    /// Frames that leave service as soon as they are free.
    pub(crate) leaving: Option<Range<u32>>,
    /// Bit t: tree t has frames that are reserved or offline, so a free must look at their words at every level.
    special: [u64; 8],
    /// Whether any tree is.
    any_special: bool,
    /// Bit t: tree t has lent blocks, so a fresh word does not prove that a frame was never lent.
    lent_blocks: [u64; 8],
}

impl<C: Config> State<'_, C> {
    /// Whether there is a chunk of any of `kinds`: the hint that led here may be stale, and a larger chunk be cut in
    /// vain while another arena has one that fits.
    fn offers(&mut self, kinds: u32) -> bool {
        if kinds == EVERY_KIND {
            return true;
        }
        self.buddy.settle_all();
        chunk_kinds(self.buddy.orders_free()) & kinds != 0
    }
}

/// The parts that an arena is put together from, all carved by its zone.
pub(crate) struct Parts<'m, C: Config> {
    pub(crate) span: FrameSpan,
    pub(crate) buddy: Buddy<'m, C>,
    pub(crate) table: FrameTable<'m>,
    pub(crate) embedder: &'m [AtomicU32],
    pub(crate) free_in_tree: &'m [AtomicU16],
    /// A bit a frame, by rows as the pending map has them; none if nobody asks.
    pub(crate) dirty: &'m [AtomicU64],
    pub(crate) pending: PendingMap<'m>,
    pub(crate) ledger: &'m Ledger,
    pub(crate) hints: &'m Hints<'m>,
    /// Its place among the arenas that share the hints.
    pub(crate) place: usize,
    /// Its zone.
    pub(crate) node: NodeId,
    pub(crate) kind: ZoneKind,
}

/// Up to an aligned 1 GiB of frames of one zone.
pub(crate) struct Arena<'m, P: Platform, C: Config> {
    span: FrameSpan,
    base: usize,
    node: NodeId,
    kind: ZoneKind,
    place: usize,
    pub(crate) table: FrameTable<'m>,
    embedder: &'m [AtomicU32],
    free_in_tree: &'m [AtomicU16],
    /// Which frames have come back, row by row. None if nobody asks.
    dirty: &'m [AtomicU64],
    pending: PendingMap<'m>,
    ledger: &'m Ledger,
    hints: &'m Hints<'m>,
    /// The buddy's free frames when the lock was last released, and whether it has settled.
    free: AtomicU32,
    /// The node whose CPUs may keep its frames in their pools; none while a range is leaving service.
    keepers: AtomicU32,
    first_tree: u32,
    state: Lock<P, State<'m, C>>,
    /// The next arena of the same aligned stretch: another zone's, or another range's.
    pub(crate) next_in_slot: Publish<'m, Self>,
}

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// An arena all of whose frames are in nobody's hands yet: `open` brings them in.
    pub(crate) fn new(parts: Parts<'m, C>) -> Self {
        let state = State {
            buddy: parts.buddy,
            folded: 0,
            hinted: 0,
            misled: false,
            dirty_free: 0,
            dirty_folded: 0,
            leaving: None,
            special: [0; 8],
            any_special: false,
            lent_blocks: [0; 8],
        };
        Self {
            base: parts.span.start().align_down(Geometry::<C>::ARENA_FRAMES).number(),
            span: parts.span,
            node: parts.node,
            kind: parts.kind,
            place: parts.place,
            table: parts.table,
            embedder: parts.embedder,
            free_in_tree: parts.free_in_tree,
            dirty: parts.dirty,
            pending: parts.pending,
            ledger: parts.ledger,
            hints: parts.hints,
            free: AtomicU32::new(0),
            keepers: AtomicU32::new(keepers(parts.node, parts.kind)),
            first_tree: (parts.span.start().number() & (Geometry::<C>::ARENA_FRAMES - 1)) as u32 >> C::HUGE_ORDER,
            state: Lock::new(state),
            next_in_slot: Publish::empty(),
        }
    }

    /// The kind of its zone.
    #[inline]
    pub(crate) fn kind(&self) -> ZoneKind {
        self.kind
    }

    /// The node of its zone.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether a CPU of `node` may keep its frames: they are local, neither scarce nor slow, and not leaving. Advice.
    #[inline]
    pub(crate) fn pools_on(&self, node: u32) -> bool {
        self.keepers.load(Ordering::Relaxed) == node
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        each.one(&self.state);
    }

    /// The frames it manages.
    pub(crate) fn span(&self) -> FrameSpan {
        self.span
    }

    /// The index of a frame that it manages.
    #[inline]
    pub(crate) fn index(&self, pfn: Pfn) -> u32 {
        (pfn.number() - self.base) as u32
    }

    /// The frame at an index.
    #[inline]
    pub(crate) fn pfn(&self, index: u32) -> Pfn {
        Pfn::new(self.base + index as usize)
    }

    /// Which frame below `limit` is the last, as an index to stay below; `None` if the limit does not touch it.
    pub(crate) fn below(&self, limit: Option<Pfn>) -> Option<u32> {
        let limit = limit?;
        (limit < self.span.end()).then(|| limit.number().saturating_sub(self.base) as u32)
    }

    /// Whether the tree of a frame is so crowded that its frames may stay in a pool when freed. Advice.
    #[inline]
    pub(crate) fn is_dense(&self, index: u32) -> bool {
        let tree = (index >> C::HUGE_ORDER) - self.first_tree;
        // Relaxed: a stale count costs a little order, never a frame.
        let free = self.free_in_tree.get(tree as usize).map_or(u16::MAX, |free| free.load(Ordering::Relaxed));
        u32::from(free) < C::DENSE_BELOW_FRAMES
    }

    /// Whether frames are leaving service, so that none should stay in a pool. Advice.
    pub(crate) fn is_draining(&self) -> bool {
        self.keepers.load(Ordering::Relaxed) == NO_KEEPERS && keepers(self.node, self.kind) != NO_KEEPERS
    }

    /// The word of a frame, if it manages it.
    #[inline(always)]
    pub(crate) fn word(&self, pfn: Pfn) -> Option<Word<'m>> {
        self.table.word(pfn.number().wrapping_sub(self.span.start().number()))
    }

    /// The row of a frame at its start, as the buddy counts rows.
    pub(crate) fn row(&self, first: Pfn) -> u32 {
        (first.number() - self.base) as u32 / ROW_FRAMES
    }

    /// The part of the tree around `index` that the arena manages, as indexes.
    pub(crate) fn tree_window(&self, index: u32) -> Range<u32> {
        let tree = Geometry::<C>::TREE_FRAMES as u32;
        let start = index & !(tree - 1);
        start.max(self.first())..(start + tree).min(self.first() + self.span.count().get() as u32)
    }

    /// The embedder's word of a frame.
    pub(crate) fn embedder_word(&self, index: u32) -> Option<&'m core::sync::atomic::AtomicU32> {
        #[cfg(not(any(loom, shuttle)))]
        return self.embedder.get((index - self.first()) as usize);
        #[cfg(any(loom, shuttle))]
        {
            let _ = (index, self.embedder);
            None
        }
    }

    fn first(&self) -> u32 {
        self.index(self.span.start())
    }

    fn first_row(&self) -> u32 {
        self.first_tree * Geometry::<C>::TREE_FRAMES as u32 / ROW_FRAMES
    }

    /// Runs `work` under the lock; everything it changed is published before the lock is released.
    pub(crate) fn with<R>(
        &self,
        access: Access<'_, P>,
        work: impl FnOnce(&Self, &mut State<'m, C>) -> R,
    ) -> Result<R, Busy> {
        let mut state = match access {
            Access::Wait(pinned) => self.state.lock(pinned),
            Access::Try => self.state.try_lock().ok_or(Busy)?,
        };
        if self.pending.is_dirty() {
            self.absorb(&mut state);
        }
        let result = work(self, &mut state);
        if mutant("published_after_unlock") {
            let free = state.buddy.free_frames();
            drop(state);
            self.free.store(free, Ordering::Relaxed);
        } else {
            self.publish(&mut state);
            drop(state);
        }
        self.settle();
        Ok(result)
    }

    /// Publishes free frames and chunk kinds, and moves leaving frames out. Before every unlock.
    fn publish(&self, state: &mut State<'m, C>) {
        if state.leaving.is_some() {
            self.sweep_leaving(state);
        }
        if let Some(index) = state.buddy.late_fault() {
            self.ledger.note_late_fault(self.pfn(index));
        }
        let free = state.buddy.free_frames();
        self.free.store(free, Ordering::Relaxed);
        let difference = free as isize - state.folded as isize;
        if difference.unsigned_abs() >= self.fold_threshold() {
            state.folded = free as usize;
            self.ledger.fold(difference);
        }
        let difference = state.dirty_free as isize - state.dirty_folded as isize;
        if C::FRESH_FRAMES_ARE_ZERO && difference.unsigned_abs() >= self.fold_threshold() {
            state.dirty_folded = state.dirty_free;
            self.ledger.fold_dirty(difference);
        }
        // What has come is told at once, what has gone only when somebody was misled: a kind that comes and goes with
        // every request would cost a read-modify-write each time.
        let now = chunk_kinds(state.buddy.orders_free());
        let told = if state.misled { now ^ state.hinted } else { now & !state.hinted };
        if told != 0 {
            state.hinted ^= told;
            self.hints.flip(self.place, told, now);
        }
        state.misled = false;
    }

    /// By how many frames the ledger may be off on this arena's account: one in 4096 of them.
    pub(crate) fn fold_threshold(&self) -> usize {
        (self.span.count().get() >> 12).max(1)
    }

    /// Brings the frames of `part` into service, but for those that are reserved.
    pub(crate) fn open(&self, access: Access<'_, P>, part: Range<u32>) -> Result<(), Busy> {
        self.with(access, |_, state| {
            let count = part.end - part.start;
            let opened = state.buddy.free_range(part.start, count);
            debug_assert!(opened.is_ok(), "frames come into service once");
        })
    }

    /// Marks the frames of `part` as reserved. Before they are opened, or when they were taken by name.
    pub(crate) fn mark_reserved(&self, state: &mut State<'m, C>, part: Range<u32>) {
        self.table.fill(part.start, part.end - part.start, FrameWord::RESERVED);
        mark_trees::<C>(&mut state.special, &part);
        state.any_special = true;
        self.ledger.book_reserved((part.end - part.start) as isize);
    }

    /// Marks frames that were just taken from the trees as out of service.
    pub(crate) fn mark_offline(&self, state: &mut State<'m, C>, part: Range<u32>) {
        self.table.fill(part.start, part.end - part.start, FrameWord::OFFLINE);
        mark_trees::<C>(&mut state.special, &part);
        state.any_special = true;
        self.ledger.book_offline((part.end - part.start) as isize);
    }

    /// Tells pools whether to let this arena's frames pass.
    pub(crate) fn set_draining(&self, draining: bool) {
        // Relaxed: advice; a frame that a pool keeps meanwhile is asked for by the drain request that follows.
        let keepers = if draining { NO_KEEPERS } else { keepers(self.node, self.kind) };
        self.keepers.store(keepers, Ordering::Relaxed);
    }

    /// The counts of its zone.
    pub(crate) fn ledger(&self) -> &'m Ledger {
        self.ledger
    }

    /// A block of 2^order frames: its first index.
    pub(crate) fn take(
        &self,
        access: Access<'_, P>,
        order: Order,
        end: End,
        below: Option<u32>,
        kinds: u32,
    ) -> Result<Option<u32>, Busy> {
        self.with(access, |arena, state| {
            let taken = if state.offers(kinds) { state.buddy.take(order, end, below) } else { None };
            let Some(index) = taken else {
                state.misled = true;
                return None;
            };
            arena.note_taken(state, index, order.frames() as u32);
            if order > Order::ZERO {
                mark_trees::<C>(&mut state.lent_blocks, &(index..index + order.frames() as u32));
            }
            if C::CHECKED {
                arena.table.set(index, FrameWord::lent(order));
            }
            Some(index)
        })
    }

    /// Up to `want` blocks for a pool.
    pub(crate) fn take_blocks(
        &self,
        pinned: &Pinned<P>,
        order: Order,
        want: u32,
        kinds: u32,
        out: &mut impl FnMut(Pfn),
    ) -> u32 {
        let taken = self.with(Access::Wait(pinned), |arena, state| {
            for taken in 0..want {
                let block = if state.offers(kinds) { state.buddy.take(order, End::Bottom, None) } else { None };
                let Some(index) = block else {
                    state.misled = true;
                    return taken;
                };
                arena.note_taken(state, index, order.frames() as u32);
                mark_trees::<C>(&mut state.lent_blocks, &(index..index + order.frames() as u32));
                if C::CHECKED {
                    arena.table.set(index, FrameWord::pooled(order));
                }
                out(arena.pfn(index));
            }
            want
        });
        taken.unwrap_or(0)
    }

    /// Single frames for a pool, up to `want`: their first indexes and counts go to `out`.
    ///
    /// They come from one tree, so that what is freed again is of the tree that is taken from; only where trees have
    /// but a few each does it go on to others, until there is half of what is wanted, lest there be a lock for every
    /// few frames.
    pub(crate) fn take_frames(&self, pinned: &Pinned<P>, want: u32, end: End, mut out: impl FnMut(u32, u32)) -> u32 {
        let taken = self.with(Access::Wait(pinned), |arena, state| {
            let mut taken = 0;
            while taken * 2 < want {
                let mut dirty = 0;
                let more = state.buddy.take_frames(want - taken, end, None, &mut |index, count| {
                    dirty += if C::FRESH_FRAMES_ARE_ZERO { arena.dirty_in(index, count) } else { 0 };
                    out(index, count);
                });
                state.dirty_free = state.dirty_free.saturating_sub(dirty);
                if more == 0 {
                    state.misled = taken == 0;
                    break;
                }
                taken += more;
            }
            taken
        });
        taken.unwrap_or(0)
    }

    /// `count` frames in a row, the first a multiple of 2^align.
    pub(crate) fn take_run(
        &self,
        access: Access<'_, P>,
        count: u32,
        align: u32,
        end: End,
        below: Option<u32>,
        kinds: u32,
    ) -> Result<Option<u32>, Busy> {
        self.with(access, |arena, state| {
            let taken = if state.offers(kinds) { state.buddy.take_run(count, align, end, below) } else { None };
            let Some(index) = taken else {
                state.misled = true;
                return None;
            };
            arena.lend(state, index, count);
            Some(index)
        })
    }

    /// Exactly these frames, or the first that is not free.
    pub(crate) fn take_at(&self, access: Access<'_, P>, start: u32, count: u32) -> Result<Result<(), Pfn>, Busy> {
        self.with(access, |arena, state| {
            state.buddy.take_at(start, count).map_err(|index| arena.pfn(index))?;
            arena.lend(state, start, count);
            Ok(())
        })
    }

    fn lend(&self, state: &mut State<'m, C>, start: u32, count: u32) {
        self.note_taken(state, start, count);
        if count > 1 {
            mark_trees::<C>(&mut state.lent_blocks, &(start..start + count));
        }
        if C::CHECKED {
            self.table.lend(start, count);
        }
    }
}

/// No node has this number.
const NO_KEEPERS: u32 = u32::MAX;

/// The node whose CPUs may pool frames of a zone.
fn keepers(node: NodeId, kind: ZoneKind) -> u32 {
    if matches!(kind, ZoneKind::Dma | ZoneKind::Far) { NO_KEEPERS } else { node.index() as u32 }
}

/// The chunk kinds of `hints` from a buddy's free orders: one for each order of a tree.
fn chunk_kinds(orders_free: u32) -> u32 {
    orders_free & EVERY_KIND
}

/// The set bits of a word, lowest first.
pub(crate) fn bits(mut mask: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(bit)
    })
}

fn mark_trees<C: Config>(map: &mut [u64; 8], frames: &Range<u32>) {
    for tree in frames.start >> C::HUGE_ORDER..=(frames.end - 1) >> C::HUGE_ORDER {
        map[tree as usize / 64] |= 1 << (tree % 64);
    }
}

fn trees_marked<C: Config>(map: &[u64; 8], frames: &Range<u32>) -> bool {
    (frames.start >> C::HUGE_ORDER..=(frames.end - 1) >> C::HUGE_ORDER)
        .any(|tree| map[tree as usize / 64] >> (tree % 64) & 1 == 1)
}
