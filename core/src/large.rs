//! Large objects: whole frames, whatever is left of the last one.
//!
//! ```text
//!   request ──► ready, the last of its size ──► kept blocks of about this size ────► frames, the tail given back
//!   free    ──► ready ────────────────────────► kept, while there are few ─────────► frames
//!   realloc ──► the next frames, if they are free;  the last ones go
//! ```
//!
//! Nothing is written of a large object but the words of its frames: `LargeHead` on the first block, `LargeTail` on
//! those that follow. A freed block that is kept is a `LargeKept`, or a `LargeReady` as long as it is at hand: its
//! frames are lent as before, and it is nobody's.

mod kept;
mod ready;

use core::alloc::Layout;

use crate::arena::{Access, Busy};
use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};
use crate::frame_table::{Counts, Kind};
use crate::frames::Request;
use crate::heap::{Heap, HeapInvalid, Lent};
use crate::id::{NodeId, NodeMask};
use crate::platform::Platform;
use crate::policy::Policy;
use crate::size_class::SizeClass;

pub(crate) use kept::KeptBlocks;
use kept::{Kept, MAX_BLOCKS};
pub(crate) use ready::Ready;

/// What is lent at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Object {
    Small(SizeClass),
    Large(FrameSpan),
}

/// A large object that was just taken.
pub(crate) struct Taken {
    pub(crate) span: FrameSpan,
    /// Nobody has had its frames before.
    pub(crate) fresh: bool,
}

/// The layout that no bytes at all are served as: the least that their alignment allows.
pub(crate) fn at_least_a_byte(layout: Layout) -> Layout {
    if layout.size() != 0 {
        return layout;
    }
    // One byte of an alignment that some layout has is a layout.
    Layout::from_size_align(1, layout.align()).unwrap_or(layout)
}

impl<P: Platform, C: Config> Heap<'_, P, C> {
    /// The most frames that kept blocks may have, with those at hand.
    const MOST_KEPT: usize = C::LARGE_CACHE_BYTES / C::FRAME_BYTES;

    /// The most frames that blocks at hand may have.
    const MOST_READY: usize = Self::MOST_KEPT / 2;

    /// Frames for a large object.
    pub(crate) fn alloc_large(&self, layout: Layout) -> Result<Lent, AllocError> {
        self.take_large(layout, false).map(|taken| Lent::large(self.address_of(taken.span), Self::bytes_in(taken.span)))
    }

    /// Frames for a large object that shall be zero, and whether they are.
    pub(crate) fn alloc_large_zeroed(&self, layout: Layout) -> Result<(usize, bool), AllocError> {
        let layout = at_least_a_byte(layout);
        let taken = self.serve(layout, true, || self.take_large(layout, true));
        let taken = taken?;
        let address = self.noticed(Lent::large(self.address_of(taken.span), Self::bytes_in(taken.span)));
        Ok((address, taken.fresh && C::FRESH_FRAMES_ARE_ZERO))
    }

    fn take_large(&self, layout: Layout, zeroed: bool) -> Result<Taken, AllocError> {
        let count = Self::frames_of(layout.size());
        let align = layout.align().max(C::FRAME_BYTES);
        if layout.size() > self.span_bytes.get() {
            return Err(AllocError::Impossible);
        }
        if let Some(span) = self.take_handy(count, align) {
            return Ok(Taken { span, fresh: false });
        }
        if let Some(span) = self.take_kept(count, align) {
            self.frames.lend_again(span, count);
            return Ok(Taken { span, fresh: false });
        }
        if let Some(span) = self.take_near(count, align) {
            return Ok(Taken { span, fresh: false });
        }
        // What is kept lies between what is free: together they may have room for what would go beyond all that is in
        // use.
        if count.get() > Self::MOST_KEPT / 4 && self.kept_bytes() != 0 {
            self.trim_large();
        }
        let mut taken = self.take_frames(count, align, zeroed, None);
        // What is kept is no use to a request of another size, nor to one that may not reclaim.
        if matches!(taken, Err(AllocError::NoMemory)) && self.kept_bytes() != 0 {
            self.trim_large();
            taken = self.take_frames(count, align, zeroed, None);
        }
        let taken = taken?;
        self.frames.hold_large(taken.span);
        Ok(taken)
    }

    /// The frames of a large object of so many bytes.
    fn frames_of(bytes: usize) -> FrameCount {
        let frames = bytes.div_ceil(C::FRAME_BYTES);
        let sizes = C::LARGE_SIZES_PER_DOUBLING;
        // At `Hardened` a guard follows the last frame that was asked for.
        if sizes == 0 || C::HARDENED || frames > Self::MOST_KEPT / 4 {
            return FrameCount::new(frames);
        }
        // The step is a power of two, as the sizes are: no division.
        let step = (frames.next_power_of_two() / 2 / sizes).max(1);
        FrameCount::new((frames + step - 1) & !(step - 1))
    }

    /// The most frames of a freed block that may serve a request for `count`: a quarter more, where sizes have steps at
    /// all.
    fn most_for(count: FrameCount) -> FrameCount {
        if C::LARGE_SIZES_PER_DOUBLING == 0 || C::HARDENED || count.get() > Counts::MOST_WITH_SPARE {
            return count;
        }
        count + FrameCount::new((count.get() / 4).min(Counts::MOST_SPARE))
    }

    /// Frames of one node for a large object.
    pub(crate) fn alloc_large_at(&self, node: NodeId, layout: Layout) -> Result<usize, AllocError> {
        if layout.size() > self.span_bytes.get() {
            return Err(AllocError::Impossible);
        }
        let policy = Policy::Bind(NodeMask::of(node));
        let align = layout.align().max(C::FRAME_BYTES);
        let taken = self.take_frames(Self::frames_of(layout.size()), align, false, Some(policy))?;
        self.frames.hold_large(taken.span);
        Ok(self.address_of(taken.span))
    }

    /// Frames at a multiple of `align` bytes, fresh ones rather than pooled ones if `zeroed` says that this saves work;
    /// by a policy, or near the caller.
    pub(crate) fn take_frames(
        &self,
        count: FrameCount,
        align: usize,
        zeroed: bool,
        policy: Option<Policy>,
    ) -> Result<Taken, AllocError> {
        let home = self.home();
        // Frames are aligned as their numbers are; where frame 0 is less so, a part of more frames is.
        let skewed = self.window.base() & (align - 1) != 0;
        let slack = if skewed { align / C::FRAME_BYTES - 1 } else { 0 };
        let wanted = count.get().checked_add(slack).ok_or(AllocError::Impossible)?;
        let align_frames = if skewed { C::FRAME_BYTES } else { align };
        let straight = zeroed && C::FRESH_FRAMES_ARE_ZERO || policy.is_some();
        let range = if straight {
            let policy = policy.unwrap_or(if C::NUMA { Policy::Preferred(home) } else { Policy::Local });
            let request =
                Request::frames(FrameCount::new(wanted)).aligned(align_frames / C::FRAME_BYTES).below(self.end());
            self.away_from_null(|| self.frames.alloc_range(&request.flags(self.frame_flags()).policy(policy)))?
        } else {
            self.frames_for(home, FrameCount::new(wanted), align_frames)?
        };
        let fresh = straight && self.frames.are_clean(range.span());
        let span = if skewed { self.cut_aligned(range, count, align) } else { range.into_raw() };
        Ok(Taken { span, fresh })
    }

    /// Gives all of a range back but `count` frames at a multiple of `align` bytes, which it has.
    fn cut_aligned(&self, range: FrameRange, count: FrameCount, align: usize) -> FrameSpan {
        let all = range.into_raw();
        let start = self.address_of(all);
        let lead = FrameCount::new((start.next_multiple_of(align) - start) / C::FRAME_BYTES);
        let first = all.start() + lead;
        let end = first + count;
        for (from, to) in [(all.start(), first), (end, all.end())] {
            if from < to {
                let freed = self.frames.free_raw(from, to - from);
                debug_assert_eq!(freed, Ok(()));
            }
        }
        FrameSpan::new(first, count).unwrap_or(all)
    }

    /// The node of the caller's CPU.
    pub(crate) fn home(&self) -> NodeId {
        P::pin().and_then(|pinned| self.pools.mine(&pinned).map(|pool| pool.node())).unwrap_or_default()
    }

    /// Takes back what is no small object by its layout.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_other(&self, address: usize, layout: Layout) -> Result<(), BadFree> {
        if layout.size() != 0 && self.free_handy(address, Some(Self::frames_of(layout.size()))) {
            return Ok(());
        }
        self.free_unhandy(address, layout)
    }

    #[inline(never)]
    fn free_unhandy(&self, address: usize, layout: Layout) -> Result<(), BadFree> {
        if layout.size() == 0 {
            return self.free_address(address, at_least_a_byte(layout));
        }
        let count = Self::frames_of(layout.size());
        match self.large_span(address) {
            Some(span) if self.frames.asked_of(span) == count => self.free_large(span),
            _ => self.refuse(address, None),
        }
    }

    /// Takes back whatever is lent at `address`.
    pub(crate) fn free_address_unsized(&self, address: usize) -> Result<(), BadFree> {
        if let Some(slab) = self.slab_of(address) {
            return match slab.class() {
                Some(class) => self.free_small(class, address),
                None => self.refuse(address, None),
            };
        }
        if self.free_handy(address, None) {
            return Ok(());
        }
        match self.large_span(address) {
            Some(span) => self.free_large(span),
            None => self.refuse(address, None),
        }
    }

    /// Takes a large object back that is not to be at hand, which may be freed by somebody else at the same moment.
    fn free_large(&self, span: FrameSpan) -> Result<(), BadFree> {
        if !self.frames.set_aside(span.start()) {
            return self.refuse(self.address_of(span), None);
        }
        self.forget_large(self.address_of(span));
        self.keep_or_release(span);
        Ok(())
    }

    /// As [`alloc_large`](Self::alloc_large), where a block is at hand.
    #[inline]
    pub(crate) fn alloc_handy(&self, layout: Layout) -> Option<Lent> {
        let count = Self::frames_of(layout.size());
        let span = self.take_handy(count, layout.align().max(C::FRAME_BYTES))?;
        Some(Lent::large(self.address_of(span), Self::bytes_in(span)))
    }

    /// A block of so many frames that is at hand.
    #[inline]
    fn take_handy(&self, count: FrameCount, align: usize) -> Option<FrameSpan> {
        if !Self::is_handy(count) {
            return None;
        }
        let span = self.ready.look(count).filter(|span| self.is_placed_for(span.start(), align))?;
        self.frames.lend_ready(span, count).then_some(span)
    }

    /// A block of somewhat more frames that is at hand.
    fn take_near(&self, count: FrameCount, align: usize) -> Option<FrameSpan> {
        let most = Self::most_for(count);
        if !Self::is_handy(count) || most == count {
            return None;
        }
        let fits = |span: &FrameSpan| (count..=most).contains(&span.count()) && self.is_placed_for(span.start(), align);
        let span = self.ready.hints().filter(fits).min_by_key(|span| span.count())?;
        self.frames.lend_ready(span, count).then_some(span)
    }

    /// Takes back a large object at `address` for which `asked` frames were asked, if that is known, and puts it at
    /// hand; `false` if none such is lent there, or a larger one than may be at hand.
    #[inline]
    fn free_handy(&self, address: usize, asked: Option<FrameCount>) -> bool {
        let offset = address.wrapping_sub(self.window.base());
        if !Self::is_handy(asked.unwrap_or_default()) || !offset.is_multiple_of(C::FRAME_BYTES) {
            return false;
        }
        let head = Pfn::new(offset / C::FRAME_BYTES);
        // Before somebody has the block again, who is told of then; not if the free is about to be refused.
        if self.tells_of_frees() {
            let span = self.frames.large_at(head).filter(|span| span.count().get() <= Self::MOST_READY);
            if span.is_some_and(|span| asked.is_none_or(|asked| asked == self.frames.asked_of(span))) {
                self.forget_large(address);
            }
        }
        let Some(span) = self.frames.make_ready(head, asked, Self::MOST_READY) else { return false };
        self.show(span);
        true
    }

    /// Whether blocks of so many frames may be at hand.
    #[inline(always)]
    fn is_handy(count: FrameCount) -> bool {
        !C::HARDENED && !C::NUMA && count.get() <= Self::MOST_READY
    }

    /// Leaves a hint to a block that is ready, and looks after the one that another hint led to.
    #[inline]
    fn show(&self, span: FrameSpan) {
        if let Some(before) = self.ready.show(span) {
            self.make_room(before);
        }
    }

    /// Looks after a block whose hint another has displaced, and after all if there are too many.
    fn make_room(&self, before: FrameSpan) {
        self.put_away(before);
        if self.ready.hints().map(|span| span.count().get()).sum::<usize>() > Self::MOST_READY {
            self.ready.take().for_each(|span| self.put_away(span));
        }
    }

    /// Keeps a block to which no hint leads any more, if it is ready, or gives its frames back.
    fn put_away(&self, span: FrameSpan) {
        if self.frames.keep_ready(span) {
            self.keep_or_release(span);
        }
    }

    /// Keeps a block that is set aside, or gives its frames back.
    fn keep_or_release(&self, span: FrameSpan) {
        if !self.keep_large(span) {
            self.release_large(span);
        }
    }

    /// Whether the address of a frame is such a multiple.
    #[inline]
    fn is_placed_for(&self, start: Pfn, align: usize) -> bool {
        // A power of two, as alignments are: no division.
        self.window.base().wrapping_add(start.number() * C::FRAME_BYTES) & (align - 1) == 0
    }

    /// Gives the frames of a large object back that is set aside, and that nobody has.
    pub(crate) fn release_large(&self, span: FrameSpan) {
        if !self.settle_large(span) {
            return;
        }
        self.frames.unhold(span);
        let freed = self.free_frames(span);
        debug_assert_eq!(freed, Ok(()));
        self.tell_released();
    }

    /// Runs `work` on the kept blocks with their lock; whoever may not wait tries once, since all work here can be
    /// left.
    fn with_kept<R>(&self, work: impl FnOnce(&KeptBlocks<P>, Access<'_, P>) -> Result<R, Busy>) -> Result<R, Busy> {
        match P::pin() {
            Some(pinned) => work(&self.kept, Access::Wait(&pinned)),
            None => work(&self.kept, Access::Try),
        }
    }

    /// A kept block for a request.
    fn take_kept(&self, count: FrameCount, align: usize) -> Option<FrameSpan> {
        if self.kept.frames() < count.get() {
            return None;
        }
        let node = if C::NUMA { self.home().index() as u32 } else { 0 };
        let sizes = count..=Self::most_for(count);
        self.with_kept(|kept, access| kept.take(access, sizes, node, |start| self.is_placed_for(start, align)))
            .ok()
            .flatten()
    }

    /// Keeps a block that is set aside, and lets the oldest go if there are too many; `false` if it should not be kept.
    fn keep_large(&self, span: FrameSpan) -> bool {
        if span.count().get() > Self::MOST_KEPT {
            return false;
        }
        let node = if C::NUMA { self.frames.node_of(span.start()).unwrap_or_default().index() as u32 } else { 0 };
        let most = self.most_kept();
        match self.with_kept(|kept, access| kept.put(access, span, node, most)) {
            Ok(Kept::Yes) => true,
            Ok(Kept::TooMany) => {
                for _ in 0..MAX_BLOCKS {
                    let oldest = self.with_kept(|kept, access| kept.excess(access, most));
                    let Ok(Some(oldest)) = oldest else { break };
                    self.release_large(oldest);
                }
                true
            }
            Ok(Kept::No) | Err(Busy) => false,
        }
    }

    /// Gives the frames of freed large blocks back that are kept.
    pub fn trim_large(&self) {
        self.ready.take().for_each(|span| self.put_away(span));
        // No more than there is room for: others may keep new ones for as long as this takes.
        for _ in 0..MAX_BLOCKS {
            let Ok(Some(span)) = self.with_kept(KeptBlocks::pop) else { return };
            self.release_large(span);
        }
    }

    /// Bytes of freed large blocks that are kept for the next of their size. [`trim`](Self::trim) gives them back.
    pub fn kept_bytes(&self) -> usize {
        let ready = self.ready.hints().filter(|&span| self.frames.is_ready(span));
        (self.kept.frames() + ready.map(|span| span.count().get()).sum::<usize>()) * C::FRAME_BYTES
    }

    /// The most frames that blocks which are kept and not at hand may have now.
    fn most_kept(&self) -> usize {
        Self::MOST_KEPT - self.ready.hints().map(|span| span.count().get()).sum::<usize>().min(Self::MOST_READY)
    }

    /// Checks the blocks that are kept: nobody has them, and their frames know it.
    pub(crate) fn validate_kept(&self) -> Result<(), HeapInvalid> {
        let is_kept = |span: FrameSpan| self.frames.aside_at(span.start()) == Some(span);
        let checked = self.with_kept(|kept, access| kept.validate(access, is_kept));
        let wrong = |pfn: Pfn| HeapInvalid::Kept(self.window.base().wrapping_add(pfn.number() * C::FRAME_BYTES));
        checked.map_err(|Busy| HeapInvalid::WouldBlock)?.map_err(wrong)
    }

    /// The frames of the large object that starts at `address`.
    pub(crate) fn large_span(&self, address: usize) -> Option<FrameSpan> {
        let offset = address.wrapping_sub(self.window.base());
        if !offset.is_multiple_of(C::FRAME_BYTES) {
            return None;
        }
        self.frames.large_at(Pfn::new(offset / C::FRAME_BYTES))
    }

    /// What is lent at `address`, by the address alone.
    pub(crate) fn object_at(&self, address: usize) -> Option<Object> {
        let Some(slab) = self.slab_of(address) else { return self.large_span(address).map(Object::Large) };
        let class = slab.class()?;
        let starts = slab.slot_of(class, address).is_some_and(|slot| slot < slab.slots());
        (starts && self.is_lent(slab, class, address)).then_some(Object::Small(class))
    }

    /// The object for `layout` that is lent at `address`.
    ///
    /// # Errors
    /// If none is, and this level checks; it is reported.
    pub(crate) fn object_of(&self, address: usize, layout: Layout) -> Result<Object, BadFree> {
        let class = SizeClass::of(layout);
        let found = match class {
            Some(class) if !C::CHECKED => return Ok(Object::Small(class)),
            _ => self.object_at(address),
        };
        match (found, class) {
            (Some(object @ Object::Small(own)), Some(class)) if own == class => Ok(object),
            (Some(object @ Object::Large(span)), None)
                if self.frames.asked_of(span) == Self::frames_of(layout.size()) =>
            {
                Ok(object)
            }
            _ => Err(self.refuse(address, class).err().unwrap_or(self.explain_large(address))),
        }
    }

    /// The bytes of a span.
    pub(crate) fn bytes_in(span: FrameSpan) -> usize {
        span.count().get() * C::FRAME_BYTES
    }

    /// The bytes that the user of an object may use.
    pub(crate) fn bytes_of(object: Object) -> usize {
        match object {
            Object::Small(class) => class.bytes(),
            Object::Large(span) => Self::bytes_in(span),
        }
    }

    /// Makes an object serve `new` where it is; `false` if it must move, and then nothing has changed.
    ///
    /// What a layout of `new` frees afterwards is the object as it is then.
    pub(crate) fn resize(&self, address: usize, object: Object, new: Layout) -> bool {
        match (object, SizeClass::of(new)) {
            (Object::Small(own), Some(class)) => own == class,
            (Object::Large(span), None) => {
                let count = Self::frames_of(new.size());
                let before = self.frames.asked_of(span);
                let resized = address.is_multiple_of(new.align()) && self.resize_large(span, count);
                if resized && count != before {
                    // Who makes it larger has the memory from now on.
                    self.forget_large(address);
                    self.noticed(Lent::large(address, count.get() * C::FRAME_BYTES));
                }
                resized
            }
            _ => false,
        }
    }

    /// Gives a large object more or fewer frames where it is.
    fn resize_large(&self, span: FrameSpan, count: FrameCount) -> bool {
        if count > span.count() {
            let is_longer = self.frames.extend_large(span, count - span.count());
            if is_longer && let Ok(tail) = FrameSpan::new(span.end(), count - span.count()) {
                self.tell_taken(tail);
            }
            return is_longer;
        }
        if span.count() <= Self::most_for(count) {
            self.frames.note_counts(span.start(), Counts { asked: count, spare: span.count() - count });
            return true;
        }
        if count < span.count() {
            let Ok(tail) = FrameSpan::new(span.start() + count, span.count() - count) else { return false };
            if !self.settle_large(tail) {
                return false;
            }
            self.frames.cut_large(span, tail.start());
            let freed = self.free_frames(tail);
            debug_assert_eq!(freed, Ok(()));
            self.tell_released();
        }
        true
    }

    /// What is wrong with a free of `address`, which is in no slab.
    pub(crate) fn explain_large(&self, address: usize) -> BadFree {
        let offset = address.wrapping_sub(self.window.base());
        let pfn = Pfn::new(offset / C::FRAME_BYTES);
        let Some((kind, span)) = self.frames.object_around(pfn) else {
            let ours = self.frames.node_of(pfn).is_some() && !self.frames.is_of_others(pfn);
            let kind = if ours { BadFreeKind::NotLent } else { BadFreeKind::Foreign };
            return BadFree { kind, address, object_bytes: 0, block: 0 };
        };
        let block = self.address_of(span);
        let kind = match kind {
            Kind::LargeKept | Kind::LargeReady => BadFreeKind::NotLent,
            Kind::LargeHead if block == address => BadFreeKind::WrongSize,
            Kind::LargeHead => BadFreeKind::Interior,
            // A slab that is just coming or going.
            _ => BadFreeKind::NotLent,
        };
        BadFree { kind, address, object_bytes: span.count().get() * C::FRAME_BYTES, block }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
