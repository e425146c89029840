//! An instance of a few frames, as the models of single edges have it.

use std::sync::Arc;

use super::{Bytes, Cpus, span};
use crate::arena::Arena;
use crate::config::Config;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, FrameRange, Pfn};
use crate::frames::Frames;
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::order::Order;

/// Trees of 8 frames, arenas of 64.
pub(in super::super) struct Tiny;
impl Config for Tiny {
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// The same without words for what is lent.
pub(in super::super) struct TinyFast;
impl Config for TinyFast {
    const CHECKED: bool = false;
    const HUGE_ORDER: u32 = 3;
    const ARENA_ORDER: u32 = 6;
    const POOL_FRAMES: u32 = 4;
    const REFILL_FRAMES: u32 = 2;
    const DENSE_BELOW_FRAMES: u32 = 8;
}

/// One execution's instance, with the bytes it lives in.
pub(in super::super) struct Machine<C: Config = Tiny> {
    pub(in super::super) frames: Frames<'static, Cpus, C>,
    // After `frames`, whose metadata they are.
    _bytes: [Bytes; 2],
}

impl<C: Config> Machine<C> {
    /// A machine of `count` frames from `start` on, with pools for `cpus` CPUs.
    pub(in super::super) fn new(start: usize, count: usize, cpus: usize) -> Arc<Self> {
        let memory = span(start, count);
        let frames = Frames::<Cpus, C>::new();
        let (base, metadata) = Bytes::new(Frames::<Cpus, C>::base_metadata_size(memory, cpus, 1));
        frames.init(memory, cpus, 1, metadata).unwrap();
        let (more, metadata) = Bytes::new(Frames::<Cpus, C>::memory_metadata_size(memory));
        frames.add_memory(NodeId::ZERO, ZoneKind::Normal, memory, &[], metadata).unwrap();
        Arc::new(Self { frames, _bytes: [base, more] })
    }

    /// Takes the frames by name.
    pub(in super::super) fn hold(&self, start: usize, count: usize) -> FrameRange {
        self.frames.alloc_at(span(start, count)).unwrap()
    }

    /// Frees a frame by its number.
    pub(in super::super) fn free(&self, frame: usize) -> Result<(), crate::error::FreeError> {
        self.frames.free_raw(Pfn::new(frame), FrameCount::new(1))
    }

    /// The arena of a frame.
    pub(in super::super) fn arena(&self, frame: usize) -> &'static Arena<'static, Cpus, C> {
        self.frames.nodes.arena_of(Pfn::new(frame)).unwrap()
    }

    /// Free frames in the trees, without a lock, so that nothing is settled by looking.
    pub(in super::super) fn free_in_trees(&self) -> usize {
        self.frames.census().free
    }
}

/// One frame, lent.
pub(in super::super) fn alloc<C: Config>(machine: &Machine<C>) -> Option<usize> {
    machine.frames.alloc_raw(Order::ZERO, AllocFlags::TRY).ok().map(Pfn::number)
}
