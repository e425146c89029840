//! The frame front end: what users of frames talk to.
//!
//! A request comes down: the CPU's pool, else the nodes along its policy's route, zone by zone, arena by arena. An
//! error comes up, and only here is `NoMemory` answered: once, by giving back what lies idle in pools. Hooks are called
//! here too, after the pin is gone and with no lock held.

mod held;

use crate::arena::{Access, Busy};
use crate::config::{Checked, Config};
use crate::error::{AllocError, FreeError};
use crate::extent::Want;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};
use crate::frame_pool::FramePool;
use crate::frame_table::FrameWord;
use crate::id::NodeId;
use crate::node::{self, Miss, Nodes};
use crate::order::{Block, Order};
use crate::platform::{Context, Desk, Pinned, Platform};
use crate::policy::{Policy, Route};
use crate::sync::{AtomicU32, Lock, Ordering, PerCpu, Publish, const_fn, mutant};
use crate::zone::Mark;

/// What a request asks for beyond one block under the local policy.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    count: usize,
    align: usize,
    flags: AllocFlags,
    policy: Policy,
    below: Option<Pfn>,
}

impl Request {
    /// `count` frames in a row, at any frame.
    pub const fn frames(count: FrameCount) -> Self {
        Self { count: count.get(), align: 1, flags: AllocFlags::empty(), policy: Policy::Local, below: None }
    }

    /// One naturally aligned block.
    pub const fn block(order: Order) -> Self {
        Self { count: order.frames(), align: order.frames(), ..Self::frames(FrameCount::ZERO) }
    }

    /// The first frame's number shall be a multiple of `frames`, a power of two up to an arena's frames.
    pub const fn aligned(self, frames: usize) -> Self {
        Self { align: frames, ..self }
    }

    /// With these flags.
    pub const fn flags(self, flags: AllocFlags) -> Self {
        Self { flags, ..self }
    }

    /// Under this policy.
    pub const fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Wholly below this frame: what a device's address bits or a boot protocol demand.
    pub const fn below(self, limit: Pfn) -> Self {
        Self { below: Some(limit), ..self }
    }

    fn want(&self) -> Result<Want, AllocError> {
        if self.count == 0 || !self.align.is_power_of_two() || self.align > Order::MAX.frames() {
            return Err(AllocError::Impossible);
        }
        let align = self.align.trailing_zeros();
        Ok(Want { count: self.count, align, end: node::end(self.flags), limit: self.below })
    }
}

/// The page-frame allocator of one machine.
///
/// Made `const`, so that it can be a `static`; it has no frame until [`init`](Self::init) and
/// [`add_memory`](Self::add_memory) have given it metadata and ranges. It never touches the frames it manages: they
/// need not be mapped, nor be memory at all.
///
/// `P` is the machine it runs on, `C` the level of checking and the geometry: [`Checked`] by default,
/// [`Fast`](crate::Fast) to leave the checks to the trees.
pub struct Frames<'m, P: Platform, C: Config = Checked> {
    pub(crate) nodes: Nodes<'m, P, C>,
    pub(crate) pools: PerCpu<'m, FramePool<'m, P, C>>,
    /// Held while memory comes or goes; before every other lock.
    pub(crate) registry: Lock<P, ()>,
    /// Counts the requests to drain; a pool that has honoured fewer is asked.
    pub(crate) drain_requests: AtomicU32,
    /// The most frames that a magazine may hold on this machine.
    pub(crate) pool_limit: AtomicU32,
    pub(crate) on_low: Publish<'m, fn(NodeId)>,
    pub(crate) on_fault: Publish<'m, fn(FreeError)>,
}

impl<P: Platform, C: Config> Default for Frames<'_, P, C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'m, P: Platform, C: Config> Frames<'m, P, C> {
    const_fn! {
        /// An instance without memory.
        pub const fn new() -> Self {
            Self {
                nodes: Nodes::new(),
                pools: PerCpu::empty(),
                registry: Lock::new(()),
                drain_requests: AtomicU32::new(0),
                pool_limit: AtomicU32::new(0),
                on_low: Publish::empty(),
                on_fault: Publish::empty(),
            }
        }
    }

    /// A block of 2^order frames, from this CPU's node if it has any.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] if no zone has it above its watermark, even after idle frames were asked for;
    /// [`AllocError::WouldBlock`] from a context that interrupted the allocator and found a lock held.
    ///
    /// # Cost
    /// Order 0: some twenty plain instructions while the CPU's pool lasts, a lock once in 64 and more calls.
    #[inline]
    pub fn alloc(&self, order: Order, flags: AllocFlags) -> Result<Block, AllocError> {
        match self.take_pooled(order, flags) {
            Some(pfn) => Ok(Block::new(pfn, order)),
            None => self.alloc_slow(order, flags),
        }
    }

    /// As [`alloc`](Self::alloc), for embedders that keep their own types.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    #[inline]
    pub fn alloc_raw(&self, order: Order, flags: AllocFlags) -> Result<Pfn, AllocError> {
        self.alloc(order, flags).map(|block| block.into_raw().0)
    }

    #[inline(always)]
    fn take_pooled(&self, order: Order, flags: AllocFlags) -> Option<Pfn> {
        if flags.intersects(BYPASS) {
            return None;
        }
        let (pool, mut pinned) =
            if P::HAS_DESKS { self.pools.at_desk::<{ Desk::FRAMES }, P, C>()? } else { self.my_pool()? };
        let pfn = pool.take(&mut pinned, &self.nodes, order, flags.contains(AllocFlags::MOVABLE))?;
        // Here, so that nobody asks afterwards which way it went.
        drop(pinned);
        Some(pfn)
    }

    #[inline(always)]
    fn take_by_number(&self, order: Order, movable: bool) -> Option<Pfn> {
        let (pool, mut pinned) = self.my_pool()?;
        pool.take(&mut pinned, &self.nodes, order, movable)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, order: Order, flags: AllocFlags) -> Result<Block, AllocError> {
        if order.index() as u32 > C::ARENA_ORDER {
            return Err(AllocError::Impossible);
        }
        // Where there are desks, another instance's pool may lie on this one.
        if P::HAS_DESKS
            && !flags.intersects(BYPASS)
            && let Some(pfn) = self.take_by_number(order, flags.contains(AllocFlags::MOVABLE))
        {
            return Ok(Block::new(pfn, order));
        }
        if let Some(pfn) = self.refill_and_take(order, flags) {
            return Ok(Block::new(pfn, order));
        }
        let pfn = self.alloc_frames(&Request::block(order).flags(flags))?;
        Ok(Block::new(pfn, order))
    }

    /// What the CPU's pool can serve once it has been filled.
    fn refill_and_take(&self, order: Order, flags: AllocFlags) -> Option<Pfn> {
        if flags.intersects(BYPASS) {
            return None;
        }
        let mut pinned = P::pin()?;
        let pool = self.pools.mine(&pinned)?;
        if pool.is_asked(&self.drain_requests) {
            pool.honour(&mut pinned, &self.nodes, &self.drain_requests);
        }
        let limit = self.pool_limit.load(Ordering::Relaxed);
        let movable = flags.contains(AllocFlags::MOVABLE);
        // Since the magazine was found empty an interrupt may have filled it: a refill on top would not fit.
        if let Some(pfn) = pool.take(&mut pinned, &self.nodes, order, movable) {
            return Some(pfn);
        }
        if order == Order::ZERO {
            let filled = pool.refill(&mut pinned, &self.nodes, flags, limit);
            return filled.then(|| pool.take(&mut pinned, &self.nodes, order, movable)).flatten();
        }
        if !movable && pool.refill_blocks(&mut pinned, &self.nodes, order, limit) {
            return pool.take(&mut pinned, &self.nodes, order, movable);
        }
        pool.take_direct(&mut pinned, &self.nodes, order, flags)
    }

    /// Frames as requested: any count, alignment, policy and limit.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), and [`AllocError::Impossible`] for no frames or an alignment that is no power of two
    /// or larger than an arena.
    pub fn alloc_range(&self, request: &Request) -> Result<FrameRange, AllocError> {
        let start = self.alloc_frames(request)?;
        match FrameSpan::new(start, FrameCount::new(request.count)) {
            Ok(span) => Ok(FrameRange::from_raw(span)),
            Err(_) => Err(AllocError::Impossible),
        }
    }

    fn alloc_frames(&self, request: &Request) -> Result<Pfn, AllocError> {
        let want = request.want()?;
        if !self.nodes.is_ready() {
            return Err(AllocError::NotReady);
        }
        let first = self.try_frames(&want, request);
        let (Err(Miss::Empty), Context::Task, false) = (&first, P::context(), request.flags.contains(AllocFlags::TRY))
        else {
            return first.map_err(alloc_error);
        };
        self.drain();
        self.try_frames(&want, request).map_err(alloc_error)
    }

    /// One walk along the route: first leaving every zone comfortable, then down to the reserve, then into it.
    fn try_frames(&self, want: &Want, request: &Request) -> Result<Pfn, Miss> {
        // Before the claim, which may be what a platform tells a handler by.
        let atomic = request.flags.contains(AllocFlags::ATOMIC) || P::context() != Context::Task;
        let pinned = P::pin();
        let (local, turn) = self.whereabouts(pinned);
        let route = Route::of(&self.nodes, request.policy, local, turn).ok_or(Miss::Empty)?;
        let mut low = false;
        let mut found = Err(Miss::Empty);
        for mark in [Mark::Low, Mark::Min, Mark::Atomic] {
            if mark == Mark::Atomic && !atomic {
                break;
            }
            found = self.walk(want, request.flags, mark, &route);
            if found != Err(Miss::Empty) {
                break;
            }
            low = true;
        }
        if let Ok((_, from)) = found {
            self.nodes.count(&route, from, local, 1);
        }
        self.tell(low.then_some(route.first));
        found.map(|(pfn, _)| pfn)
    }

    fn walk(&self, want: &Want, flags: AllocFlags, mark: Mark, route: &Route) -> Result<(Pfn, NodeId), Miss> {
        let pinned = P::pin();
        let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
        let near = self.nodes.take(access, want, flags, mark, route);
        if near == Err(Miss::Empty) && route.then_any {
            return self.nodes.take(access, want, flags, mark, &Route::near(route.first));
        }
        near
    }

    /// The caller's node, and its turn under an interleaving policy.
    fn whereabouts(&self, pinned: Option<Pinned<P>>) -> (NodeId, u32) {
        let Some(mut pinned) = pinned else { return (NodeId::ZERO, 0) };
        match self.pools.mine(&pinned) {
            Some(pool) => (pool.node(), pool.next_turn(&mut pinned)),
            None => (NodeId::ZERO, 0),
        }
    }

    /// Exactly these frames.
    ///
    /// # Errors
    /// [`AllocError::NoMemory`] if any of them is not free; then none is taken.
    pub fn alloc_at(&self, span: FrameSpan) -> Result<FrameRange, AllocError> {
        if !self.nodes.is_ready() {
            return Err(AllocError::NotReady);
        }
        match self.take_at(span) {
            Ok(()) => Ok(FrameRange::from_raw(span)),
            Err(Miss::Busy) => Err(AllocError::WouldBlock),
            Err(Miss::Empty) => {
                // Some of them may lie idle in a pool.
                self.drain();
                self.take_at(span).map(|()| FrameRange::from_raw(span)).map_err(alloc_error)
            }
        }
    }

    fn take_at(&self, span: FrameSpan) -> Result<(), Miss> {
        let pinned = P::pin();
        let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
        for (arena, part) in self.parts(span) {
            let taken = arena.map(|arena| arena.take_at(access, arena.index(part.start()), part.count().get() as u32));
            let miss = match taken {
                Some(Ok(Ok(()))) => continue,
                Some(Err(Busy)) => Miss::Busy,
                _ => Miss::Empty,
            };
            if let Ok(before) = FrameSpan::new(span.start(), part.start() - span.start()) {
                let undone = self.free_span(before);
                debug_assert_eq!(undone, Ok(()));
            }
            return Err(miss);
        }
        Ok(())
    }

    /// Fills `out` with single frames; answers how many it got, which is fewer only when memory ends.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), if it got none.
    pub fn alloc_bulk(&self, flags: AllocFlags, out: &mut [Pfn]) -> Result<usize, AllocError> {
        for (filled, place) in out.iter_mut().enumerate() {
            match self.alloc(Order::ZERO, flags) {
                Ok(block) => *place = block.into_raw().0,
                Err(error) if filled == 0 => return Err(error),
                Err(_) => return Ok(filled),
            }
        }
        Ok(out.len())
    }

    /// Gives single frames back.
    ///
    /// # Errors
    /// The first frame that was refused, with its place in `frames`; those before it are freed, those after it are not.
    pub fn free_bulk(&self, frames: &[Pfn]) -> Result<(), (usize, FreeError)> {
        for (place, &pfn) in frames.iter().enumerate() {
            self.free_raw(pfn, FrameCount::new(1)).map_err(|error| (place, error))?;
        }
        Ok(())
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// See [`FreeError`]. At [`Fast`](crate::Fast) a single frame that is not lent is found out only when it reaches
    /// its tree, and reported to the fault hook.
    ///
    /// # Cost
    /// Order 0: some twenty plain instructions if its tree is dense, a few more if not, a lock once in some tens of
    /// calls.
    #[inline]
    pub fn free(&self, block: Block) -> Result<(), FreeError> {
        let (head, order) = block.into_raw();
        if order == Order::ZERO && self.put_single(head) {
            return Ok(());
        }
        self.take_back(head, order)
    }

    /// Gives any part of what is lent back, in any split.
    ///
    /// # Errors
    /// See [`FreeError`]; of a refused range nothing is freed.
    #[inline]
    pub fn free_range(&self, range: FrameRange) -> Result<(), FreeError> {
        let span = range.into_raw();
        self.free_raw(span.start(), span.count())
    }

    /// As [`free_range`](Self::free_range), for embedders that keep their own types.
    ///
    /// # Errors
    /// As [`free_range`](Self::free_range).
    #[inline]
    pub fn free_raw(&self, start: Pfn, count: FrameCount) -> Result<(), FreeError> {
        if count.get() == 1 {
            return if self.put_single(start) { Ok(()) } else { self.take_back(start, Order::ZERO) };
        }
        let Ok(span) = FrameSpan::new(start, count) else { return self.fault(Err(FreeError::Misaligned(start))) };
        self.fault(self.free_span(span))
    }

    /// Gives a single frame to this CPU's pool, if it takes it.
    #[inline(always)]
    fn put_single(&self, pfn: Pfn) -> bool {
        let mine = if P::HAS_DESKS { self.pools.at_desk::<{ Desk::FRAMES }, P, C>() } else { self.my_pool() };
        let Some((pool, mut pinned)) = mine else { return false };
        pool.put(&mut pinned, pfn) || self.put_rest(pool, pinned, pfn)
    }

    /// This CPU's pool by its number, and the claim to it.
    #[inline(always)]
    fn my_pool(&self) -> Option<(&'m FramePool<'m, P, C>, Pinned<P>)> {
        let pinned = P::pin()?;
        Some((self.pools.mine(&pinned)?, pinned))
    }

    /// The rest of [`put_single`](Self::put_single); the claim comes along by value, so that it stays in registers
    /// there.
    #[inline(never)]
    fn put_rest(&self, pool: &FramePool<'m, P, C>, mut pinned: Pinned<P>, pfn: Pfn) -> bool {
        !pool.is_asked(&self.drain_requests) && pool.put_single(&mut pinned, &self.nodes, pfn)
    }

    /// Gives a block to this CPU's pool if it takes it, else to the trees.
    #[inline(never)]
    fn take_back(&self, head: Pfn, order: Order) -> Result<(), FreeError> {
        if self.put_any(head, order) {
            return Ok(());
        }
        let freed = match FrameSpan::new(head, order.count()) {
            Ok(span) => self.free_span(span),
            Err(_) => Err(FreeError::Misaligned(head)),
        };
        self.fault(freed)
    }

    #[inline(always)]
    fn put_any(&self, head: Pfn, order: Order) -> bool {
        let Some((pool, mut pinned)) = self.my_pool() else { return false };
        if pool.is_asked(&self.drain_requests) {
            return false;
        }
        match order {
            Order::ZERO => pool.put(&mut pinned, head) || pool.put_single(&mut pinned, &self.nodes, head),
            _ => pool.put_block(&mut pinned, &self.nodes, head, order),
        }
    }

    fn free_span(&self, span: FrameSpan) -> Result<(), FreeError> {
        match P::pin() {
            Some(mut pinned) => {
                self.honour(&mut pinned);
                self.free_pinned(&pinned, span)
            }
            None => self.free_interrupting(span),
        }
    }

    /// Frees a range with the locks of all its arenas held, so that it is freed whole or not at all.
    ///
    /// A range over more arenas than the stack should hold guards of is looked at first, arena by arena.
    fn free_pinned(&self, pinned: &Pinned<P>, span: FrameSpan) -> Result<(), FreeError> {
        if let Some(arena) = self.nodes.arena_of(span.start())
            && arena.span().covers(span)
        {
            let (index, count) = (arena.index(span.start()), span.count().get() as u32);
            let freed = arena.with(Access::Wait(pinned), |arena, state| arena.free_in(state, index, count));
            return freed.unwrap_or(Ok(()));
        }
        if self.parts(span).nth(HELD_ARENAS).is_some() {
            for (arena, part) in self.parts(span) {
                let arena = arena.ok_or(FreeError::NotManaged(part.start()))?;
                let (index, count) = (arena.index(part.start()), part.count().get() as u32);
                let checked = arena.with(Access::Wait(pinned), |arena, state| arena.check_in(state, index, count));
                checked.unwrap_or(Ok(()))?;
            }
        }
        let mut left = Some(span);
        while let Some(span) = left {
            let next = self.parts(span).nth(HELD_ARENAS - 1).map_or(span.end(), |(_, last)| last.end());
            self.free_held(pinned, span.start(), next)?;
            left = FrameSpan::new(next, span.end() - next).ok();
        }
        Ok(())
    }

    /// Checks one arena's part, then with its lock held all that follow, and frees on the way back.
    fn free_held(&self, pinned: &Pinned<P>, start: Pfn, end: Pfn) -> Result<(), FreeError> {
        let arena = self.nodes.arena_of(start).ok_or(FreeError::NotManaged(start))?;
        let part_end = end.min(arena.span().end());
        let (index, count) = (arena.index(start), (part_end - start).get() as u32);
        let freed = arena.with(Access::Wait(pinned), |arena, state| {
            if part_end == end {
                return arena.free_in(state, index, count);
            }
            arena.check_in(state, index, count)?;
            self.free_held(pinned, part_end, end)?;
            arena.free_in(state, index, count)
        });
        if mutant("word_after_unlock") && freed == Ok(Ok(())) {
            arena.table.set(index, FrameWord::FREE_AGAIN);
        }
        freed.unwrap_or(Ok(()))
    }

    /// Frees from a context that may have interrupted the holder of any lock: what cannot be freed now is left for it.
    fn free_interrupting(&self, span: FrameSpan) -> Result<(), FreeError> {
        for (arena, part) in self.parts(span) {
            let arena = arena.ok_or(FreeError::NotManaged(part.start()))?;
            let (index, count) = (arena.index(part.start()), part.count().get() as u32);
            let checked = arena.with(Access::Try, |arena, state| arena.check_in(state, index, count));
            checked.unwrap_or_else(|Busy| arena.check_words(index, count))?;
        }
        for (arena, part) in self.parts(span) {
            let arena = arena.ok_or(FreeError::NotManaged(part.start()))?;
            let (index, count) = (arena.index(part.start()), part.count().get() as u32);
            match arena.with(Access::Try, |arena, state| arena.free_in(state, index, count)) {
                Ok(freed) => freed?,
                Err(Busy) => arena.post(index, count)?,
            }
        }
        Ok(())
    }

    /// The frame's word that belongs to the embedder, if the instance has such words and manages the frame.
    pub fn embedder_word(&self, pfn: Pfn) -> Option<&core::sync::atomic::AtomicU32> {
        let arena = self.nodes.arena_of(pfn)?;
        arena.embedder_word(arena.index(pfn))
    }

    /// Gives back what lies idle: this CPU's pool now, every other CPU's when it next runs a slow path or
    /// [`poll`](Self::poll). Nobody waits for them.
    pub fn drain(&self) {
        // Release: pairs with the Acquire of `FramePool::honour`.
        self.drain_requests.fetch_add(1, Ordering::Release);
        P::kick();
        self.poll();
    }

    /// Honours what other CPUs have asked this one for. For its idle loop and its interrupt for that purpose; cheap
    /// when nothing was asked.
    pub fn poll(&self) {
        if let Some(mut pinned) = P::pin() {
            self.honour(&mut pinned);
        }
    }

    fn honour(&self, pinned: &mut Pinned<P>) {
        if let Some(pool) = self.pools.mine(pinned)
            && pool.is_asked(&self.drain_requests)
        {
            pool.honour(pinned, &self.nodes, &self.drain_requests);
        }
    }

    /// Gives back what this CPU's pool holds, and asks no other CPU: for one that goes to sleep for long, for a thread
    /// that ends.
    pub fn drain_cpu(&self) {
        let Some(mut pinned) = P::pin() else { return };
        if let Some(pool) = self.pools.mine(&pinned) {
            pool.drain(&mut pinned, &self.nodes);
        }
    }

    /// Calls the low-memory hook; nothing is held.
    fn tell(&self, low: Option<NodeId>) {
        if let (Some(node), Some(hook)) = (low, self.on_low.get())
            && P::context() == Context::Task
        {
            hook(node);
        }
    }

    /// Reports a refused free; nothing is held.
    fn fault(&self, freed: Result<(), FreeError>) -> Result<(), FreeError> {
        if let (Err(error), Some(hook)) = (freed, self.on_fault.get()) {
            hook(error);
        }
        freed
    }
}

/// Requests that a pool cannot serve: other zones than it holds.
const BYPASS: AllocFlags = AllocFlags::DMA.union(AllocFlags::DMA32).union(AllocFlags::FAR);

/// The most arena locks that are held at once.
const HELD_ARENAS: usize = 16;

fn alloc_error(miss: Miss) -> AllocError {
    match miss {
        Miss::Empty => AllocError::NoMemory,
        Miss::Busy => AllocError::WouldBlock,
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod concurrent;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
// Every step looks at every frame, which takes Miri minutes.
#[cfg(all(test, not(any(loom, shuttle, miri))))]
mod twin;
