//! An extent: one contiguous range of one zone, added in one piece, cut into arenas.
//!
//! Memory comes in ranges: an entry of the firmware's map, a hot-added module, a mapping. Each brings its own metadata,
//! so trees, words and hints exist only for what a range touches, and lie where its owner wants them (on the node they
//! describe).

use core::cell::Cell;
use core::ops::Range;

use crate::arena::{Access, Arena, Busy, Parts};
use crate::buddy::{Buddy, End};
use crate::carve::{Carver, Plan};
use crate::config::{Config, Geometry};
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::frame_table::FrameTable;
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::ledger::{EVERY_KIND, Hints, Ledger};
use crate::order::Order;
use crate::pending::{PendingMap, ROW_FRAMES};
use crate::platform::{Pinned, Platform};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Publish, mutant};
use crate::tree::Tree;

/// A range of frames under management.
pub(crate) struct Extent<'m, P: Platform, C: Config> {
    span: FrameSpan,
    arenas: &'m [Arena<'m, P, C>],
    hints: &'m Hints<'m>,
    /// The next extent of the zone, at higher addresses.
    pub(crate) next: Publish<'m, Self>,
    /// The one before it.
    pub(crate) previous: Publish<'m, Self>,
}

/// What a request for frames asks of memory, once policy and zone are decided.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    pub(crate) count: usize,
    /// The base-two logarithm of the alignment, in frames.
    pub(crate) align: u32,
    pub(crate) end: End,
    /// Frames must lie below this one.
    pub(crate) limit: Option<Pfn>,
}

impl Want {
    /// The order of the block, if a naturally aligned block of a power of two is what is asked for.
    pub(crate) fn order(&self) -> Option<Order> {
        let order = Order::holding(FrameCount::new(self.count))?;
        (order.frames() == self.count && order.index() as u32 == self.align).then_some(order)
    }
}

/// Which part of the arena numbered `number` (by aligned stretch) lies in `span`.
const fn part_of<C: Config>(span: FrameSpan, number: usize) -> (usize, usize) {
    let frames = Geometry::<C>::ARENA_FRAMES;
    let (first, last) = (number * frames, (number + 1).saturating_mul(frames));
    let start = if span.start().number() > first { span.start().number() } else { first };
    let end = if span.end().number() < last { span.end().number() } else { last };
    (start, end)
}

/// The stretches that `span` touches.
const fn slots_of<C: Config>(span: FrameSpan) -> Range<usize> {
    span.start().number() >> C::ARENA_ORDER..((span.end().number() - 1) >> C::ARENA_ORDER) + 1
}

/// The trees that frames `start..end` touch.
const fn trees_of<C: Config>(start: usize, end: usize) -> usize {
    ((end - 1) >> C::HUGE_ORDER) - (start >> C::HUGE_ORDER) + 1
}

/// The pending rows of an arena that has frames `start..end`. A row never belongs to two arenas.
const fn rows_of<C: Config>(start: usize, end: usize) -> usize {
    let base = start & !(Geometry::<C>::ARENA_FRAMES - 1);
    let row = ROW_FRAMES as usize;
    let first = ((start - base) & !(Geometry::<C>::TREE_FRAMES - 1)) / row;
    // A tree smaller than a row still has the whole row.
    (end - base - 1) / row - first + 1
}

/// The rows of all arenas of `span`.
const fn rows_in<C: Config>(span: FrameSpan) -> usize {
    let slots = slots_of::<C>(span);
    let (first, last) = (slots.start, slots.end - 1);
    let (start, end) = part_of::<C>(span, first);
    let rows = rows_of::<C>(start, end);
    if first == last {
        return rows;
    }
    // Those between have all rows.
    let whole = rows_of::<C>(0, Geometry::<C>::ARENA_FRAMES);
    let (start, end) = part_of::<C>(span, last);
    rows + (last - first - 1) * whole + rows_of::<C>(start, end)
}

/// The bytes of metadata that an extent of `span` needs.
pub(crate) const fn metadata_bytes<P: Platform, C: Config>(span: FrameSpan) -> usize {
    let slots = slots_of::<C>(span);
    let arenas = slots.end - slots.start;
    let frames = span.count().get();
    let trees = trees_of::<C>(span.start().number(), span.end().number());
    Plan::new()
        .and::<Tree>(trees)
        .and::<AtomicU16>(trees)
        .and::<AtomicU64>(if C::FRESH_FRAMES_ARE_ZERO { rows_in::<C>(span) } else { 0 })
        .and::<AtomicU32>(frames)
        .and::<AtomicU32>(if C::EMBEDDER_WORDS { frames } else { 0 })
        .and::<AtomicU64>(rows_in::<C>(span))
        .and::<AtomicU64>(Hints::words(arenas))
        .and::<Hints<'static>>(1)
        .and::<Arena<'static, P, C>>(arenas)
        .and::<Extent<'static, P, C>>(1)
        .bytes()
}

/// Cuts the first `count` of what is left.
fn cut<'m, T>(rest: &Cell<&'m [T]>, count: usize) -> &'m [T] {
    let (first, others) = rest.get().split_at(count);
    rest.set(others);
    first
}

impl<'m, P: Platform, C: Config> Extent<'m, P, C> {
    /// Carves an extent of `span`. Nothing of it is free yet.
    pub(crate) fn carve(
        carver: &mut Carver<'m>,
        span: FrameSpan,
        (node, kind): (NodeId, ZoneKind),
        ledger: &'m Ledger,
    ) -> &'m Self {
        let () = Geometry::<C>::VALID;
        let slots = slots_of::<C>(span);
        let all_trees = trees_of::<C>(span.start().number(), span.end().number());
        let mut trees = carver.slice_mut(all_trees, |_| Tree::EMPTY);
        let free_in_tree = Cell::new(carver.zeros::<AtomicU16>(all_trees));
        let dirty_rows = if C::FRESH_FRAMES_ARE_ZERO { rows_in::<C>(span) } else { 0 };
        let dirty = Cell::new(carver.zeros::<AtomicU64>(dirty_rows));
        let words = Cell::new(carver.zeros::<AtomicU32>(span.count().get()));
        let embedder_words = if C::EMBEDDER_WORDS { span.count().get() } else { 0 };
        let embedder = Cell::new(carver.zeros::<AtomicU32>(embedder_words));
        let rows = Cell::new(carver.zeros::<AtomicU64>(rows_in::<C>(span)));
        let hint_bits = carver.zeros::<AtomicU64>(Hints::words(slots.len()));
        let hints = &carver.slice(1, |_| Hints::new(hint_bits))[0];
        let arenas = carver.slice(slots.len(), |place| {
            let (start, end) = part_of::<C>(span, slots.start + place);
            let first = (start & (Geometry::<C>::ARENA_FRAMES - 1)) as u32;
            let tree_count = trees_of::<C>(start, end);
            let (mine, others) = core::mem::take(&mut trees).split_at_mut(tree_count);
            trees = others;
            let free_in_tree = cut(&free_in_tree, tree_count);
            let count = FrameCount::new(end - start);
            let span = FrameSpan::new(Pfn::new(start), count).unwrap_or(span);
            Arena::new(Parts {
                span,
                buddy: Buddy::new(mine, free_in_tree, first >> C::HUGE_ORDER),
                table: FrameTable::new(cut(&words, count.get()), first),
                embedder: cut(&embedder, if C::EMBEDDER_WORDS { count.get() } else { 0 }),
                free_in_tree,
                dirty: cut(&dirty, if dirty_rows == 0 { 0 } else { rows_of::<C>(start, end) }),
                pending: PendingMap::new(cut(&rows, rows_of::<C>(start, end))),
                ledger,
                hints,
                place,
                node,
                kind,
            })
        });
        &carver.slice(1, |_| Self { span, arenas, hints, next: Publish::empty(), previous: Publish::empty() })[0]
    }

    /// Brings every frame into service that lies in none of `reserved`, which may overlap and reach beyond.
    ///
    /// Before the extent is linked anywhere, so nobody else has its locks.
    pub(crate) fn open(&self, reserved: &[FrameSpan]) {
        for arena in self.arenas {
            let mut next = arena.span().start();
            while next < arena.span().end() {
                let (is_reserved, end) = stretch(reserved, next, arena.span().end());
                let part = arena.index(next)..arena.index(next) + (end - next).get() as u32;
                let opened = if is_reserved {
                    arena.with(Access::Try, |arena, state| arena.mark_reserved(state, part))
                } else {
                    arena.open(Access::Try, part)
                };
                debug_assert_eq!(opened, Ok(()));
                next = end;
            }
        }
    }

    /// Its frames.
    pub(crate) fn span(&self) -> FrameSpan {
        self.span
    }

    /// Its arenas, by address.
    pub(crate) fn arenas(&self) -> &'m [Arena<'m, P, C>] {
        self.arenas
    }

    /// Frames as wanted, from the arenas that the hints name.
    pub(crate) fn take_hinted(&self, access: Access<'_, P>, want: &Want) -> Result<Option<Pfn>, Busy> {
        if want.count > Geometry::<C>::ARENA_FRAMES {
            return self.take_arenas(access, want);
        }
        if let [arena] = self.arenas {
            return Self::take_from(arena, access, want, EVERY_KIND);
        }
        let order = Order::holding(FrameCount::new(want.count)).unwrap_or(Order::MAX).index() as u32;
        let least = order.max(want.align).min(C::HUGE_ORDER);
        if want.count == 1 && want.align == 0 {
            // Single frames: the lowest address that has anything.
            return self.take_of_kinds(access, want, EVERY_KIND);
        }
        let mut busy = Ok(None);
        for kind in least..=C::HUGE_ORDER {
            match self.take_of_kinds(access, want, 1 << kind) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(Busy) => busy = Err(Busy),
            }
        }
        busy
    }

    /// Frames as wanted, asking every arena that may have any: exact for all that was freed before.
    pub(crate) fn take_exact(&self, access: Access<'_, P>, want: &Want) -> Result<Option<Pfn>, Busy> {
        // A single arena was asked already, whatever its hints said.
        if want.count > Geometry::<C>::ARENA_FRAMES || self.arenas.len() == 1 || mutant("hints_trusted") {
            return Ok(None);
        }
        let mut busy = Ok(None);
        let (mut lower, mut upper) = (self.arenas.iter(), self.arenas.iter().rev());
        let mut next = || if want.end == End::Bottom { lower.next() } else { upper.next() };
        while let Some(arena) = next() {
            let (free, pending) = arena.glance();
            if (free as usize) < want.count && !pending {
                continue;
            }
            match Self::take_from(arena, access, want, EVERY_KIND) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(Busy) => busy = Err(Busy),
            }
        }
        busy
    }

    fn take_of_kinds(&self, access: Access<'_, P>, want: &Want, kinds: u32) -> Result<Option<Pfn>, Busy> {
        let mut busy = Ok(None);
        let mut at = if want.end == End::Bottom { 0 } else { self.arenas.len() };
        loop {
            let place = match want.end {
                End::Bottom => self.hints.first(kinds, at),
                End::Top => self.hints.last(kinds, at),
            };
            let Some(place) = place else { return busy };
            match Self::take_from(&self.arenas[place], access, want, kinds) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(Busy) => busy = Err(Busy),
            }
            at = if want.end == End::Bottom { place + 1 } else { place };
        }
    }

    fn take_from(arena: &Arena<'m, P, C>, access: Access<'_, P>, want: &Want, kinds: u32) -> Result<Option<Pfn>, Busy> {
        let below = arena.below(want.limit);
        if below == Some(0) {
            return Ok(None);
        }
        let index = match want.order() {
            Some(order) => arena.take(access, order, want.end, below, kinds)?,
            None => arena.take_run(access, want.count as u32, want.align, want.end, below, kinds)?,
        };
        Ok(index.map(|index| arena.pfn(index)))
    }

    /// Up to `want` blocks of `order` for a pool, all from one arena.
    pub(crate) fn refill_blocks(&self, pinned: &Pinned<P>, order: Order, want: u32, mut out: impl FnMut(Pfn)) -> u32 {
        for kind in order.index() as u32..=C::HUGE_ORDER {
            let mut at = 0;
            while let Some(place) = self.hints.first(1 << kind, at) {
                let taken = self.arenas[place].take_blocks(pinned, order, want, 1 << kind, &mut out);
                if taken != 0 {
                    return taken;
                }
                at = place + 1;
            }
        }
        0
    }

    /// Single frames of one arena for a pool: `out(arena, start, count)` for each chunk.
    pub(crate) fn refill(
        &self,
        pinned: &Pinned<P>,
        want: u32,
        end: End,
        mut out: impl FnMut(&'m Arena<'m, P, C>, u32, u32),
    ) -> u32 {
        let kinds = (2 << C::HUGE_ORDER) - 1;
        let mut at = if end == End::Bottom { 0 } else { self.arenas.len() };
        loop {
            let place = match end {
                End::Bottom => self.hints.first(kinds, at),
                End::Top => self.hints.last(kinds, at),
            };
            let Some(place) = place else { return 0 };
            let arena = &self.arenas[place];
            let taken = arena.take_frames(pinned, want, end, |start, count| out(arena, start, count));
            if taken != 0 {
                return taken;
            }
            at = if end == End::Bottom { place + 1 } else { place };
        }
    }

    /// A run longer than an arena: wholly free arenas in a row, each under its own lock, undone if one fails.
    fn take_arenas(&self, access: Access<'_, P>, want: &Want) -> Result<Option<Pfn>, Busy> {
        let arenas = want.count.div_ceil(Geometry::<C>::ARENA_FRAMES);
        if arenas > self.arenas.len() || want.align > C::ARENA_ORDER {
            return Ok(None);
        }
        if matches!(access, Access::Try) {
            // Giving up halfway needs the locks again, which an interrupt may not get.
            return Err(Busy);
        }
        let mut first = 0;
        while first + arenas <= self.arenas.len() {
            match self.claim_arenas(access, &self.arenas[first..first + arenas], want)? {
                Ok(start) => return Ok(Some(start)),
                Err(failed) => first += failed + 1,
            }
        }
        Ok(None)
    }

    /// Takes all of `run` and gives the tail back, or says which of them was not wholly free.
    fn claim_arenas(
        &self,
        access: Access<'_, P>,
        run: &'m [Arena<'m, P, C>],
        want: &Want,
    ) -> Result<Result<Pfn, usize>, Busy> {
        let frames = Geometry::<C>::ARENA_FRAMES;
        let start = run[0].span().start();
        let beyond = want.limit.is_some_and(|limit| start.number() + want.count > limit.number());
        for (place, arena) in run.iter().enumerate() {
            // What is on its way may be what is missing.
            let (free, moving) = arena.glance();
            let whole = free as usize == frames || moving;
            let left = want.count - place * frames;
            let taken = if !whole || beyond {
                Ok(false)
            } else {
                arena.take_at(access, 0, left.min(frames) as u32).map(|taken| taken.is_ok())
            };
            if taken != Ok(true) {
                for arena in run[..place].iter().rev() {
                    let undone = arena.with(access, |arena, state| arena.free_in(state, 0, frames as u32));
                    debug_assert_eq!(undone, Ok(Ok(())));
                }
                return taken.map(|_| Err(place));
            }
        }
        Ok(Ok(start))
    }
}

/// Whether `pfn` is reserved, and where that changes, at the latest at `end`.
fn stretch(reserved: &[FrameSpan], pfn: Pfn, end: Pfn) -> (bool, Pfn) {
    let mut covered_to = pfn;
    while let Some(span) = reserved.iter().find(|span| span.contains(covered_to)) {
        covered_to = span.end();
        if covered_to >= end {
            return (true, end);
        }
    }
    if covered_to > pfn {
        return (true, covered_to);
    }
    let next = reserved.iter().map(|span| span.start()).filter(|&start| start > pfn).min();
    (false, next.map_or(end, |start| start.min(end)))
}
