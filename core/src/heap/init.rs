//! Giving a heap its metadata.

use super::Heap;
use crate::cache::Cache;
use crate::carve::{Carver, Metadata, Plan};
use crate::config::Config;
use crate::depot::{Depot, MAX_SHARDS};
use crate::error::{BadFree, SetupError};
use crate::frame::FrameSpan;
use crate::harden::Hardening;
use crate::id::{CpuId, NodeId};
use crate::platform::{Desk, Platform};
use crate::pool::ObjectPool;
use crate::shadow::Shadow;
use crate::size_class::SizeClass;
use crate::slab::{Shape, Slab};
use crate::sync::{AtomicU32, Publish};

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// The bytes of metadata that [`init`](Self::init) needs for `cpus` CPUs and `nodes` nodes, for objects in the
    /// frames from 0 to the end of `span`: the CPUs' pools (56 KiB each), the depots, and a word for each 32 KiB. Half as
    /// many bytes again with [linear marks](Config::LINEAR_SHADOW), beside the marks; and at
    /// [`Hardened`](crate::Hardened) the CPUs' quarantines (2 KiB each).
    ///
    /// What describes slabs comes out of the frames themselves as slabs are made.
    pub const fn metadata_size(span: FrameSpan, cpus: usize, nodes: usize) -> usize {
        let plan = Plan::new()
            .and::<Publish<'static, Slab<'static>>>(Self::directory_len(span))
            .and::<ObjectPool>(cpus)
            .and::<Cache<'static, P>>(nodes.saturating_mul(SizeClass::COUNT))
            .and::<Depot<'static, P>>(nodes)
            .and::<AtomicU32>(Self::briefs_len(span));
        let bytes = span.end().number().saturating_mul(C::FRAME_BYTES);
        let mut plan = if Self::SHADOWED { Shadow::plan(plan, bytes) } else { plan };
        let mut node = 0;
        while node < nodes {
            plan = Depot::<'static, P>::plan::<C>(plan, Self::shards(cpus));
            node += 1;
        }
        if C::HARDENED {
            plan = Hardening::plan::<C>(plan, cpus);
        }
        plan.bytes()
    }

    pub(super) const SHADOWED: bool = C::CHECKED && C::LINEAR_SHADOW;

    pub(super) const fn directory_len(span: FrameSpan) -> usize {
        span.end().number().saturating_mul(C::FRAME_BYTES).div_ceil(C::SLAB_BYTES)
    }

    /// Entries of what is to be known of each of these at once.
    pub(super) const fn briefs_len(span: FrameSpan) -> usize {
        if Self::KEEPS_BRIEFS { Self::directory_len(span) } else { 0 }
    }

    /// Shards of each node's depot.
    const fn shards(cpus: usize) -> usize {
        if cpus < MAX_SHARDS { cpus } else { MAX_SHARDS }
    }

    /// Makes this the heap of a machine with `cpus` CPUs and `nodes` nodes, as its [`Frames`](crate::Frames) was told.
    pub(crate) fn init_state(
        &self,
        base: usize,
        span: FrameSpan,
        cpus: usize,
        nodes: usize,
        metadata: Metadata<'m>,
        open: impl FnOnce(),
    ) -> Result<(), SetupError> {
        let Some(pinned) = P::pin() else { return Err(SetupError::WouldBlock) };
        let _held = self.registry.lock(&pinned);
        if !self.caches.slice().is_empty() {
            return Err(SetupError::State);
        }
        // What is aligned among frames must be aligned in memory.
        let needed_bytes = SizeClass::all().map(|class| Shape::of::<C>(class).bytes).max().unwrap_or(0);
        if !base.is_multiple_of(needed_bytes) {
            return Err(SetupError::BaseMisaligned { needed_bytes });
        }
        if nodes == 0 || nodes > NodeId::LIMIT {
            return Err(SetupError::TooManyNodes(NodeId::new(nodes as u32).unwrap_or_default()));
        }
        let metadata_at = metadata.address();
        let mut carver = Carver::new(metadata, Self::metadata_size(span, cpus, nodes))?;
        let directory = carver.zeros::<Publish<_>>(Self::directory_len(span));
        let pools = carver.zeros::<ObjectPool>(cpus);
        if Self::SHADOWED {
            self.shadow.init(span.end().number().saturating_mul(C::FRAME_BYTES), &mut carver);
        }
        let briefs = carver.zeros::<AtomicU32>(Self::briefs_len(span));
        let depots = carver.slice(nodes, |_| Depot::empty());
        for depot in depots {
            depot.init::<C>(Self::shards(cpus), &mut carver);
        }
        if metadata_at.is_multiple_of(4096) {
            let parts = Self::parts(span, cpus);
            debug_assert_eq!(directory.as_ptr().addr(), metadata_at, "as `layout` says");
            debug_assert!(pools.is_empty() || pools.as_ptr().addr() == metadata_at + parts[0], "as `layout` says");
            debug_assert!(!Self::SHADOWED || self.shadow.address() == metadata_at + parts[1], "as `layout` says");
        }
        let caches = carver.slice(nodes * SizeClass::COUNT, |_| Cache::new());
        if C::HARDENED {
            self.hardening.init::<C>(cpus, base ^ metadata_at.rotate_left(20), &mut carver);
        }
        open();
        self.directory.set(directory);
        if !briefs.is_empty() {
            self.briefs.set(briefs);
        }
        self.span_bytes.set(span.end().number().saturating_mul(C::FRAME_BYTES));
        if !pools.is_empty() {
            self.pools.set(pools);
        }
        self.depots.set(depots);
        // Last, with Release: who finds the caches finds all.
        self.caches.set(caches);
        Ok(())
    }

    /// Says which node a CPU is on; at first it is node 0.
    ///
    /// # Errors
    /// [`SetupError::TooManyCpus`], [`SetupError::NoSuchNode`].
    pub fn set_cpu_node(&self, cpu: CpuId, node: NodeId) -> Result<(), SetupError> {
        let pool = self.pools.all().get(cpu.index()).ok_or(SetupError::TooManyCpus(cpu))?;
        self.depot(node).ok_or(SetupError::NoSuchNode(node))?;
        pool.set_node(node);
        Ok(())
    }

    /// Calls `hook` with every refused free, before the error is returned. It may return: the free is ignored then.
    pub fn set_fault_hook(&self, hook: &'m fn(BadFree)) {
        self.on_fault.set(Some(hook));
    }
}

impl<P: Platform, C: Config> Heap<'static, P, C> {
    /// Lays the calling CPU's object pool on its desk, where the [`Platform`] has desks: from now on the fast path
    /// needs no look at the CPU's number. To be called once on each CPU, for the heap that is to be fastest there;
    /// others work as before. `false` if the heap has no pool for this CPU, or this context has interrupted the
    /// allocator.
    pub fn settle(&'static self) -> bool {
        P::pin().is_some_and(|pinned| self.pools.settle::<{ Desk::OBJECTS }, P>(&pinned))
    }
}
