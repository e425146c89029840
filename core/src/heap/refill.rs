//! The slow half of `alloc`: refill this CPU's pool, make a slab, and do without a pool where there is none.

use core::alloc::Layout;

use super::sample::Lent;
use super::{Answer, Heap};
use crate::arena::{Access, Busy};
use crate::carve::Metadata;
use crate::config::Config;
use crate::error::AllocError;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};
use crate::frames::Request;
use crate::id::NodeId;
use crate::order::Order;
use crate::platform::{Context, Pinned, Platform};
use crate::policy::Policy;
use crate::pool::ObjectPool;
use crate::size_class::SizeClass;
use crate::slab::{Contents, Shape, Slab, SlabStore, Taker};
use crate::sync::Ordering;

/// How often an interrupt handler tries a lock that another CPU may hold. Whoever holds it masks interrupts meanwhile
/// in a kernel that allocates in handlers, so it is another CPU and soon done; if not, there is an end to it.
const TRIES: usize = 1 << 12;

/// What a look for an object came to.
enum Found {
    Object(usize),
    /// An object that shall be a sample, and the token of its mark.
    Marked(usize, usize),
    /// There is no free slot on this node.
    NoSlot(NodeId),
    WouldBlock,
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    #[cold]
    #[inline(never)]
    pub(crate) fn alloc_slow(&self, layout: Layout, reclaim: bool) -> Answer {
        if SizeClass::of(layout).is_none()
            && let Some(lent) = self.alloc_handy(layout)
        {
            return Answer::of(Ok(self.noticed(lent)));
        }
        self.alloc_unhandy(layout, reclaim)
    }

    #[inline(never)]
    fn alloc_unhandy(&self, layout: Layout, reclaim: bool) -> Answer {
        let served = self.serve(layout, reclaim, || self.alloc_once(layout));
        Answer::of(served.map(|lent| self.noticed(lent)))
    }

    fn alloc_once(&self, layout: Layout) -> Result<Lent, AllocError> {
        match SizeClass::of(layout) {
            Some(class) => self.alloc_small(class),
            // No bytes at all are served as the least that their alignment allows.
            None if layout.size() == 0 => match Layout::from_size_align(1, layout.align()) {
                Ok(least) => self.alloc_once(least),
                Err(_) => Err(AllocError::Impossible),
            },
            None => self.alloc_large(layout),
        }
    }

    fn alloc_small(&self, class: SizeClass) -> Result<Lent, AllocError> {
        // Other CPUs may take a new slab's slots before this one does, but not for ever.
        for _ in 0..8 {
            let node = match self.find(class) {
                Found::NoSlot(node) => node,
                found => return self.found(class, found),
            };
            match self.grow_cache(class, node) {
                Ok(on) if on == node => {}
                // Another node's slab serves the request, but does not come into the pool.
                Ok(on) => return self.found(class, self.find_on(on, class)),
                Err(AllocError::NoMemory) => return self.found(class, self.find_anywhere(class)),
                Err(error) => return Err(error),
            }
        }
        Err(AllocError::NoMemory)
    }

    fn found(&self, class: SizeClass, found: Found) -> Result<Lent, AllocError> {
        match found {
            Found::Object(address) => {
                self.mark(class, address);
                Ok(Lent::plain(address))
            }
            Found::Marked(address, token) => {
                self.mark(class, address);
                Ok(Lent::marked(address, class, token))
            }
            Found::NoSlot(_) => Err(AllocError::NoMemory),
            Found::WouldBlock => Err(AllocError::WouldBlock),
        }
    }

    /// An object from this CPU's pool, which is refilled; without a pool, from the slabs.
    fn find(&self, class: SizeClass) -> Found {
        self.poll();
        let Some(mut pinned) = P::pin() else { return self.find_on(NodeId::ZERO, class) };
        let Some(pool) = self.pools.mine(&pinned) else {
            drop(pinned);
            return self.find_on(NodeId::ZERO, class);
        };
        // Since the stack was found empty an interrupt may have filled it; or it is not on this CPU's desk.
        if let Some(address) = pool.take(&mut pinned, class) {
            return Found::Object(address);
        }
        // The first round on top of a full stack may be marked as well.
        for refilled in [false, true] {
            if refilled && let Some(address) = self.refill(&mut pinned, pool, class) {
                return Found::Object(address);
            }
            if C::SAMPLED
                && let Some((address, token)) = pool.take_marked(&mut pinned, class)
            {
                return Found::Marked(address, token);
            }
        }
        Found::NoSlot(pool.node())
    }

    /// An object from the slabs of one node.
    fn find_on(&self, node: NodeId, class: SizeClass) -> Found {
        let Some(cache) = self.cache(node, class) else { return Found::NoSlot(node) };
        let mut found = None;
        match self.with_access(|access| cache.take(access, 1, Taker::NOBODY, |address| found = Some(address))) {
            Err(Busy) => Found::WouldBlock,
            Ok(_) => found.map_or(Found::NoSlot(node), Found::Object),
        }
    }

    /// An object from the slabs of one node, if there is a free slot.
    pub(crate) fn slot_at(&self, node: NodeId, class: SizeClass) -> Option<Result<usize, AllocError>> {
        match self.find_on(node, class) {
            Found::NoSlot(_) => None,
            found => Some(self.found(class, found).map(Lent::address)),
        }
    }

    /// An object from the slabs of any node, or one that other CPUs have put into a depot.
    fn find_anywhere(&self, class: SizeClass) -> Found {
        let mut last = Found::NoSlot(NodeId::ZERO);
        for node in self.nodes() {
            match self.find_on(node, class) {
                Found::NoSlot(_) => {}
                found @ (Found::Object(_) | Found::Marked(..)) => return found,
                Found::WouldBlock => last = Found::WouldBlock,
            }
            let mut one = [0];
            let depot = self.depot(node);
            if depot.is_some_and(|depot| self.with_access(|access| Ok(depot.drain(access, class, &mut one))) == Ok(1)) {
                return Found::Object(one[0]);
            }
        }
        last
    }

    /// Brings rounds into the pool, and answers one of them.
    fn refill(&self, pinned: &mut Pinned<P>, pool: &ObjectPool, class: SizeClass) -> Option<usize> {
        let count = pool.refill_count(pinned, class, &self.deep);
        // Out of order are the slots of one refill: the more they are, the less is known of them.
        let count = if C::HARDENED { class.batch() } else { count };
        let (depot, cache) = (self.depot(pool.node())?, self.cache(pool.node(), class)?);
        pool.stacks.refill(class, count, |batch| {
            let cpu = pinned.cpu().index();
            let mut taken = depot.take(pinned, cpu, class, batch);
            if taken == 0 {
                // From the back, so that the lowest address is lent first.
                let mut place = batch.len();
                let slots = cache.take(Access::Wait(pinned), place, Taker::cpu(cpu), |address| {
                    place -= 1;
                    batch[place] = address;
                });
                taken = slots.unwrap_or(0);
                batch.copy_within(place.., 0);
            }
            if C::HARDENED {
                self.shuffle(pinned, &mut batch[..taken]);
            }
            taken
        });
        self.charge_refill(pinned, pool, class);
        pool.take(pinned, class)
    }

    /// Adds a slab of `class`, on `node` if that has frames; answers on which. Nothing is held.
    pub(crate) fn grow_cache(&self, class: SizeClass, node: NodeId) -> Result<NodeId, AllocError> {
        let shape = Shape::of::<C>(class);
        let slab = self.new_slab(shape, Contents::Class(class), 0, node)?;
        if C::HARDENED {
            self.poison_slab(slab.start(), shape.bytes);
        }
        let on = slab.node();
        let added = self.with_access(|access| self.cache(on, class).ok_or(Busy)?.add(access, slab));
        if added.is_err() {
            self.dissolve(slab, shape);
            return Err(AllocError::WouldBlock);
        }
        Ok(on)
    }

    /// A slab that no cache has yet, on `node` if that has frames. Its first slot is `skip` bytes from its start.
    /// Nothing is held.
    pub(crate) fn new_slab(
        &self,
        shape: Shape,
        contents: Contents,
        skip: usize,
        node: NodeId,
    ) -> Result<&'m Slab<'m>, AllocError> {
        let slab = self.descriptor(shape.slots)?;
        let block = match self.frames_for(node, FrameCount::new(shape.bytes / C::FRAME_BYTES), shape.bytes) {
            Ok(block) => block,
            Err(error) => {
                self.give_descriptor(shape.slots, slab);
                return Err(error);
            }
        };
        let span = block.into_raw();
        self.frames.hold_slab(span);
        let on = self.frames.node_of(span.start()).unwrap_or_default();
        let start = self.address_of(span);
        slab.describe(start + skip, contents, on, shape.slots);
        for unit in 0..shape.bytes / C::SLAB_BYTES {
            self.enter(start + unit * C::SLAB_BYTES, Some(slab));
        }
        Ok(slab)
    }

    /// Runs `work` with the right to wait for locks if this context has it, else trying for as long as it may.
    pub(crate) fn with_access<R>(&self, mut work: impl FnMut(Access<'_, P>) -> Result<R, Busy>) -> Result<R, Busy> {
        if let Some(pinned) = P::pin() {
            return work(Access::Wait(&pinned));
        }
        let tries = if P::context() == Context::Nmi { 1 } else { TRIES };
        (0..tries).find_map(|_| work(Access::Try).ok()).ok_or(Busy)
    }

    /// Says which slab an aligned stretch of the span belongs to.
    pub(super) fn enter(&self, address: usize, slab: Option<&'m Slab<'m>>) {
        let offset = address.wrapping_sub(self.window.base());
        if let Some(place) = self.directory.slice().get(offset / C::SLAB_BYTES) {
            place.set(slab);
        }
        if let Some(place) = self.briefs.slice().get(offset / C::SLAB_BYTES) {
            // Relaxed: whoever frees an object of the slab has it from somebody who had it after this.
            place.store(slab.map_or(0, Slab::brief), Ordering::Relaxed);
        }
    }

    /// The address of a span's first byte.
    pub(crate) fn address_of(&self, span: FrameSpan) -> usize {
        self.window.base().wrapping_add(span.start().number() * C::FRAME_BYTES)
    }

    /// Frames at a multiple of `align_bytes`, on `node` if that has them.
    pub(crate) fn frames_for(
        &self,
        node: NodeId,
        count: FrameCount,
        align_bytes: usize,
    ) -> Result<FrameRange, AllocError> {
        self.away_from_null(|| self.frames_from(node, count, align_bytes))
    }

    /// What `take` takes, but not at the address 0, which no pointer to an object has. The frame there is left lent to
    /// nobody, so that it does not come again.
    pub(crate) fn away_from_null(
        &self,
        take: impl Fn() -> Result<FrameRange, AllocError>,
    ) -> Result<FrameRange, AllocError> {
        let mut frames = take()?;
        if self.address_of(frames.span()) == 0 {
            let span = frames.into_raw();
            let one = FrameCount::new(1);
            if span.count() > one {
                let freed = self.frames.free_raw(span.start() + one, span.count() - one);
                debug_assert_eq!(freed, Ok(()));
            }
            frames = take()?;
        }
        self.tell_taken(frames.span());
        Ok(frames)
    }

    /// How frames are asked for. Who may reclaim asks CPUs for idle ones in [`serve`](Self::serve), once a request;
    /// others do not.
    pub(crate) fn frame_flags(&self) -> AllocFlags {
        let atomic = P::context() != Context::Task;
        if atomic { AllocFlags::TRY | AllocFlags::ATOMIC } else { AllocFlags::TRY }
    }

    fn frames_from(&self, node: NodeId, count: FrameCount, align_bytes: usize) -> Result<FrameRange, AllocError> {
        let flags = self.frame_flags();
        // What is longer than an arena is no block, but may be a run of them.
        if let Some(order) = Order::new(count.get().ilog2()).filter(|order| order.count() == count)
            && order.index() as u32 <= C::ARENA_ORDER
            && align_bytes <= count.get() * C::FRAME_BYTES
            && (!C::NUMA || self.is_here(node))
        {
            let (head, order) = self.frames.alloc(order, flags)?.into_raw();
            let span = FrameSpan::new(head, order.count()).map_err(|_| AllocError::Impossible)?;
            if span.end() <= self.end() {
                return Ok(FrameRange::from_raw(span));
            }
            // The frames reach further than this heap: it asks for one of its own.
            let freed = self.frames.free_raw(span.start(), span.count());
            debug_assert_eq!(freed, Ok(()));
        }
        let policy = if C::NUMA { Policy::Preferred(node) } else { Policy::Local };
        let align = (align_bytes / C::FRAME_BYTES).max(1);
        self.frames.alloc_range(&Request::frames(count).aligned(align).flags(flags).policy(policy).below(self.end()))
    }

    /// The first frame beyond the heap's span.
    pub(crate) fn end(&self) -> Pfn {
        Pfn::new(self.span_bytes.get() / C::FRAME_BYTES)
    }

    /// Whether the caller's CPU is on `node`.
    fn is_here(&self, node: NodeId) -> bool {
        P::pin().is_some_and(|pinned| self.pools.mine(&pinned).is_some_and(|pool| pool.node() == node))
    }

    /// A descriptor for a slab of so many slots; more are made if there are none.
    fn descriptor(&self, slots: u32) -> Result<&'m Slab<'m>, AllocError> {
        for _ in 0..8 {
            match self.with_access(|access| self.store.take(access, slots)) {
                Ok(Some(slab)) => return Ok(slab),
                Ok(None) => {}
                Err(Busy) => return Err(AllocError::WouldBlock),
            }
            let chunk = SlabStore::<P>::chunk_bytes(slots, Self::MARKS_IN_SLABS, C::FRAME_BYTES);
            if self.make_descriptors(slots, || self.describe(chunk))? {
                continue;
            }
            let all = self.frames.zones().map(|zone| zone.managed().get()).sum();
            let [run, least] = SlabStore::<P>::run_frames::<C>(slots, Self::MARKS_IN_SLABS, all);
            let take = |count| self.frames_for(NodeId::ZERO, FrameCount::new(count), count * C::FRAME_BYTES);
            let mut frames = Some(take(run).or_else(|_| take(least))?);
            let made = self
                .make_descriptors(slots, || frames.take().map(|frames| self.window.metadata(frames, C::FRAME_BYTES)));
            if let Some(frames) = frames {
                let freed = self.frames.free_range(frames);
                debug_assert_eq!(freed, Ok(()));
            }
            made?;
        }
        Err(AllocError::NoMemory)
    }

    /// Makes descriptors of what the last run of frames has left, else of the one that `take` gives; answers whether
    /// there are any.
    fn make_descriptors(&self, slots: u32, mut take: impl FnMut() -> Option<Metadata<'m>>) -> Result<bool, AllocError> {
        let made =
            self.with_access(|access| self.store.add(access, slots, Self::MARKS_IN_SLABS, C::FRAME_BYTES, &mut take));
        made.map_err(|Busy| AllocError::WouldBlock)
    }

    pub(super) fn give_descriptor(&self, slots: u32, slab: &'m Slab<'m>) {
        // Who may not wait for the lock leaves it: a descriptor that is lost once in a long while is 100 bytes.
        let _ = self.with_access(|access| self.store.give(access, slots, slab));
    }
}
