//! The frame pool of one CPU: what makes most requests a few plain moves.
//!
//! ```text
//!              magazines, one an order                         return buffer
//!             ┌ 0 ┐ ┌ 0, movable ┐ ┌ 1 ┐ ┌ 2 ┐ ┌ 3 ┐ ┌ 9 ┐      ┌ (row, frames) ┐ ◄── free, tree is sparse
//!   alloc ◄── │   │ │            │ │   │ │   │ │   │ │   │      │               │
//!   free ───► └─▲─┘ └─────▲──────┘ └─▲─┘ └─▲─┘ └─▲─┘ └─▲─┘      └───────┬───────┘
//!   dense       │ refill: 64 frames of one tree, or a few blocks        │ flush: whole rows
//!               └─────────┴──────── arenas, one lock a batch ───────────▼
//! ```
//!
//! A freed frame stays only where that costs no huge frame: if its tree is dense, or is the one the magazine was filled
//! from, and while there is room. Otherwise it waits in the return buffer, where neighbours freed one after the other
//! meet in one word, and goes back to its tree. Every field is written by the CPU that is pinned to it and by no other.

mod returns;

use returns::ReturnBuffer;

use crate::arena::{Access, Arena};
use crate::config::{Config, Geometry};
use crate::extent::Want;
use crate::flags::AllocFlags;
use crate::frame::Pfn;
use crate::frame_table::FrameWord;
use crate::id::{NodeId, NodeMask};
use crate::kind::ZoneKind;
use crate::magazine::{BLOCKS, Rack, SINGLES, Shelf};
use crate::node::{self, Node, Nodes};
use crate::order::Order;
use crate::platform::{Desk, Head, Pinned, Platform};
use crate::sync::{
    AtomicU32, HeadFirst, Ordering, OwnCell, OwnerU8, OwnerU32, OwnerU64, OwnerUsize, Publish, const_fn, mutant,
};
use crate::zone::Mark;

/// Where the single frames of one mobility come from. All zeros at first: so are the pools of CPUs that nobody uses.
struct Side<'m, P: Platform, C: Config> {
    /// The first frame of the tree the magazine was last filled from, and how many from there on are current: none if
    /// it has no tree, so that no frame number at all, however wrong, is taken for one of it.
    tree: OwnerUsize,
    current: OwnerUsize,
    /// That tree's arena, whose words most frames of the magazine have.
    arena: Publish<'m, Arena<'m, P, C>>,
    /// Frames of the next refill, once there was one.
    batch: OwnerU32,
}

/// What one CPU keeps at hand.
#[repr(C, align(128))]
pub(crate) struct FramePool<'m, P: Platform, C: Config> {
    /// First: this is what the CPU's desk leads to.
    head: Head,
    /// The most frames a magazine may hold on this machine; learnt at the first refill.
    limit: OwnerU32,
    /// The same for frames of the tree that unmovable ones come from: none if there is no such tree, or not all of it.
    current_limit: OwnerU8,
    /// As many blocks may a magazine hold: none while memory is scarce, when each must lie where it fits best.
    block_limit: OwnerU32,
    /// Requests served from its own node under the local policy.
    hits: OwnerU64,
    rack: Rack,
    sides: [Side<'m, P, C>; 2],
    returns: ReturnBuffer<'m, P, C>,
    /// The arena of the last frame that was looked up.
    near: Publish<'m, Arena<'m, P, C>>,
    /// The nearest node that has memory, once looked up; forgotten at each drain, since memory may have come nearer.
    home: Publish<'m, Node<'m, P, C>>,
    /// The node of the CPU; written when it is described.
    node: AtomicU32,
    /// Requests under an interleaving policy.
    turn: OwnerU32,
    /// The drain request that was honoured last.
    drained: OwnerU32,
}

#[allow(unsafe_code, reason = "says how the struct above is laid out")]
// SAFETY: `FramePool` is `repr(C)` and its first field is the head.
unsafe impl<P: Platform, C: Config> HeadFirst for FramePool<'_, P, C> {
    const DESK: usize = Desk::FRAMES;

    fn head(&self) -> &Head {
        &self.head
    }
}

/// What a look at one pool shows. Exact while its CPU does nothing.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct PoolCount {
    pub(crate) pooled: usize,
    pub(crate) returning: usize,
}

impl<'m, P: Platform, C: Config> Side<'m, P, C> {
    const_fn! {
        const fn new() -> Self {
            Self {
                tree: OwnerUsize::new(0),
                current: OwnerUsize::new(0),
                arena: Publish::empty(),
                batch: OwnerU32::new(0),
            }
        }
    }

    fn has_tree(&self) -> bool {
        self.current.get() != 0
    }

    /// How many frames it is to be filled with.
    fn batch(&self) -> u32 {
        match self.batch.get() {
            0 => C::REFILL_FRAMES,
            batch => batch,
        }
    }

    /// Whether `pfn` is of the tree the magazine was filled from.
    #[inline(always)]
    fn is_current(&self, pfn: Pfn) -> bool {
        pfn.number().wrapping_sub(self.tree.get()) < self.current.get()
    }
}

impl<'m, P: Platform, C: Config> FramePool<'m, P, C> {
    pub(crate) fn new() -> Self {
        Self {
            head: Head { owner: OwnCell::new(0) },
            limit: OwnerU32::new(0),
            current_limit: OwnerU8::new(0),
            block_limit: OwnerU32::new(0),
            hits: OwnerU64::new(0),
            rack: Rack::new(),
            sides: [Side::new(), Side::new()],
            returns: ReturnBuffer::new(),
            near: Publish::empty(),
            home: Publish::empty(),
            node: AtomicU32::new(0),
            turn: OwnerU32::new(0),
            drained: OwnerU32::new(0),
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

    /// The next turn of an interleaving policy.
    pub(crate) fn next_turn(&self, _pinned: &mut Pinned<P>) -> u32 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Requests it has served.
    pub(crate) fn hits(&self) -> u64 {
        self.hits.get()
    }

    /// What it holds.
    pub(crate) fn count(&self) -> PoolCount {
        let pooled = Shelf::all().map(|(shelf, order)| self.rack.len(shelf) << order).sum();
        PoolCount { pooled, returning: self.returns.count() }
    }

    /// A block at hand.
    #[inline(always)]
    pub(crate) fn take(
        &self,
        _pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        movable: bool,
    ) -> Option<Pfn> {
        let head = Pfn::new(self.rack.pop(Shelf::of(order.index(), movable))?);
        self.hits.set(self.hits.get() + 1);
        if C::CHECKED {
            match self.sides[usize::from(movable)].arena.get().and_then(|arena| arena.word(head)) {
                Some(word) => word.set(FrameWord::lent(order)),
                None => lend_elsewhere(nodes, head, order),
            }
        }
        Some(head)
    }

    /// Keeps a freed frame of the tree that unmovable frames come from while there is room, or lets it join the row of
    /// the last one; `false` if this is not so plain a case.
    #[inline(always)]
    pub(crate) fn put(&self, _pinned: &mut Pinned<P>, pfn: Pfn) -> bool {
        let side = &self.sides[0];
        // Without a tree the limit is 0, so that no frame number at all, however wrong, is taken for one of it.
        if pfn.number() ^ side.tree.get() >= Geometry::<C>::TREE_FRAMES {
            return self.returns.join(pfn);
        }
        let limit = self.current_limit.get();
        if !C::CHECKED {
            return self.rack.push_fixed(pfn.number(), limit);
        }
        let Some(word) = side.arena.get().and_then(|arena| arena.word(pfn)) else { return false };
        let kept = word.get() == FrameWord::lent(Order::ZERO) && self.rack.push_fixed(pfn.number(), limit);
        if kept {
            word.set(FrameWord::pooled(Order::ZERO));
        }
        kept
    }

    /// Takes back any single frame that is lent on its own; `false` if this one is not, or is managed by nobody.
    #[inline]
    pub(crate) fn put_single(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, pfn: Pfn) -> bool {
        let Some(arena) = self.arena_of(nodes, pfn) else { return false };
        let index = arena.index(pfn);
        if C::CHECKED && arena.table.get(index) != FrameWord::lent(Order::ZERO) {
            return false;
        }
        let welcome = arena.is_dense(index) || self.sides.iter().any(|side| side.is_current(pfn));
        let kept = welcome
            && arena.pools_on(self.node.load(Ordering::Relaxed))
            && self.rack.push(self.shelf_of(self.side_of(pfn, arena.kind())), pfn.number(), self.limit.get());
        if !kept {
            self.returns.add(pinned, arena, pfn);
        }
        if C::CHECKED {
            let word = if kept { FrameWord::pooled(Order::ZERO) } else { FrameWord::RETURNING };
            arena.table.set(index, word);
        }
        true
    }

    /// Keeps a block that is lent as such and has a magazine, which is made room in if it is full; `false` if this one
    /// is not, or is managed by nobody.
    #[inline]
    pub(crate) fn put_block(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, head: Pfn, order: Order) -> bool {
        let Some(arena) = self.arena_of(nodes, head) else { return false };
        let index = arena.index(head);
        let shelf = Shelf::of(order.index(), self.is_movable(self.side_of(head, arena.kind())));
        let limit = self.block_limit.get().min(shelf.capacity() as u32);
        let welcome = limit != 0
            && arena.pools_on(self.node.load(Ordering::Relaxed))
            && arena.span().contains(Pfn::new(head.number() + order.frames() - 1));
        if !welcome || C::CHECKED && arena.table.get(index) != FrameWord::lent(order) {
            return false;
        }
        if !self.rack.push(shelf, head.number(), limit) {
            self.spill(pinned, nodes, shelf, order, shelf.capacity().div_ceil(2));
            self.rack.push(shelf, head.number(), limit);
        }
        if C::CHECKED {
            arena.table.set(index, FrameWord::pooled(order));
        }
        true
    }

    /// The node that its frames come from.
    #[inline]
    fn home(&self, nodes: &Nodes<'m, P, C>) -> Option<&'m Node<'m, P, C>> {
        if let Some(home) = self.home.get() {
            return Some(home);
        }
        let home = nodes.get(nodes.nearest(self.node(), NodeMask::ALL)?)?;
        self.home.set(Some(home));
        Some(home)
    }

    /// The arena of a frame: mostly that of the last one.
    #[inline(always)]
    fn arena_of(&self, nodes: &Nodes<'m, P, C>, pfn: Pfn) -> Option<&'m Arena<'m, P, C>> {
        match self.near.get() {
            Some(arena) if arena.span().contains(pfn) => Some(arena),
            _ => {
                let arena = nodes.arena_of(pfn)?;
                self.near.set(Some(arena));
                Some(arena)
            }
        }
    }

    /// Which magazine a freed frame belongs to: movable memory lies at the upper end, so the nearer tree tells.
    #[inline]
    fn side_of(&self, pfn: Pfn, kind: ZoneKind) -> &Side<'m, P, C> {
        let [fixed, movable] = &self.sides;
        if !movable.has_tree() && kind != ZoneKind::Movable {
            return fixed;
        }
        let (below, above) = (fixed.tree.get(), movable.tree.get());
        let nearer_to_movable =
            movable.has_tree() && (!fixed.has_tree() || pfn.number().abs_diff(above) < pfn.number().abs_diff(below));
        if kind == ZoneKind::Movable || nearer_to_movable { movable } else { fixed }
    }

    fn is_movable(&self, side: &Side<'m, P, C>) -> bool {
        core::ptr::eq(side, &self.sides[1])
    }

    fn shelf_of(&self, side: &Side<'m, P, C>) -> Shelf {
        if self.is_movable(side) { Shelf::MOVABLE } else { Shelf::FIXED }
    }

    /// Fills a magazine with frames of the CPU's own node; `false` if no zone of it has any to spare.
    pub(crate) fn refill(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        flags: AllocFlags,
        limit: u32,
    ) -> bool {
        let side = &self.sides[usize::from(flags.contains(AllocFlags::MOVABLE))];
        let shelf = self.shelf_of(side);
        self.limit.set(limit);
        let want = side.batch().min(limit);
        let Some(home) = self.home(nodes) else { return false };
        let kinds = node::kinds(flags);
        for &kind in kinds.iter().filter(|kind| !matches!(kind, ZoneKind::Dma | ZoneKind::Far)) {
            let zone = home.zone(kind);
            if want == 0 || !zone.is_populated() || !zone.affords(want as usize, Mark::Low, kinds[0]) {
                continue;
            }
            let mut from = None;
            let taken = zone.refill(pinned, want, node::end(flags), |arena, start, count| {
                from = Some((arena, start));
                // Backwards, so that frames leave by ascending address.
                for index in (start..start + count).rev() {
                    let kept = self.rack.push(shelf, arena.pfn(index).number(), SINGLES as u32);
                    debug_assert!(kept, "the magazine was empty");
                }
            });
            if let Some((arena, start)) = from.filter(|_| taken != 0) {
                self.follow(side, arena, start);
                side.batch.set((want * 2).min(C::POOL_FRAMES));
                return true;
            }
        }
        // What little there is should not lie in pools.
        side.batch.set((side.batch() / 2).max(1));
        false
    }

    /// Makes the tree around `index` the one that a magazine is filled from.
    ///
    /// Not while a range of its arena is leaving service: what is freed then must come by the trees.
    fn follow(&self, side: &Side<'m, P, C>, arena: &'m Arena<'m, P, C>, index: u32) {
        side.arena.set(Some(arena));
        if arena.is_draining() && !mutant("pool_follows_leaving") {
            return self.forget(side);
        }
        let window = arena.tree_window(index);
        let frames = (window.end - window.start) as usize;
        side.tree.set(arena.pfn(window.start).number());
        side.current.set(frames);
        if !self.is_movable(side) {
            let whole = frames == Geometry::<C>::TREE_FRAMES;
            self.current_limit.set(if whole { self.limit.get() as u8 } else { 0 });
        }
    }

    /// From now on a magazine has no tree.
    fn forget(&self, side: &Side<'m, P, C>) {
        side.current.set(0);
        if !self.is_movable(side) {
            self.current_limit.set(0);
        }
    }

    /// Fills the magazine of an order; `false` if it has none, or memory is too short for that.
    pub(crate) fn refill_blocks(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        limit: u32,
    ) -> bool {
        self.limit.set(limit);
        let shelf = Shelf::of(order.index(), false);
        let batch = shelf.capacity() / 2;
        // Magazines of blocks are for machines large enough to fill those of single frames.
        if batch == 0 || limit < C::POOL_FRAMES {
            return false;
        }
        self.block_limit.set(0);
        let Some(home) = self.home(nodes) else { return false };
        let kinds = node::kinds(AllocFlags::empty());
        kinds.iter().filter(|&&kind| kind != ZoneKind::Dma).any(|&kind| {
            let zone = home.zone(kind);
            if !zone.is_populated() || zone.is_scarce() {
                return false;
            }
            self.block_limit.set(BLOCKS as u32);
            zone.affords(batch << order.index(), Mark::Low, kinds[0])
                && zone.refill_blocks(pinned, order, batch as u32, |head| {
                    let kept = self.rack.push(shelf, head.number(), shelf.capacity() as u32);
                    debug_assert!(kept, "the magazine was empty");
                }) != 0
        })
    }

    /// A block straight from the trees of the CPU's own node, if a zone of it has any to spare.
    pub(crate) fn take_direct(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        flags: AllocFlags,
    ) -> Option<Pfn> {
        let home = self.home(nodes)?;
        let kinds = node::kinds(flags);
        let want = Want { count: order.frames(), align: order.index() as u32, end: node::end(flags), limit: None };
        let mut ordinary = kinds.iter().filter(|kind| !matches!(kind, ZoneKind::Dma | ZoneKind::Far));
        let pfn = ordinary.find_map(|&kind| {
            let zone = home.zone(kind);
            let spare = zone.is_populated() && zone.affords(want.count, Mark::Low, kinds[0]);
            spare.then(|| zone.take(Access::Wait(pinned), &want)).and_then(|taken| taken.ok().flatten())
        })?;
        self.hits.set(self.hits.get() + 1);
        Some(pfn)
    }

    /// Gives everything back to the trees.
    pub(crate) fn drain(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>) {
        for (shelf, order) in Shelf::all() {
            if let Some(order) = Order::new(order) {
                self.spill(pinned, nodes, shelf, order, shelf.capacity());
            }
        }
        for side in &self.sides {
            self.forget(side);
        }
        self.returns.flush(pinned);
        self.home.set(None);
    }

    /// Gives the oldest blocks of a magazine back: one stay under the lock of each arena that it has any of.
    #[inline(never)]
    fn spill(&self, pinned: &Pinned<P>, nodes: &Nodes<'m, P, C>, shelf: Shelf, order: Order, count: usize) {
        let mut batch = [0; SINGLES];
        let mut left = self.rack.take_oldest(shelf, count, &mut batch);
        while left > 0 {
            let Some(arena) = nodes.arena_of(Pfn::new(batch[0])) else {
                debug_assert!(false, "a pool holds managed frames only");
                return;
            };
            let (mut from, mut kept) = (0, 0);
            let next = || {
                while from < left {
                    let head = Pfn::new(batch[from]);
                    from += 1;
                    if arena.span().contains(head) {
                        return Some(arena.index(head));
                    }
                    batch[kept] = head.number();
                    kept += 1;
                }
                None
            };
            if order == Order::ZERO {
                arena.free_frames(pinned, next)
            } else {
                arena.free_blocks(pinned, order, next)
            }
            left = kept;
        }
    }

    /// Whether somebody has asked for a drain since the last.
    #[inline(always)]
    pub(crate) fn is_asked(&self, requests: &AtomicU32) -> bool {
        // Relaxed: `honour` looks again, with Acquire.
        requests.load(Ordering::Relaxed) != self.drained.get()
    }

    /// Drains if somebody has asked since the last time. Called on every slow path and from the idle hook.
    #[cold]
    pub(crate) fn honour(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, requests: &AtomicU32) {
        // Acquire: pairs with the Release of the request, so that what made it is seen (a range that is leaving).
        let order = if mutant("honour_relaxed") { Ordering::Relaxed } else { Ordering::Acquire };
        let epoch = requests.load(order);
        if epoch == self.drained.get() {
            return;
        }
        self.drain(pinned, nodes);
        // The request that was read before draining: what made a later one has not been seen.
        let honoured = if mutant("drain_honours_late") { requests.load(Ordering::Relaxed) } else { epoch };
        self.drained.set(honoured);
    }

    /// The request that was honoured last.
    #[cfg(all(test, loom))]
    pub(crate) fn honoured(&self, _pinned: &mut Pinned<P>) -> u32 {
        self.drained.get()
    }
}

/// Heads a block of an arena that the magazine was not filled from.
#[inline(never)]
fn lend_elsewhere<P: Platform, C: Config>(nodes: &Nodes<'_, P, C>, head: Pfn, order: Order) {
    if let Some(arena) = nodes.arena_of(head) {
        arena.table.set(arena.index(head), FrameWord::lent(order));
    }
}
