//! Large objects: whole frames, whatever is left of the last one.

use core::alloc::Layout;

use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::heap::Heap;
use crate::id::NodeId;
use crate::platform::Platform;
use crate::size_class::SizeClass;

impl<P: Platform, C: Config> Heap<'_, P, C> {
    /// Frames for a large object.
    pub(crate) fn alloc_large(&self, layout: Layout) -> Result<usize, AllocError> {
        let count = FrameCount::new(layout.size().div_ceil(C::FRAME_BYTES));
        let span = self.frames_for(self.home(), count, layout.align().max(C::FRAME_BYTES))?.into_raw();
        self.frames.hold_large(span);
        Ok(self.address_of(span))
    }

    /// The node of the caller's CPU.
    fn home(&self) -> NodeId {
        P::pin().and_then(|pinned| self.pools.mine(&pinned).map(|pool| pool.node())).unwrap_or_default()
    }

    /// Takes back what is no small object by its layout.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_other(&self, address: usize, layout: Layout) -> Result<(), BadFree> {
        if layout.size() == 0
            && let Ok(least) = Layout::from_size_align(1, layout.align())
        {
            return self.free_address(address, least);
        }
        let Some(span) = self.large_span(address) else { return self.refuse(address, None) };
        if span.count().get() != layout.size().div_ceil(C::FRAME_BYTES) {
            return self.refuse(address, None);
        }
        self.free_large(span);
        Ok(())
    }

    fn free_large(&self, span: FrameSpan) {
        self.frames.unhold(span);
        let freed = self.free_frames(span);
        debug_assert_eq!(freed, Ok(()));
    }

    /// The frames of the large object that starts at `address`.
    pub(crate) fn large_span(&self, address: usize) -> Option<FrameSpan> {
        let offset = address.wrapping_sub(self.window.base());
        if !offset.is_multiple_of(C::FRAME_BYTES) {
            return None;
        }
        self.frames.large_at(Pfn::new(offset / C::FRAME_BYTES))
    }

    /// Whether an object need not move to serve another layout.
    pub(crate) fn fits_in_place(&self, address: usize, layout: Layout, new: Layout) -> bool {
        let _ = address;
        match (SizeClass::of(layout), SizeClass::of(new)) {
            (Some(old), Some(new)) => old == new,
            (None, None) => layout.size().div_ceil(C::FRAME_BYTES) == new.size().div_ceil(C::FRAME_BYTES),
            _ => false,
        }
    }

    /// What is wrong with a free of `address`, which is in no slab.
    pub(crate) fn explain_large(&self, address: usize) -> BadFree {
        match self.large_span(address) {
            Some(span) => {
                let (object_bytes, block) = (span.count().get() * C::FRAME_BYTES, self.address_of(span));
                BadFree { kind: BadFreeKind::WrongSize, address, object_bytes, block }
            }
            None => BadFree { kind: BadFreeKind::Foreign, address, object_bytes: 0, block: 0 },
        }
    }

    /// Gives the frames of freed large blocks back that are kept.
    pub(crate) fn trim_large(&self) {}
}
