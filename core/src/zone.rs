//! A zone: the extents of one kind on one node, and the marks below which it says no.

use crate::arena::{Access, Arena, Busy};
use crate::buddy::End;
use crate::config::Config;
use crate::extent::{Extent, Want};
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::ledger::Ledger;
use crate::order::Order;
use crate::platform::{Pinned, Platform};
use crate::sync::{AtomicUsize, Ordering, Publish, const_fn};

/// The marks of a zone, in free frames. Below `low` background reclaim should start, below `min` only requests with
/// [`AllocFlags::ATOMIC`](crate::AllocFlags::ATOMIC) are served, at `high` reclaim has done its work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// The reserve.
    pub min: usize,
    /// Where reclaim starts.
    pub low: usize,
    /// Where reclaim stops.
    pub high: usize,
}

impl Watermarks {
    /// The marks that Linux gives a zone of `zone_frames` when all its machine manages `all_bytes`: min is the zone's
    /// share of 4·√(KiB), between 128 KiB and 256 MiB; low and high lie one and two steps of max(min/4, zone/1000)
    /// above.
    pub fn linux(zone_frames: usize, all_bytes: usize, frame_bytes: usize) -> Self {
        let min_free_kib = (16 * (all_bytes >> 10)).isqrt().clamp(128, 256 << 10);
        let all_frames = (all_bytes / frame_bytes).max(1);
        let min_frames = (min_free_kib << 10) / frame_bytes;
        let min = (min_frames as u128 * zone_frames as u128 / all_frames as u128) as usize;
        // A tiny machine is not all reserve.
        let min = min.min(zone_frames / 8);
        let step = (min / 4).max(zone_frames / 1000);
        Self { min, low: min + step, high: min + 2 * step }
    }
}

/// Which mark a request respects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Leaves the zone comfortable.
    Low,
    /// Leaves the reserve.
    Min,
    /// Digs into half of the reserve.
    Atomic,
}

/// The extents of one kind on one node.
pub(crate) struct Zone<'m, P: Platform, C: Config> {
    pub(crate) node: NodeId,
    pub(crate) kind: ZoneKind,
    pub(crate) ledger: Ledger,
    lowest: Publish<'m, Extent<'m, P, C>>,
    highest: Publish<'m, Extent<'m, P, C>>,
    min: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    /// Frames to keep from requests that could have used each higher kind.
    protection: [AtomicUsize; ZoneKind::COUNT],
    /// By how much the ledger's free count may be off.
    drift: AtomicUsize,
}

impl<'m, P: Platform, C: Config> Zone<'m, P, C> {
    const_fn! {
        /// A zone without memory.
        pub(crate) const fn new(node: NodeId, kind: ZoneKind) -> Self {
            Self {
                node,
                kind,
                ledger: Ledger::new(),
                lowest: Publish::empty(),
                highest: Publish::empty(),
                min: AtomicUsize::new(0),
                low: AtomicUsize::new(0),
                high: AtomicUsize::new(0),
                protection: [
                    AtomicUsize::new(0),
                    AtomicUsize::new(0),
                    AtomicUsize::new(0),
                    AtomicUsize::new(0),
                    AtomicUsize::new(0),
                ],
                drift: AtomicUsize::new(0),
            }
        }
    }

    /// Whether it has any memory.
    pub(crate) fn is_populated(&self) -> bool {
        self.lowest.get().is_some()
    }

    /// Its extents, lowest address first.
    pub(crate) fn extents(&self) -> impl Iterator<Item = &'m Extent<'m, P, C>> {
        self.extents_from(End::Bottom)
    }

    fn extents_from(&self, end: End) -> impl Iterator<Item = &'m Extent<'m, P, C>> {
        let mut next = if end == End::Bottom { self.lowest.get() } else { self.highest.get() };
        core::iter::from_fn(move || {
            let extent = next?;
            next = if end == End::Bottom { extent.next.get() } else { extent.previous.get() };
            Some(extent)
        })
    }

    /// Its arenas, lowest address first.
    pub(crate) fn arenas(&self) -> impl Iterator<Item = &'m Arena<'m, P, C>> {
        self.extents().flat_map(|extent| extent.arenas())
    }

    /// Makes the memory of `extent` the zone's. Only under the registry lock.
    pub(crate) fn link(&self, extent: &'m Extent<'m, P, C>) {
        let before = self.extents().take_while(|other| other.span().start() < extent.span().start()).last();
        let after = before.map_or(self.lowest.get(), |before| before.next.get());
        extent.previous.set(before);
        extent.next.set(after);
        let drift: usize = extent.arenas().iter().map(Arena::fold_threshold).sum();
        self.drift.fetch_add(drift, Ordering::Relaxed);
        // Last the links that lead here: who follows them finds a whole extent.
        before.map_or(&self.lowest, |before| &before.next).set(Some(extent));
        after.map_or(&self.highest, |after| &after.previous).set(Some(extent));
    }

    /// From its lowest frame to its highest, holes included.
    pub(crate) fn spanned(&self) -> Option<FrameSpan> {
        let (first, last) = (self.lowest.get()?.span(), self.highest.get()?.span());
        FrameSpan::new(first.start(), last.end() - first.start()).ok()
    }

    /// The marks in force.
    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks {
            min: self.min.load(Ordering::Relaxed),
            low: self.low.load(Ordering::Relaxed),
            high: self.high.load(Ordering::Relaxed),
        }
    }

    /// Sets the marks.
    pub(crate) fn set_watermarks(&self, marks: Watermarks) {
        self.min.store(marks.min, Ordering::Relaxed);
        self.low.store(marks.low, Ordering::Relaxed);
        self.high.store(marks.high, Ordering::Relaxed);
    }

    /// How many frames are kept from requests that could have used a zone of kind `from`.
    pub(crate) fn protection(&self, from: ZoneKind) -> usize {
        self.protection[from.index()].load(Ordering::Relaxed)
    }

    /// Sets how many frames are kept from requests that could have used a zone of kind `from`.
    pub(crate) fn set_protection(&self, from: ZoneKind, frames: usize) {
        self.protection[from.index()].store(frames, Ordering::Relaxed);
    }

    /// Free frames in the trees, summed over the arenas: exact when nothing moves.
    pub(crate) fn free_frames(&self) -> usize {
        self.arenas().map(|arena| arena.glance().0 as usize).sum()
    }

    /// Waits for the frees that are on their way from a pending map; `false` if there are none.
    pub(crate) fn catch_up(&self, access: Access<'_, P>) -> Result<bool, Busy> {
        let mut moved = Ok(false);
        for arena in self.arenas() {
            match arena.catch_up(access) {
                Ok(false) => {}
                Ok(true) => moved = moved.map(|_| true),
                Err(Busy) => moved = Err(Busy),
            }
        }
        moved
    }

    /// Whether `count` frames may go without sinking below `mark`.
    ///
    /// The folded count decides while it is clear of the mark by more than it may be off, else the arenas are summed.
    pub(crate) fn affords(&self, count: usize, mark: Mark, top: ZoneKind) -> bool {
        let marks = self.watermarks();
        let keep = match mark {
            Mark::Low => marks.low,
            Mark::Min => marks.min,
            Mark::Atomic => marks.min / 2,
        };
        // What counts are the frames that stay; a request that could go elsewhere also leaves the protection alone.
        let needed = count.saturating_add(keep).saturating_add(if top > self.kind { self.protection(top) } else { 0 });
        if needed == count {
            // Without marks only the trees themselves can say no.
            return true;
        }
        // Frames in the pending map are counted nowhere yet: who must not miss them lets the zone catch up.
        let (free, drift) = (self.ledger.free_frames(), self.drift.load(Ordering::Relaxed));
        free >= needed.saturating_add(drift) || self.free_frames() >= needed
    }

    /// Frames as wanted.
    pub(crate) fn take(&self, access: Access<'_, P>, want: &Want) -> Result<Option<Pfn>, Busy> {
        let mut busy = Ok(None);
        for extent in self.extents_from(want.end) {
            match extent.take_hinted(access, want) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(Busy) => busy = Err(Busy),
            }
        }
        for extent in self.extents_from(want.end) {
            match extent.take_exact(access, want) {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(Busy) => busy = Err(Busy),
            }
        }
        busy
    }

    /// Single frames for a pool.
    pub(crate) fn refill(
        &self,
        pinned: &Pinned<P>,
        want: u32,
        end: End,
        mut out: impl FnMut(&'m Arena<'m, P, C>, u32, u32),
    ) -> u32 {
        for extent in self.extents_from(end) {
            let taken = extent.refill(pinned, want, end, &mut out);
            if taken != 0 {
                return taken;
            }
        }
        0
    }

    /// Blocks for a pool.
    pub(crate) fn refill_blocks(&self, pinned: &Pinned<P>, order: Order, want: u32, mut out: impl FnMut(Pfn)) -> u32 {
        self.extents()
            .map(|extent| extent.refill_blocks(pinned, order, want, &mut out))
            .find(|&taken| taken != 0)
            .unwrap_or(0)
    }

    /// Whether less than an eighth is free, so that where a block lies matters more than how soon it is had. Advice.
    #[inline]
    pub(crate) fn is_scarce(&self) -> bool {
        self.ledger.free_frames() < self.ledger.managed_frames() / 8
    }

    /// Frames that are the allocator's to lend.
    pub(crate) fn managed(&self) -> FrameCount {
        FrameCount::new(self.ledger.managed_frames())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_those_of_linux() {
        // 4 GiB in one zone: √(16 · 4 Mi) = 8192 KiB = 2048 frames.
        let frames = (4 << 30) / 4096;
        let marks = Watermarks::linux(frames, 4 << 30, 4096);
        assert_eq!(marks, Watermarks { min: 2048, low: 2048 + 1048, high: 2048 + 2 * 1048 });
        // A zone of a quarter of the machine has a quarter of the reserve.
        assert_eq!(Watermarks::linux(frames / 4, 4 << 30, 4096).min, 512);
        // 16 MiB: √(16 · 16 Ki) = 512 KiB.
        assert_eq!(Watermarks::linux(4096, 16 << 20, 4096).min, 128);
    }
}
