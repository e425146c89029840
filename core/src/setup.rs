//! Giving an instance its memory, its nodes and its CPUs, and taking ranges in and out of service.

use crate::arena::{Access, Arena, Busy};
use crate::carve::{Carver, Metadata, Plan};
use crate::config::{Config, Geometry};
use crate::error::{FreeError, SetupError};
use crate::extent;
use crate::frame::{FrameCount, FrameSpan};
use crate::frame_pool::FramePool;
use crate::frame_table::Kind;
use crate::frames::Frames;
use crate::id::{CpuId, NodeId};
use crate::kind::ZoneKind;
use crate::node::Nodes;
use crate::platform::{Context, Desk, Platform};
use crate::sync::Ordering;
use crate::zone::Watermarks;

impl<'m, P: Platform, C: Config> Frames<'m, P, C> {
    /// The bytes of metadata that [`init`](Self::init) needs for an instance of `cpus` CPUs and `nodes` nodes whose
    /// memory will all lie inside `span`: the CPUs' pools, the nodes, and a word for each GiB of the span.
    pub const fn base_metadata_size(span: FrameSpan, cpus: usize, nodes: usize) -> usize {
        let plan = Plan::new().and::<FramePool<'static, P, C>>(cpus);
        Nodes::<'static, P, C>::new_plan(span, nodes, plan).bytes()
    }

    /// The bytes of metadata that [`add_memory`](Self::add_memory) needs for `span`: 35 bits a frame, 0.11 % of 4 KiB
    /// frames, of which the buddy with its arena has 2.24 bits.
    pub const fn memory_metadata_size(span: FrameSpan) -> usize {
        extent::metadata_bytes::<P, C>(span)
    }

    /// All the metadata of an instance that manages the whole of `span` as one range.
    pub const fn metadata_size(span: FrameSpan, cpus: usize, nodes: usize) -> usize {
        Self::base_metadata_size(span, cpus, nodes).saturating_add(Self::memory_metadata_size(span))
    }

    /// Makes the instance one of `cpus` CPUs and `nodes` nodes, whose memory will lie inside `span`.
    ///
    /// Afterwards every CPU is on node 0, every other node is at distance 20, and there is no memory yet.
    ///
    /// # Errors
    /// [`SetupError::State`] if it is initialised already; [`SetupError::TooManyNodes`] above [`NodeId::LIMIT`] or for
    /// none; [`SetupError::MetadataTooSmall`].
    pub fn init(&self, span: FrameSpan, cpus: usize, nodes: usize, metadata: Metadata<'m>) -> Result<(), SetupError> {
        self.registered(|| {
            if self.nodes.is_ready() {
                return Err(SetupError::State);
            }
            if nodes == 0 || nodes > NodeId::LIMIT {
                return Err(SetupError::TooManyNodes(NodeId::new(nodes as u32).unwrap_or_default()));
            }
            let mut carver = Carver::new(metadata, Self::base_metadata_size(span, cpus, nodes))?;
            let pools = carver.zeros::<FramePool<'m, P, C>>(cpus);
            self.nodes.init(span, nodes, &mut carver);
            self.pools.set(pools);
            Ok(())
        })
    }

    /// Adds `span` as memory of `kind` on `node`, all but the frames of `reserved`, which may overlap one another and
    /// reach beyond.
    ///
    /// May be called any number of times, in any order of addresses, while the instance serves; holes are what no call
    /// has added. Frames inside `reserved` can be [released](Self::release) later.
    ///
    /// # Errors
    /// [`SetupError::Overlap`] with what is managed already, [`SetupError::OutsideSpan`], [`SetupError::NoSuchNode`],
    /// [`SetupError::MetadataTooSmall`], [`SetupError::State`] before [`init`](Self::init). Nothing is added then.
    pub fn add_memory(
        &self,
        node: NodeId,
        kind: ZoneKind,
        span: FrameSpan,
        reserved: &[FrameSpan],
        metadata: Metadata<'m>,
    ) -> Result<(), SetupError> {
        self.registered(|| self.nodes.add(node, kind, span, reserved, metadata))?;
        self.size_pools();
        // What is nearest to a CPU may have changed.
        self.drain();
        Ok(())
    }

    /// Lets each CPU hold a 64th of its share of memory, so that the pools of a small machine are not most of it.
    fn size_pools(&self) {
        let managed: usize = self.zones().map(|zone| zone.managed().get()).sum();
        let share = managed / (64 * self.pools.all().len().max(1));
        let limit = share.min(C::POOL_FRAMES as usize) as u32;
        self.pool_limit.store(limit, Ordering::Relaxed);
    }

    /// Says how far `to` is from `from`, as a SLIT does: 10 is local.
    ///
    /// # Errors
    /// [`SetupError::BadDistance`] below 10 or for 10 between two nodes, [`SetupError::NoSuchNode`].
    pub fn set_distance(&self, from: NodeId, to: NodeId, distance: u8) -> Result<(), SetupError> {
        self.registered(|| self.nodes.set_distance(from, to, distance))
    }

    /// Sets a node's share under [`Policy::WeightedInterleave`](crate::Policy::WeightedInterleave), at least 1.
    ///
    /// # Errors
    /// [`SetupError::NoSuchNode`].
    pub fn set_weight(&self, node: NodeId, weight: u32) -> Result<(), SetupError> {
        self.nodes.set_weight(node, weight)
    }

    /// Says which node a CPU is on.
    ///
    /// # Errors
    /// [`SetupError::TooManyCpus`], [`SetupError::NoSuchNode`].
    pub fn set_cpu_node(&self, cpu: CpuId, node: NodeId) -> Result<(), SetupError> {
        let pool = self.pools.all().get(cpu.index()).ok_or(SetupError::TooManyCpus(cpu))?;
        self.nodes.get(node).ok_or(SetupError::NoSuchNode(node))?;
        pool.set_node(node);
        self.drain();
        Ok(())
    }

    /// Gives every zone the watermarks and the protection from higher requests that Linux would. Call it again after
    /// adding memory; without it all marks are zero and the last frame can be had by anyone.
    pub fn set_default_watermarks(&self) {
        self.nodes.set_linux_watermarks();
    }

    /// Sets the watermarks of one zone.
    ///
    /// # Errors
    /// [`SetupError::NoSuchNode`].
    pub fn set_watermarks(&self, node: NodeId, kind: ZoneKind, marks: Watermarks) -> Result<(), SetupError> {
        self.nodes.get(node).ok_or(SetupError::NoSuchNode(node))?.zone(kind).set_watermarks(marks);
        Ok(())
    }

    /// Calls `hook` with the node whenever a request found it below its low mark: time to wake background reclaim.
    /// Called in task context only, with nothing held; it may allocate.
    pub fn set_low_hook(&self, hook: &'m fn(NodeId)) {
        self.on_low.set(Some(hook));
    }

    /// Calls `hook` with every refused free, before the error is returned: a kernel's report line.
    pub fn set_fault_hook(&self, hook: &'m fn(FreeError)) {
        self.on_fault.set(Some(hook));
    }

    /// Takes free frames by name for good: firmware tables found late, bad memory.
    ///
    /// # Errors
    /// [`SetupError::NotFree`] or [`SetupError::NotManaged`] with the first such frame; nothing is reserved then.
    pub fn reserve(&self, span: FrameSpan) -> Result<(), SetupError> {
        // What lies idle in a pool is free as well.
        self.drain();
        self.registered(|| {
            let pinned = P::pin();
            let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
            for (arena, part) in self.parts(span) {
                let failed = match arena.map(|arena| arena.reserve(access, indexes(arena, part))) {
                    Some(Ok(Ok(()))) => continue,
                    Some(Ok(Err(pfn))) => SetupError::NotFree(pfn),
                    Some(Err(Busy)) => SetupError::NotFree(part.start()),
                    None => SetupError::NotManaged(part.start()),
                };
                if let Ok(before) = FrameSpan::new(span.start(), part.start() - span.start()) {
                    self.release_parts(access, before);
                }
                return Err(failed);
            }
            Ok(())
        })
    }

    /// Brings reserved frames into service: a boot image that is no longer needed.
    ///
    /// # Errors
    /// [`SetupError::NotReserved`] or [`SetupError::NotManaged`] with the first such frame; nothing is released then.
    pub fn release(&self, span: FrameSpan) -> Result<(), SetupError> {
        self.registered(|| {
            let pinned = P::pin();
            let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
            for (arena, part) in self.parts(span) {
                let arena = arena.ok_or(SetupError::NotManaged(part.start()))?;
                if let Some(pfn) = arena.first_other(indexes(arena, part), Kind::Reserved) {
                    return Err(SetupError::NotReserved(pfn));
                }
            }
            self.release_parts(access, span);
            Ok(())
        })
    }

    fn release_parts(&self, access: Access<'_, P>, span: FrameSpan) {
        for (arena, part) in self.parts(span) {
            let released = arena.map(|arena| arena.release(access, indexes(arena, part)));
            debug_assert_eq!(released, Some(Ok(())));
        }
    }

    /// Takes a range out of service. What is free goes at once and is not lent again; what is lent goes when it is
    /// freed.
    ///
    /// Call it again until it succeeds; [`online`](Self::online) gives up and brings everything back. Reserved frames
    /// of the range stay reserved.
    ///
    /// # Errors
    /// [`SetupError::StillLent`] with how many frames are left, [`SetupError::Busy`] if another range of the same arena
    /// is on its way, [`SetupError::NotManaged`].
    pub fn offline(&self, span: FrameSpan) -> Result<(), SetupError> {
        self.retire(span)?;
        // Those in pools come home now, or when their CPUs next look.
        self.drain();
        match self.retire(span)? {
            0 => Ok(()),
            left => Err(SetupError::StillLent(FrameCount::new(left))),
        }
    }

    fn retire(&self, span: FrameSpan) -> Result<usize, SetupError> {
        self.registered(|| {
            let pinned = P::pin();
            let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
            // All of it may go, or nothing goes. Under the registry lock no other range starts to leave meanwhile.
            self.managed(span)?;
            for (arena, part) in self.parts(span) {
                let other = arena.map(|arena| arena.leaving_besides(access, &indexes(arena, part)));
                if let Some(Ok(Some(other))) = other {
                    return Err(SetupError::Busy(other));
                }
            }
            let mut left = 0;
            for (arena, part) in self.parts(span) {
                let retired = arena.map_or(Ok(0), |arena| arena.retire(access, indexes(arena, part)));
                left += retired.map_or(part.count().get(), |left| left as usize);
            }
            Ok(left)
        })
    }

    /// Whether every frame of the range is managed.
    fn managed(&self, span: FrameSpan) -> Result<(), SetupError> {
        let hole = self.parts(span).find(|(arena, _)| arena.is_none());
        hole.map_or(Ok(()), |(_, part)| Err(SetupError::NotManaged(part.start())))
    }

    /// Brings the offline frames of a range back into service, and ends its way out if it was still on it.
    ///
    /// # Errors
    /// [`SetupError::NotOffline`] if no frame of it was offline, [`SetupError::NotManaged`].
    pub fn online(&self, span: FrameSpan) -> Result<(), SetupError> {
        self.registered(|| {
            let pinned = P::pin();
            let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
            self.managed(span)?;
            let mut back = 0;
            for (arena, part) in self.parts(span) {
                back += arena.map_or(0, |arena| arena.bring_back(access, indexes(arena, part)).unwrap_or(0));
            }
            if back == 0 { Err(SetupError::NotOffline(span.start())) } else { Ok(()) }
        })
    }

    /// Runs `work` as the only one that changes what memory there is.
    fn registered<R>(&self, work: impl FnOnce() -> Result<R, SetupError>) -> Result<R, SetupError> {
        // Not with a pin in hand: the lock is held for long, and `work` pins for the steps that need it.
        loop {
            if let Some(_guard) = self.registry.try_lock() {
                return work();
            }
            if P::context() != Context::Task {
                return Err(SetupError::WouldBlock);
            }
            core::hint::spin_loop();
        }
    }

    /// A range, arena by arena; `None` where no arena manages it, frame by frame.
    pub(crate) fn parts(&self, span: FrameSpan) -> impl Iterator<Item = (Option<&'m Arena<'m, P, C>>, FrameSpan)> {
        let mut next = span.start();
        core::iter::from_fn(move || {
            let rest = FrameSpan::new(next, FrameCount::new(span.end().number().checked_sub(next.number())?)).ok()?;
            let arena = self.nodes.arena_of(next);
            let part = match arena {
                Some(arena) => arena.span().intersection(rest)?,
                None => FrameSpan::new(next, FrameCount::new(1)).ok()?,
            };
            next = part.end();
            Some((arena, part))
        })
    }
}

impl<P: Platform, C: Config> Frames<'static, P, C> {
    /// Lays the calling CPU's pool on its desk, where the [`Platform`] has desks: from now on the fast path needs no
    /// look at the CPU's number. To be called once on each CPU, for the instance that is to be fastest there; others
    /// work as before. `false` if the instance has no pool for this CPU, or this context has interrupted the allocator.
    pub fn settle(&'static self) -> bool {
        P::pin().is_some_and(|pinned| self.pools.settle::<{ Desk::FRAMES }, P>(&pinned))
    }
}

/// The indexes of a part of an arena.
fn indexes<P: Platform, C: Config>(arena: &Arena<'_, P, C>, part: FrameSpan) -> core::ops::Range<u32> {
    let start = arena.index(part.start());
    start..start + part.count().get() as u32
}

// An arena's indexes fit 32 bits.
const _: () = assert!(Geometry::<crate::config::Checked>::ARENA_FRAMES <= u32::MAX as usize);
