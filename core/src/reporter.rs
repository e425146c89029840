//! Free memory that its owner could have back: a hypervisor, an operating system.
//!
//! What is reported stays the allocator's. Its owner may take away what is behind it, and whoever touches it next gets
//! zeros. That costs him a fault a page, so it is worth it for memory that will not be used soon; which that is, the
//! embedder decides by when he asks, and for blocks of which order. (Linux calls it free page reporting.)

use crate::arena::Access;
use crate::config::Config;
use crate::frame::{FrameCount, FrameSpan};
use crate::frames::Frames;
use crate::order::Order;
use crate::platform::Platform;

impl<'m, P: Platform, C: Config> Frames<'m, P, C> {
    /// Free frames that somebody has had and that have not been reported since, where
    /// [frames start as zeros](Config::FRESH_FRAMES_ARE_ZERO). Off by less than one in 4096 of all frames.
    pub fn dirty_frames(&self) -> FrameCount {
        FrameCount::new(self.zones().map(|zone| zone.ledger.dirty_frames()).sum())
    }

    /// Frames that are free or in nobody's hands yet, as the zones' counts have it: off by less than one in 4096.
    pub fn free_frames(&self) -> FrameCount {
        FrameCount::new(self.zones().map(|zone| zone.ledger.free_frames()).sum())
    }

    /// Reports free frames that are dirty, of blocks of `least` or more, until `most` are reported or there are no
    /// more; answers how many were. A huge frame that is free as a whole is reported as a whole if any of its frames is
    /// dirty, since its owner may have put a huge page behind it; clean ones are not counted. `reporter` is called with
    /// each run of them, from the highest down, with no lock and no pin held; while it is, the frames are nobody's. It
    /// answers whether they are zeros now. If not, they stay what they were, and nothing else is reported.
    ///
    /// # Safety
    /// Whoever touches frames next of which `reporter` says that they are zeros finds zeros. It does not unwind.
    ///
    /// # Cost
    /// For each run two locks, and a look at a count for each huge frame of the arena.
    #[allow(unsafe_code, reason = "a promise of the caller's, on which zeroed memory stands")]
    pub unsafe fn report(&self, least: Order, most: FrameCount, reporter: impl FnMut(FrameSpan) -> bool) -> FrameCount {
        // SAFETY: the caller's promise.
        unsafe { self.report_units(Order::ZERO, least, most, reporter) }
    }

    /// As [`report`](Self::report), in runs of whole *units* of 2^`unit` frames: for an owner who takes no less, as
    /// where the pages behind frames are larger than these. A unit with a dirty frame is reported with its clean ones,
    /// if all of it is free.
    ///
    /// # Safety
    /// As [`report`](Self::report).
    #[allow(unsafe_code, reason = "as above")]
    pub unsafe fn report_units(
        &self,
        unit: Order,
        least: Order,
        most: FrameCount,
        mut reporter: impl FnMut(FrameSpan) -> bool,
    ) -> FrameCount {
        let mut reported = FrameCount::new(0);
        for arena in self.zones().flat_map(|zone| zone.arenas()) {
            let mut below = u32::MAX;
            while reported < most {
                let run = self.with_access(|access| arena.take_dirty(access, [unit, least], below));
                let Some(Some((start, count, dirty))) = run else { break };
                below = start;
                let span = FrameSpan::new(arena.pfn(start), FrameCount::new(count as usize));
                let clean = span.is_ok_and(&mut reporter);
                let returned = self.with_access(|access| arena.return_reported(access, start, count, clean));
                debug_assert!(returned.is_some(), "who may wait gets the lock");
                if !clean {
                    return reported;
                }
                reported += FrameCount::new(dirty as usize);
            }
        }
        reported
    }

    /// Runs `work` with the right to wait for a lock; `None` in a context that may not wait.
    fn with_access<R, E>(&self, work: impl FnOnce(Access<'_, P>) -> Result<R, E>) -> Option<R> {
        let pinned = P::pin()?;
        work(Access::Wait(&pinned)).ok()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
