//! The frame pool of one CPU: what makes most requests a few plain moves.
//!
//! ```text
//!             ┌ unmovable ┐ ┌ movable ┐   ┌ stacks ┐        ┌ return buffer ┐
//!   alloc ◄── │ magazine  │ │ magazine│   │ 1 2 3 9│        │ (row, frames) │ ◄── free, tree is sparse
//!   free ───► └─────▲─────┘ └────▲────┘   └───▲────┘        └──────┬────────┘
//!   dense           │ refill: 64 frames of one tree, under one lock │ flush: whole rows, under one lock
//!                   └────────────┴───── arenas ────────────────────▼
//! ```
//!
//! A freed frame stays only where that costs no huge frame: if its tree is dense, or is the one the magazine was filled
//! from, and while there is room. Otherwise it waits in the return buffer, where neighbours freed one after the other
//! meet in one word, and goes back to its tree. Every field is written by the CPU that is pinned to it and by no other.

mod returns;
mod stacks;

use returns::ReturnBuffer;
use stacks::Stacks;

use crate::arena::{Access, Arena};
use crate::config::{Config, Geometry};
use crate::extent::Want;
use crate::flags::AllocFlags;
use crate::frame::Pfn;
use crate::frame_table::FrameWord;
use crate::id::{NodeId, NodeMask};
use crate::kind::ZoneKind;
use crate::magazine::Magazine;
use crate::node::{self, Node, Nodes};
use crate::order::Order;
use crate::platform::{Pinned, Platform};
use crate::sync::{AtomicU32, Ordering, OwnerU32, OwnerU64, OwnerUsize, Publish, const_fn, mutant};
use crate::zone::Mark;

/// The most frames of a magazine.
const ROUNDS: usize = 128;
/// No tree begins here.
const NO_TREE: usize = usize::MAX;

/// Single frames of one mobility.
struct Side<'m, P: Platform, C: Config> {
    magazine: Magazine<ROUNDS>,
    /// The first frame of the tree it was last filled from.
    tree: OwnerUsize,
    /// That tree's arena, whose words most frames of the magazine have.
    arena: Publish<'m, Arena<'m, P, C>>,
    /// Frames of the next refill.
    batch: OwnerU32,
}

/// What one CPU keeps at hand.
#[repr(align(128))]
pub(crate) struct FramePool<'m, P: Platform, C: Config> {
    /// The most frames a magazine may hold on this machine; learnt at the first refill.
    limit: OwnerU32,
    /// Requests served from its own node under the local policy.
    hits: OwnerU64,
    sides: [Side<'m, P, C>; 2],
    returns: ReturnBuffer<'m, P, C>,
    stacks: Stacks,
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
                magazine: Magazine::new(),
                tree: OwnerUsize::new(NO_TREE),
                arena: Publish::empty(),
                batch: OwnerU32::new(C::REFILL_FRAMES),
            }
        }
    }

    /// Whether `pfn` is of the tree the magazine was filled from.
    #[inline(always)]
    fn is_current(&self, pfn: Pfn) -> bool {
        pfn.number() ^ self.tree.get() < Geometry::<C>::TREE_FRAMES
    }
}

impl<'m, P: Platform, C: Config> FramePool<'m, P, C> {
    pub(crate) fn new() -> Self {
        Self {
            limit: OwnerU32::new(0),
            hits: OwnerU64::new(0),
            sides: [Side::new(), Side::new()],
            returns: ReturnBuffer::new(),
            stacks: Stacks::new(),
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
        let singles: usize = self.sides.iter().map(|side| side.magazine.len()).sum();
        PoolCount { pooled: singles + self.stacks.count(), returning: self.returns.count() }
    }

    /// A frame at hand.
    #[inline(always)]
    pub(crate) fn take(&self, _pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, movable: bool) -> Option<Pfn> {
        let side = &self.sides[usize::from(movable)];
        let pfn = Pfn::new(side.magazine.pop()?);
        self.hits.set(self.hits.get() + 1);
        if C::CHECKED {
            match side.arena.get().and_then(|arena| arena.word(pfn)) {
                Some(word) => word.set(FrameWord::lent(Order::ZERO)),
                None => lend_elsewhere(nodes, pfn),
            }
        }
        Some(pfn)
    }

    /// Keeps a freed frame of the tree that unmovable frames come from, or lets it join the row that the last one went
    /// to; `false` if this is not so plain a case.
    #[inline(always)]
    pub(crate) fn put(&self, _pinned: &mut Pinned<P>, pfn: Pfn) -> bool {
        let side = &self.sides[0];
        if !side.is_current(pfn) {
            return false;
        }
        if C::CHECKED {
            let Some(word) = side.arena.get().and_then(|arena| arena.word(pfn)) else { return false };
            if word.get() != FrameWord::lent(Order::ZERO) || !side.magazine.push(pfn.number(), self.limit.get()) {
                return false;
            }
            word.set(FrameWord::pooled(Order::ZERO));
            return true;
        }
        side.magazine.push(pfn.number(), self.limit.get())
    }

    /// Takes back any single frame that is lent on its own; `false` if this one is not, or is managed by nobody.
    #[inline(never)]
    pub(crate) fn put_any(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, pfn: Pfn) -> bool {
        if self.returns.join(pfn) {
            return true;
        }
        let Some(arena) = self.arena_of(nodes, pfn) else { return false };
        let index = arena.index(pfn);
        if C::CHECKED && arena.table.get(index) != FrameWord::lent(Order::ZERO) {
            return false;
        }
        let side = self.side_of(pfn, arena.kind());
        let welcome = arena.pools_on(self.node()) && (side.is_current(pfn) || arena.keeps_dense(index));
        let word = if welcome && side.magazine.push(pfn.number(), self.limit.get()) {
            FrameWord::pooled(Order::ZERO)
        } else {
            self.returns.add(pinned, arena, pfn);
            FrameWord::RETURNING
        };
        if C::CHECKED {
            arena.table.set(index, word);
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
        let (below, above) = (fixed.tree.get(), movable.tree.get());
        let nearer_to_movable =
            above != NO_TREE && (below == NO_TREE || pfn.number().abs_diff(above) < pfn.number().abs_diff(below));
        if kind == ZoneKind::Movable || nearer_to_movable { movable } else { fixed }
    }

    /// Fills a magazine with frames of one tree of the CPU's own node; `false` if no zone of it has any to spare.
    pub(crate) fn refill(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        flags: AllocFlags,
        limit: u32,
    ) -> bool {
        let side = &self.sides[usize::from(flags.contains(AllocFlags::MOVABLE))];
        self.limit.set(limit);
        let want = side.batch.get().min(limit);
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
                    side.magazine.push(arena.pfn(index).number(), ROUNDS as u32);
                }
            });
            if let Some((arena, start)) = from.filter(|_| taken != 0) {
                self.follow(side, arena, start);
                side.batch.set((want * 2).min(C::POOL_FRAMES));
                return true;
            }
        }
        // What little there is should not lie in pools.
        side.batch.set((side.batch.get() / 2).max(1));
        false
    }

    /// Makes the tree around `index` the one that a magazine is filled from.
    fn follow(&self, side: &Side<'m, P, C>, arena: &'m Arena<'m, P, C>, index: u32) {
        let window = arena.tree_window(index);
        // Without words, the bounds of the tree are all there is to tell a frame that is not managed.
        let whole = (window.end - window.start) as usize == Geometry::<C>::TREE_FRAMES;
        let first = arena.pfn(index).align_down(Geometry::<C>::TREE_FRAMES);
        side.tree.set(if C::CHECKED || whole { first.number() } else { NO_TREE });
        side.arena.set(Some(arena));
    }

    /// A block at hand, of an order that has a stack.
    #[inline]
    pub(crate) fn take_block(&self, _pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, order: Order) -> Option<Pfn> {
        let head = self.stacks.take(nodes, order)?;
        self.hits.set(self.hits.get() + 1);
        Some(head)
    }

    /// Fills the stack of an order; `false` if it has none, or memory is too short for stacks.
    pub(crate) fn refill_blocks(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        limit: u32,
    ) -> bool {
        self.limit.set(limit);
        // On a machine of few frames a stack of blocks would be most of it.
        if !Stacks::has(order) || limit < C::POOL_FRAMES {
            return false;
        }
        self.home(nodes).is_some_and(|home| self.stacks.refill(pinned, home, order))
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

    /// Keeps a freed block of an order that has a stack; `false` if it belongs elsewhere, or is not lent as such.
    pub(crate) fn put_block(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, head: Pfn, order: Order) -> bool {
        if !Stacks::has(order) || self.limit.get() < C::POOL_FRAMES {
            return false;
        }
        let Some(arena) = self.arena_of(nodes, head) else { return false };
        let index = arena.index(head);
        if C::CHECKED && arena.table.get(index) != FrameWord::lent(order) {
            return false;
        }
        let whole = arena.span().contains(Pfn::new(head.number() + order.frames() - 1));
        let fixed = core::ptr::eq(self.side_of(head, arena.kind()), &raw const self.sides[0]);
        if !whole || !fixed || !arena.pools_on(self.node()) || arena.is_draining() {
            return false;
        }
        if !self.stacks.put(pinned, nodes, head, order) {
            return false;
        }
        if C::CHECKED {
            arena.table.set(index, FrameWord::pooled(order));
        }
        true
    }

    /// Gives everything back to the trees.
    pub(crate) fn drain(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>) {
        for side in &self.sides {
            self.spill(pinned, nodes, side);
            side.tree.set(NO_TREE);
        }
        self.stacks.drain(pinned, nodes);
        self.returns.flush(pinned);
        self.home.set(None);
    }

    /// Gives the frames of a magazine back: one stay under the lock of each arena that it has frames of.
    fn spill(&self, pinned: &Pinned<P>, nodes: &Nodes<'m, P, C>, side: &Side<'m, P, C>) {
        let mut batch = [0; ROUNDS];
        let mut left = side.magazine.take_oldest(ROUNDS, &mut batch);
        while left > 0 {
            let Some(arena) = nodes.arena_of(Pfn::new(batch[0])) else {
                debug_assert!(false, "a pool holds managed frames only");
                return;
            };
            let (mut from, mut kept) = (0, 0);
            arena.free_frames(pinned, || {
                while from < left {
                    let pfn = Pfn::new(batch[from]);
                    from += 1;
                    if arena.span().contains(pfn) {
                        return Some(arena.index(pfn));
                    }
                    batch[kept] = pfn.number();
                    kept += 1;
                }
                None
            });
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
        let epoch = requests.load(Ordering::Acquire);
        if epoch == self.drained.get() {
            return;
        }
        self.drain(pinned, nodes);
        // The request that was read before draining: one that came during it is still to be honoured.
        let honoured = if mutant("drain_honours_late") { requests.load(Ordering::Acquire) } else { epoch };
        self.drained.set(honoured);
    }
}

/// Heads a frame of an arena that the magazine was not filled from.
#[inline(never)]
fn lend_elsewhere<P: Platform, C: Config>(nodes: &Nodes<'_, P, C>, pfn: Pfn) {
    if let Some(arena) = nodes.arena_of(pfn) {
        arena.table.set(arena.index(pfn), FrameWord::lent(Order::ZERO));
    }
}
