//! One range of memory: what of it is free, what is lent, and a lock.

use core::ops::Range;

use super::grove::{Grove, Note};
use super::marks::Marks;
use super::memory::{Alone, Memory};
use super::{ORIGIN_BYTES, RegionError, TREE_UNITS, TinyCensus, TinyLock, UNIT_BYTES};
use crate::carve::{Carver, Metadata};
use crate::error::{BadFree, BadFreeKind};
use crate::pending::{PendingMap, ROW_FRAMES};
use crate::platform::Context;
use crate::sync::{AtomicU64, AtomicUsize, Guard, Lock, Ordering};
use crate::tree::Tree;

/// How often a lock is tried where the caller must not wait for its holder for ever: some tens of microseconds, many
/// times what a holder on another CPU needs.
const TRIES: usize = if cfg!(miri) { 10 } else { 1000 };

/// Where everything of a region goes, by address.
///
/// Its own state lies at the start: trees, notes, marks, the pending map, the [`Region`]. The rest is units, from the
/// first boundary of a unit on.
pub(super) struct Plan {
    start: usize,
    /// The address of unit 0, less than a row before the region.
    origin: usize,
    trees: usize,
    /// Words of each bitmap.
    rows: usize,
    /// The units that can be lent.
    units: Range<u32>,
    /// The bytes of the state.
    pub(super) metadata_bytes: usize,
}

impl Plan {
    /// For `bytes` bytes from `start` on.
    pub(super) fn new<L: TinyLock>(start: usize, bytes: usize) -> Result<Self, RegionError> {
        let end = start.checked_add(bytes).ok_or(RegionError::TooLarge)?;
        let origin = start & !(ORIGIN_BYTES - 1);
        let rows = (end - origin).div_ceil(ROW_FRAMES as usize * UNIT_BYTES);
        let trees = rows.div_ceil((TREE_UNITS / ROW_FRAMES) as usize);
        let mut at = start;
        at = after::<Tree>(at, trees);
        at = after::<Note>(at, trees);
        at = after::<AtomicU64>(at, 3 * rows);
        at = after::<Region<L>>(at, 1);
        let unit_of = |address: usize| u32::try_from((address - origin) / UNIT_BYTES);
        let (Ok(first), Ok(last)) = (unit_of(at.saturating_add(UNIT_BYTES - 1)), unit_of(end)) else {
            return Err(RegionError::TooLarge);
        };
        if first >= last {
            return Err(RegionError::TooSmall);
        }
        Ok(Self { start, origin, trees, rows, units: first..last, metadata_bytes: at - start })
    }
}

fn not_lent(address: usize) -> BadFree {
    BadFree { kind: BadFreeKind::NotLent, address, object_bytes: 0, block: 0 }
}

/// Where `count` values of `T` end whose first is the first aligned one at or after `at`, as a [`Carver`] cuts them.
const fn after<T>(at: usize, count: usize) -> usize {
    let start = at.saturating_add(align_of::<T>() - 1) & !(align_of::<T>() - 1);
    start.saturating_add(size_of::<T>() * count)
}

/// A region as it lies at its own start.
///
/// `units = free in the grove + lent by the marks`, of which those in the pending map are on their way back.
pub(super) struct Region<L: TinyLock> {
    grove: Lock<Alone<L>, Grove<'static>>,
    marks: Marks<'static>,
    /// Heads of allocations that were freed while the lock was held.
    pending: PendingMap<'static>,
    /// The address of the last allocation that was found to be freed twice only when the lock's holder took it along.
    late_fault: AtomicUsize,
    memory: Memory,
    /// Where the region begins, with its state.
    start: usize,
    origin: usize,
    units: Range<u32>,
    /// The region that was added before.
    next: Option<&'static Self>,
}

impl<L: TinyLock> Region<L> {
    /// A region with all its units free, in metadata of exactly the plan's bytes at the start of `memory`.
    pub(super) fn build(
        plan: Plan,
        metadata: Metadata<'static>,
        memory: Memory,
        next: Option<&'static Self>,
    ) -> Result<&'static Self, RegionError> {
        let mut carver = Carver::new(metadata, plan.metadata_bytes).map_err(|_| RegionError::TooSmall)?;
        let trees = carver.slice_mut(plan.trees, |_| Tree::EMPTY);
        let notes = carver.slice_mut(plan.trees, |_| Note::NONE);
        let (heads, rest) = carver.zeros::<AtomicU64>(3 * plan.rows).split_at(plan.rows);
        let (ends, pending) = rest.split_at(plan.rows);
        let mut grove = Grove::new(trees, notes);
        grove.give(plan.units.start, plan.units.end - plan.units.start);
        Ok(carver.one(Self {
            grove: Lock::new(grove),
            marks: Marks::new(heads, ends),
            pending: PendingMap::new(pending),
            late_fault: AtomicUsize::new(0),
            memory,
            start: plan.start,
            origin: plan.origin,
            units: plan.units,
            next,
        }))
    }

    pub(super) fn next(&self) -> Option<&'static Self> {
        self.next
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The first address of a unit.
    fn address(&self, unit: u32) -> usize {
        self.origin + unit as usize * UNIT_BYTES
    }

    /// The unit that an address of the region lies in.
    fn unit(&self, address: usize) -> u32 {
        ((address - self.origin) / UNIT_BYTES) as u32
    }

    /// The first address of the region.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Whether some of `start..end` belongs to the region.
    pub(super) fn overlaps(&self, start: usize, end: usize) -> bool {
        // A last part that is no unit may be added to another.
        start < self.address(self.units.end) && self.start < end
    }

    /// Whether an address lies in the part that can be lent.
    pub(super) fn lends(&self, address: usize) -> bool {
        (self.address(self.units.start)..self.address(self.units.end)).contains(&address)
    }

    /// Runs `work` with the lock held, as far as `context` may wait for it; nothing is left pending then.
    pub(super) fn with<R>(&self, context: Context, work: impl FnOnce(&mut Grove<'static>) -> R) -> Option<R> {
        let mut grove = self.lock(context)?;
        let result = work(&mut grove);
        drop(grove);
        self.settle();
        Some(result)
    }

    fn lock(&self, context: Context) -> Option<Guard<'_, Alone<L>, Grove<'static>>> {
        let mut grove = match context {
            Context::Task => self.grove.wait(),
            Context::Atomic => self.try_often()?,
            Context::Nmi => self.grove.try_lock()?,
        };
        if self.pending.is_dirty() {
            self.absorb(&mut grove);
        }
        Some(grove)
    }

    fn try_often(&self) -> Option<Guard<'_, Alone<L>, Grove<'static>>> {
        for _ in 0..TRIES {
            if let Some(grove) = self.grove.try_lock() {
                return Some(grove);
            }
            core::hint::spin_loop();
        }
        None
    }

    /// Takes the lock again for as long as somebody left an allocation while it was held.
    fn settle(&self) {
        while self.pending.left_behind() {
            // Whoever holds it now will look after its own unlock.
            let Some(mut grove) = self.grove.try_lock() else { return };
            self.absorb(&mut grove);
        }
    }

    /// Frees what was left for the holder of the lock.
    #[cold]
    fn absorb(&self, grove: &mut Grove<'static>) {
        self.pending.take(|row, mut heads| {
            while heads != 0 {
                let unit = row * ROW_FRAMES + heads.trailing_zeros();
                heads &= heads - 1;
                match self.marks.lent_from(unit) {
                    Some(count) => self.give(grove, unit, count),
                    // Freed twice at the same time: its other free has held the lock meanwhile.
                    None => self.late_fault.store(self.address(unit), Ordering::Relaxed),
                }
            }
        });
    }

    fn give(&self, grove: &mut Grove<'static>, unit: u32, count: u32) {
        self.marks.flip(unit, count);
        grove.give(unit, count);
    }

    /// The address of `count` units at a multiple of `align` units, or `None` if they are not there; the outer `None`
    /// if the lock could not be had.
    pub(super) fn lend(&self, context: Context, count: usize, align: usize) -> Option<Option<usize>> {
        self.with(context, |grove| {
            let count = u32::try_from(count).ok()?;
            let unit = grove.take(count, align, self.origin / UNIT_BYTES)?;
            self.marks.flip(unit, count);
            Some(self.address(unit))
        })
    }

    /// The unit at `address` and how many are lent from there on, if that is an allocation, of `count` units if given.
    pub(super) fn check(&self, address: usize, count: Option<usize>) -> Result<(u32, u32), BadFree> {
        let unit = self.unit(address);
        let lent = if address.is_multiple_of(UNIT_BYTES) { self.marks.lent_from(unit) } else { None };
        match lent {
            Some(lent) if count.is_none_or(|count| count == lent as usize) => Ok((unit, lent)),
            _ => Err(self.explain(address)),
        }
    }

    /// What is wrong with a free of `address`, if it is not the start of an allocation of the size that was said.
    #[cold]
    fn explain(&self, address: usize) -> BadFree {
        let Some((head, count)) = self.marks.around(self.unit(address)) else {
            return not_lent(address);
        };
        let block = self.address(head);
        let kind = if address == block { BadFreeKind::WrongSize } else { BadFreeKind::Interior };
        BadFree { kind, address, object_bytes: count as usize * UNIT_BYTES, block }
    }

    /// Takes back the allocation at `address`, now or when the lock's holder lets go. Never waits.
    pub(super) fn take_back(&self, address: usize, count: Option<usize>) -> Result<(), BadFree> {
        let freed = self.with(Context::Nmi, |grove| {
            let (unit, count) = self.check(address, count)?;
            self.give(grove, unit, count);
            Ok(())
        });
        freed.unwrap_or_else(|| self.post(self.check(address, count)?.0))
    }

    /// Leaves an allocation for the holder of the lock.
    fn post(&self, head: u32) -> Result<(), BadFree> {
        let posted = self.pending.post(head / ROW_FRAMES, 1 << (head % ROW_FRAMES));
        // The map has fenced: the holder sees the allocation, or its lock is seen free here. Entering takes all along.
        let _ = self.with(Context::Nmi, |_| ());
        if posted == 0 { Ok(()) } else { Err(not_lent(self.address(head))) }
    }

    /// Posts what is free already, as a second free does that was checked before the first had the lock.
    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn repost(&self, address: usize) {
        let _ = self.post(self.unit(address));
    }

    /// Whether anything waits for the holder of the lock.
    #[cfg(all(test, loom))]
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_dirty()
    }

    /// Makes the allocation of `from` units at `address` one of `to` where it lies; `false` if the next units are not
    /// free, the outer `None` if the lock could not be had.
    pub(super) fn resize(
        &self,
        context: Context,
        address: usize,
        from: usize,
        to: usize,
    ) -> Option<Result<bool, BadFree>> {
        if from == to {
            // What its owner was lent stays as it is: no lock is needed to see that.
            return Some(self.check(address, Some(from)).map(|_| true));
        }
        self.with(context, |grove| {
            let (unit, count) = self.check(address, Some(from))?;
            let room = self.units.end - unit;
            let Some(to) = u32::try_from(to).ok().filter(|&to| to <= room) else { return Ok(false) };
            if to > count && !grove.take_at(unit + count, to - count) {
                return Ok(false);
            }
            self.marks.resize(unit, count, to);
            if to < count {
                grove.give(unit + to, count - to);
            }
            Ok(true)
        })
    }

    /// A wrong free that came to light late, told once.
    pub(super) fn late_fault(&self) -> Option<BadFree> {
        // Relaxed: a report, which has no order with anything. Nearly always there is none, and to look is cheaper.
        if self.late_fault.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match self.late_fault.swap(0, Ordering::Relaxed) {
            0 => None,
            address => Some(not_lent(address)),
        }
    }

    /// Adds what the region has to `census`.
    pub(super) fn count(&self, grove: &Grove<'static>, census: &mut TinyCensus) {
        census.bytes += self.units.len() * UNIT_BYTES;
        census.free_bytes += grove.free_units() as usize * UNIT_BYTES;
        census.largest_free_bytes = census.largest_free_bytes.max(grove.longest_run() as usize * UNIT_BYTES);
        census.allocations += self.marks.count().0 as usize;
    }

    /// Checks all invariants.
    pub(super) fn validate(&self, grove: &Grove<'static>) -> Result<(), &'static str> {
        grove.validate()?;
        let mut unit = 0;
        let mut allocations = 0;
        // Every unit up to the end of the region is free, or lent, or none of its own.
        while unit < self.units.end {
            let (head, count) = self.marks.next(unit).unwrap_or((self.units.end, 0));
            if let Some(unit) = (unit..head).find(|&unit| grove.is_free(unit) != self.units.contains(&unit)) {
                return Err(if grove.is_free(unit) { "units are free that do not exist" } else { "units are lost" });
            }
            if (head..head + count).any(|unit| grove.is_free(unit) || !self.units.contains(&unit)) {
                return Err("units are lent that are free or do not exist");
            }
            allocations += u32::from(count > 0);
            unit = head + count.max(1);
        }
        if self.marks.count() != (allocations, allocations) {
            return Err("an allocation has no end, or an end no allocation");
        }
        Ok(())
    }
}
