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
//! from. Otherwise it waits in the return buffer, where neighbours freed one after the other meet in one word, and goes
//! back to its tree. Every field is written by the CPU that is pinned to it and by no other.

use crate::arena::{Access, Arena};
use crate::config::{Config, Geometry};
use crate::error::FreeError;
use crate::flags::AllocFlags;
use crate::frame::Pfn;
use crate::frame_table::FrameWord;
use crate::id::{NodeId, NodeMask};
use crate::magazine::Magazine;
use crate::node::{self, Nodes};
use crate::order::Order;
use crate::pending::ROW_FRAMES;
use crate::platform::{Pinned, Platform};
use crate::sync::{AtomicU32, Ordering, OwnerU32, OwnerU64, OwnerUsize, Publish, const_fn, mutant};
use crate::zone::{Mark, ZoneKind};

/// The most frames of a magazine.
const ROUNDS: usize = 128;
/// The most blocks of a stack.
const STACK_ROUNDS: usize = 16;
/// The orders that have a stack.
const STACK_ORDERS: [usize; 4] = [1, 2, 3, 9];
/// How many blocks a stack of each order may keep, and how many it takes at once.
const STACK_LIMITS: [(u32, u32); 4] = [(16, 8), (16, 8), (8, 4), (2, 1)];
/// The rows of the return buffer.
const ROWS: usize = 16;
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

/// Rows of freed frames on their way back.
struct ReturnBuffer<'m, P: Platform, C: Config> {
    len: OwnerU32,
    /// The row that the last frame went to, as its number among all rows.
    last: OwnerUsize,
    rows: [(OwnerUsize, OwnerU64, Publish<'m, Arena<'m, P, C>>); ROWS],
}

/// What one CPU keeps at hand.
#[repr(align(128))]
pub(crate) struct FramePool<'m, P: Platform, C: Config> {
    /// The most frames a magazine may hold on this machine.
    limit: OwnerU32,
    /// Requests served without a lock.
    hits: OwnerU64,
    sides: [Side<'m, P, C>; 2],
    returns: ReturnBuffer<'m, P, C>,
    stacks: [Magazine<STACK_ROUNDS>; 4],
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
            returns: ReturnBuffer {
                len: OwnerU32::new(0),
                last: OwnerUsize::new(usize::MAX),
                rows: core::array::from_fn(|_| (OwnerUsize::new(0), OwnerU64::new(0), Publish::empty())),
            },
            stacks: core::array::from_fn(|_| Magazine::new()),
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
        let blocks = self.stacks.iter().zip(STACK_ORDERS).map(|(stack, order)| stack.len() << order);
        let rows = &self.returns.rows[..self.returns.len.get() as usize];
        PoolCount {
            pooled: singles + blocks.sum::<usize>(),
            returning: rows.iter().map(|(_, mask, _)| mask.get().count_ones() as usize).sum(),
        }
    }

    /// A frame at hand.
    #[inline(always)]
    pub(crate) fn take(&self, _pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, movable: bool) -> Option<Pfn> {
        let side = &self.sides[usize::from(movable)];
        let pfn = Pfn::new(side.magazine.pop()?);
        self.hits.set(self.hits.get() + 1);
        if C::CHECKED {
            let lent = FrameWord::lent(Order::ZERO);
            match side.arena.get().and_then(|arena| arena.word(pfn)) {
                Some(word) => word.set(lent),
                None => lend_elsewhere(nodes, pfn),
            }
        }
        Some(pfn)
    }

    /// Keeps a freed frame of the tree that unmovable frames come from; `false` if this is not so plain a case.
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

    /// Takes back any single frame whose word says that it is lent on its own; `Ok(false)` if it does not say so.
    pub(crate) fn put_any(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        pfn: Pfn,
        limit: u32,
    ) -> Result<bool, FreeError> {
        if self.returns.last.get() == pfn.number() / ROW_FRAMES as usize && self.returns.join(pfn) {
            return Ok(true);
        }
        let arena = nodes.arena_of(pfn).ok_or(FreeError::NotManaged(pfn))?;
        let index = arena.index(pfn);
        if C::CHECKED && arena.table.get(index) != FrameWord::lent(Order::ZERO) {
            return Ok(false);
        }
        let zone = nodes.zone_at(arena.zone);
        let at_home = zone.node == self.node() && !matches!(zone.kind, ZoneKind::Dma | ZoneKind::Far);
        let side = self.side_of(pfn, zone.kind);
        let current = side.is_current(pfn) && (C::CHECKED || at_home);
        if at_home && (current || arena.keeps_dense(index)) {
            self.keep(pinned, nodes, side, arena, pfn, limit);
        } else {
            self.send_back(pinned, arena, pfn);
        }
        Ok(true)
    }

    /// Which magazine a freed frame belongs to: movable memory lies at the upper end, so the nearer tree tells.
    fn side_of(&self, pfn: Pfn, kind: ZoneKind) -> &Side<'m, P, C> {
        let [fixed, movable] = &self.sides;
        let (below, above) = (fixed.tree.get(), movable.tree.get());
        let nearer_to_movable =
            above != NO_TREE && (below == NO_TREE || pfn.number().abs_diff(above) < pfn.number().abs_diff(below));
        if kind == ZoneKind::Movable || nearer_to_movable { movable } else { fixed }
    }

    fn keep(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        side: &Side<'m, P, C>,
        arena: &'m Arena<'m, P, C>,
        pfn: Pfn,
        limit: u32,
    ) {
        self.limit.set(limit);
        if side.magazine.len() >= limit as usize {
            // Many frees in a row: the next refill need not be large.
            side.batch.set((side.batch.get() / 2).max(1));
            self.spill(pinned, nodes, side, side.magazine.len().div_ceil(2));
        }
        if C::CHECKED {
            arena.table.set(arena.index(pfn), FrameWord::pooled(Order::ZERO));
        }
        let kept = side.magazine.push(pfn.number(), limit.max(1));
        debug_assert!(kept, "half of the magazine was spilled");
    }

    /// Gives the oldest frames of a magazine back to their trees.
    fn spill(&self, pinned: &Pinned<P>, nodes: &Nodes<'m, P, C>, side: &Side<'m, P, C>, count: usize) {
        let mut batch = [0; ROUNDS];
        let mut left = side.magazine.take_oldest(count, &mut batch);
        while left > 0 {
            let Some(arena) = nodes.arena_of(Pfn::new(batch[0])) else {
                debug_assert!(false, "a pool holds managed frames only");
                return;
            };
            // One stay under the lock of each arena that the batch has frames of.
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

    /// Puts a freed frame in the return buffer.
    fn send_back(&self, pinned: &mut Pinned<P>, arena: &'m Arena<'m, P, C>, pfn: Pfn) {
        let returns = &self.returns;
        if returns.len.get() as usize == ROWS {
            self.flush(pinned);
        }
        let len = returns.len.get();
        let (row, mask, home) = &returns.rows[len as usize];
        row.set(pfn.number() / ROW_FRAMES as usize);
        mask.set(1 << (pfn.number() % ROW_FRAMES as usize));
        home.set(Some(arena));
        returns.last.set(row.get());
        returns.len.set(len + 1);
        if C::CHECKED {
            arena.table.set(arena.index(pfn), FrameWord::RETURNING);
        }
    }

    /// Empties the return buffer into the trees.
    fn flush(&self, pinned: &mut Pinned<P>) {
        let returns = &self.returns;
        let rows = &returns.rows[..returns.len.get() as usize];
        for (place, (_, mask, home)) in rows.iter().enumerate() {
            let Some(arena) = home.get().filter(|_| mask.get() != 0) else { continue };
            let flushed = arena.with(Access::Wait(pinned), |arena, state| {
                for (row, mask, home) in &rows[place..] {
                    if home.get().is_some_and(|home| core::ptr::eq(home, arena)) && mask.get() != 0 {
                        let first = Pfn::new(row.get() * ROW_FRAMES as usize);
                        arena.free_row_in(state, arena.row(first), mask.get());
                        mask.set(0);
                    }
                }
            });
            debug_assert!(flushed.is_ok(), "a pinned caller waits");
        }
        returns.len.set(0);
        returns.last.set(usize::MAX);
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
        let Some(home) = nodes.nearest(self.node(), NodeMask::ALL).and_then(|home| nodes.get(home)) else {
            return false;
        };
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
                let window = arena.tree_window(start);
                // Without words, the bounds of the tree are all there is to tell a frame that is not managed.
                let whole = (window.end - window.start) as usize == Geometry::<C>::TREE_FRAMES;
                let first = arena.pfn(start).align_down(Geometry::<C>::TREE_FRAMES);
                side.tree.set(if C::CHECKED || whole { first.number() } else { NO_TREE });
                side.arena.set(Some(arena));
                side.batch.set((want * 2).min(C::POOL_FRAMES));
                return true;
            }
        }
        // What little there is should not lie in pools.
        side.batch.set((side.batch.get() / 2).max(1));
        false
    }

    /// A block at hand, for the orders that have a stack; refills the stack if it is empty.
    pub(crate) fn take_block(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, order: Order) -> Option<Pfn> {
        let (stack, (_, batch)) = self.stack(order)?;
        if stack.len() == 0 && !self.refill_stack(pinned, nodes, order, stack, batch) {
            return None;
        }
        let head = Pfn::new(stack.pop()?);
        self.hits.set(self.hits.get() + 1);
        if C::CHECKED {
            let arena = nodes.arena_of(head)?;
            arena.table.set(arena.index(head), FrameWord::lent(order));
        }
        Some(head)
    }

    fn stack(&self, order: Order) -> Option<(&Magazine<STACK_ROUNDS>, (u32, u32))> {
        let place = STACK_ORDERS.iter().position(|&log2| log2 == order.index())?;
        let (most, batch) = STACK_LIMITS[place];
        // On a machine of few frames a stack of blocks would be most of it.
        let fits = self.limit.get() >= C::POOL_FRAMES;
        fits.then_some((&self.stacks[place], (most, batch)))
    }

    fn refill_stack(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        stack: &Magazine<STACK_ROUNDS>,
        batch: u32,
    ) -> bool {
        let Some(home) = nodes.nearest(self.node(), NodeMask::ALL).and_then(|home| nodes.get(home)) else {
            return false;
        };
        let kinds = node::kinds(AllocFlags::empty());
        for &kind in kinds.iter().filter(|&&kind| kind != ZoneKind::Dma) {
            let zone = home.zone(kind);
            if !zone.is_populated() || !zone.affords((batch as usize) << order.index(), Mark::Low, kinds[0]) {
                continue;
            }
            let push = |head: Pfn| {
                stack.push(head.number(), STACK_ROUNDS as u32);
            };
            if zone.refill_blocks(pinned, order, batch, push) != 0 {
                return true;
            }
        }
        false
    }

    /// Keeps a freed block of an order that has a stack. `Ok(false)` if it belongs elsewhere.
    pub(crate) fn put_block(
        &self,
        pinned: &mut Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        head: Pfn,
        order: Order,
    ) -> Result<bool, FreeError> {
        let Some((stack, (most, _))) = self.stack(order) else { return Ok(false) };
        let arena = nodes.arena_of(head).ok_or(FreeError::NotManaged(head))?;
        let index = arena.index(head);
        let whole = arena.span().contains(Pfn::new(head.number() + order.frames() - 1));
        if !whole || C::CHECKED && arena.table.get(index) != FrameWord::lent(order) {
            return Ok(false);
        }
        let zone = nodes.zone_at(arena.zone);
        let at_home = zone.node == self.node() && matches!(zone.kind, ZoneKind::Normal | ZoneKind::Dma32);
        let unmovable = core::ptr::eq(self.side_of(head, zone.kind), &raw const self.sides[0]);
        if !at_home || !unmovable || arena.is_draining() {
            return Ok(false);
        }
        if stack.len() >= most as usize {
            self.spill_stack(pinned, nodes, order, stack, stack.len().div_ceil(2));
        }
        if C::CHECKED {
            arena.table.set(index, FrameWord::pooled(order));
        }
        stack.push(head.number(), STACK_ROUNDS as u32);
        Ok(true)
    }

    fn spill_stack(
        &self,
        pinned: &Pinned<P>,
        nodes: &Nodes<'m, P, C>,
        order: Order,
        stack: &Magazine<STACK_ROUNDS>,
        count: usize,
    ) {
        let mut batch = [0; STACK_ROUNDS];
        let count = stack.take_oldest(count, &mut batch);
        for &head in &batch[..count] {
            let Some(arena) = nodes.arena_of(Pfn::new(head)) else { continue };
            let freed = arena.with(Access::Wait(pinned), |arena, state| {
                arena.free_block_in(state, arena.index(Pfn::new(head)), order);
            });
            debug_assert!(freed.is_ok(), "a pinned caller waits");
        }
    }

    /// Gives everything back to the trees.
    pub(crate) fn drain(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>) {
        for side in &self.sides {
            self.spill(pinned, nodes, side, ROUNDS);
            side.tree.set(NO_TREE);
        }
        for (stack, order) in self.stacks.iter().zip(STACK_ORDERS) {
            if let Some(order) = Order::new(order as u32) {
                self.spill_stack(pinned, nodes, order, stack, STACK_ROUNDS);
            }
        }
        self.flush(pinned);
    }

    /// Drains if somebody has asked since the last time. Called on every slow path and from the idle hook.
    pub(crate) fn honour(&self, pinned: &mut Pinned<P>, nodes: &Nodes<'m, P, C>, asked: &AtomicU32) {
        // Acquire: pairs with the Release of the request, so that what made it is seen (a range that is leaving).
        let epoch = asked.load(Ordering::Acquire);
        if epoch == self.drained.get() {
            return;
        }
        self.drain(pinned, nodes);
        // The request that was read before draining: one that came during it is still to be honoured.
        let honoured = if mutant("drain_honours_late") { asked.load(Ordering::Acquire) } else { epoch };
        self.drained.set(honoured);
    }
}

impl<'m, P: Platform, C: Config> ReturnBuffer<'m, P, C> {
    /// Adds a frame to the row that the last one went to; `false` if it is not managed, not lent, or there already.
    #[inline]
    fn join(&self, pfn: Pfn) -> bool {
        let Some((_, mask, home)) = self.rows.get((self.len.get() as usize).wrapping_sub(1)) else { return false };
        let Some(arena) = home.get() else { return false };
        let bit = 1 << (pfn.number() % ROW_FRAMES as usize);
        if C::CHECKED {
            let Some(word) = arena.word(pfn) else { return false };
            if word.get() != FrameWord::lent(Order::ZERO) {
                return false;
            }
            word.set(FrameWord::RETURNING);
        } else if mask.get() & bit != 0 || !arena.span().contains(pfn) {
            return false;
        }
        mask.set(mask.get() | bit);
        true
    }
}

/// Heads a frame of an arena that the magazine was not filled from.
#[inline(never)]
fn lend_elsewhere<P: Platform, C: Config>(nodes: &Nodes<'_, P, C>, pfn: Pfn) {
    if let Some(arena) = nodes.arena_of(pfn) {
        arena.table.set(arena.index(pfn), FrameWord::lent(Order::ZERO));
    }
}
