//! Blocks at hand: a small stack for each of the orders that are asked for most.

use crate::arena::Access;
use crate::config::Config;
use crate::flags::AllocFlags;
use crate::frame::Pfn;
use crate::frame_table::FrameWord;
use crate::kind::ZoneKind;
use crate::magazine::Magazine;
use crate::node::{self, Node, Nodes};
use crate::order::Order;
use crate::platform::{Pinned, Platform};
use crate::zone::Mark;

/// The most blocks of a stack.
const ROUNDS: usize = 16;

/// A stack and how it is kept.
struct Stack {
    order: usize,
    /// Blocks it may hold.
    most: u32,
    /// Blocks it takes at once.
    batch: u32,
}

/// The orders that have a stack. Few of the large ones: what a stack keeps cannot coalesce.
const STACKS: [Stack; 4] = [
    Stack { order: 1, most: 16, batch: 8 },
    Stack { order: 2, most: 16, batch: 8 },
    Stack { order: 3, most: 8, batch: 4 },
    Stack { order: 9, most: 2, batch: 1 },
];

/// Blocks of a few orders.
pub(super) struct Stacks([Magazine<ROUNDS>; STACKS.len()]);

/// Which stack an order has.
#[inline(always)]
fn place(order: Order) -> Option<usize> {
    match order.index() {
        order @ 1..=3 => Some(order - 1),
        9 => Some(3),
        _ => None,
    }
}

impl Stacks {
    pub(super) fn new() -> Self {
        Self(core::array::from_fn(|_| Magazine::new()))
    }

    /// The frames it holds.
    pub(super) fn count(&self) -> usize {
        self.0.iter().zip(&STACKS).map(|(stack, kept)| stack.len() << kept.order).sum()
    }

    /// A block at hand.
    #[inline]
    pub(super) fn take<P: Platform, C: Config>(&self, nodes: &Nodes<'_, P, C>, order: Order) -> Option<Pfn> {
        let head = Pfn::new(self.0[place(order)?].pop()?);
        if C::CHECKED {
            let arena = nodes.arena_of(head)?;
            arena.table.set(arena.index(head), FrameWord::lent(order));
        }
        Some(head)
    }

    /// Fills the stack of an order from `home`; `false` if the order has none or no zone has blocks to spare.
    pub(super) fn refill<'m, P: Platform, C: Config>(
        &self,
        pinned: &Pinned<P>,
        home: &'m Node<'m, P, C>,
        order: Order,
    ) -> bool {
        let Some(place) = place(order) else { return false };
        let (stack, batch) = (&self.0[place], STACKS[place].batch);
        let kinds = node::kinds(AllocFlags::empty());
        kinds.iter().filter(|&&kind| kind != ZoneKind::Dma).any(|&kind| {
            let zone = home.zone(kind);
            zone.is_populated()
                && zone.affords((batch as usize) << order.index(), Mark::Low, kinds[0])
                && zone.refill_blocks(pinned, order, batch, |head| {
                    stack.push(head.number(), ROUNDS as u32);
                }) != 0
        })
    }

    /// Keeps a block; a full stack gives half of it back first. `false` if the order has no stack.
    pub(super) fn put<P: Platform, C: Config>(
        &self,
        pinned: &Pinned<P>,
        nodes: &Nodes<'_, P, C>,
        head: Pfn,
        order: Order,
    ) -> bool {
        let Some(place) = place(order) else { return false };
        let (stack, most) = (&self.0[place], STACKS[place].most);
        if stack.push(head.number(), most) {
            return true;
        }
        self.spill(pinned, nodes, place, stack.len().div_ceil(2));
        stack.push(head.number(), most)
    }

    /// Whether an order has a stack.
    pub(super) fn has(order: Order) -> bool {
        place(order).is_some()
    }

    /// Gives everything back.
    pub(super) fn drain<P: Platform, C: Config>(&self, pinned: &Pinned<P>, nodes: &Nodes<'_, P, C>) {
        for place in 0..STACKS.len() {
            self.spill(pinned, nodes, place, ROUNDS);
        }
    }

    /// Gives the oldest blocks of a stack back: one stay under the lock for those that follow one another in one arena.
    fn spill<P: Platform, C: Config>(&self, pinned: &Pinned<P>, nodes: &Nodes<'_, P, C>, place: usize, count: usize) {
        let Some(order) = Order::new(STACKS[place].order as u32) else { return };
        let mut batch = [0; ROUNDS];
        let count = self.0[place].take_oldest(count, &mut batch);
        let mut blocks = batch[..count].iter().map(|&head| Pfn::new(head)).peekable();
        while let Some(&head) = blocks.peek() {
            let Some(arena) = nodes.arena_of(head) else {
                debug_assert!(false, "a stack holds managed frames only");
                return;
            };
            let freed = arena.with(Access::Wait(pinned), |arena, state| {
                while let Some(head) = blocks.next_if(|&head| arena.span().contains(head)) {
                    arena.free_block_in(state, arena.index(head), order);
                }
            });
            debug_assert!(freed.is_ok(), "a pinned caller waits");
        }
    }
}
