//! Which bytes of a heap's metadata are about what: for embedders that back them with memory as the heap grows.
//!
//! ```text
//!   directory │ pools │ marks of 8, of 16, …, of the largest    │ briefs    │ depots, caches
//!   of frames │ of    │ of frames, each row from frame 0 on     │ of frames │ from the start
//!             │ CPUs  │                                         │           │
//! ```

use core::ops::Range;

use super::Heap;
use crate::config::Config;
use crate::frame::FrameSpan;
use crate::id::CpuId;
use crate::platform::Platform;
use crate::pool::ObjectPool;
use crate::shadow::Shadow;
use crate::slab::Slab;
use crate::sync::{AtomicU32, Publish};

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Where the pools begin, the marks, the briefs, and what is used from the start.
    pub(super) fn parts(span: FrameSpan, cpus: usize) -> [usize; 4] {
        let directory = Self::directory_len(span) * size_of::<Publish<'static, Slab<'static>>>();
        let pools = directory.next_multiple_of(align_of::<ObjectPool>());
        let marks = pools + cpus * size_of::<ObjectPool>();
        let len = if Self::SHADOWED { Shadow::bytes(span.end().number() * C::FRAME_BYTES) } else { 0 };
        let briefs = (marks + len).next_multiple_of(align_of::<AtomicU32>());
        [pools, marks, briefs, briefs + Self::briefs_len(span) * size_of::<AtomicU32>()]
    }

    /// The bytes of metadata, as [`metadata_size`](Self::metadata_size) counts them for `span` and `cpus`, that are
    /// written once frames of `part` are lent. Of metadata that begins at a multiple of 4096. Before that they are read
    /// at most, and must read as zeros.
    pub fn metadata_of_frames(span: FrameSpan, cpus: usize, part: FrameSpan) -> impl Iterator<Item = Range<usize>> {
        let [_, marks, briefs, _] = Self::parts(span, cpus);
        let [start, end] = [part.start(), part.end()].map(|pfn| pfn.number() * C::FRAME_BYTES);
        let entry = size_of::<Publish<'static, Slab<'static>>>();
        let directory = start / C::SLAB_BYTES * entry..end.div_ceil(C::SLAB_BYTES) * entry;
        let span_bytes = span.end().number() * C::FRAME_BYTES;
        let shadow = Shadow::ranges(span_bytes, start..end).map(move |range| marks + range.start..marks + range.end);
        let size = size_of::<AtomicU32>();
        let briefs = briefs + start / C::SLAB_BYTES * size..briefs + end.div_ceil(C::SLAB_BYTES) * size;
        core::iter::once(directory)
            .chain(shadow.filter(|_| Self::SHADOWED))
            .chain(core::iter::once(briefs).filter(|_| Self::KEEPS_BRIEFS))
    }

    /// As [`metadata_of_frames`](Self::metadata_of_frames), the bytes that are written once a CPU has asked for
    /// anything.
    pub fn metadata_of_cpu(span: FrameSpan, cpu: CpuId) -> Range<usize> {
        let [pools, ..] = Self::parts(span, 0);
        let start = pools + cpu.index() * size_of::<ObjectPool>();
        start..start + size_of::<ObjectPool>()
    }

    /// As [`metadata_of_frames`](Self::metadata_of_frames), where the bytes begin that are written by
    /// [`init`](Self::init): they reach to the end.
    pub fn metadata_at_start(span: FrameSpan, cpus: usize) -> usize {
        Self::parts(span, cpus)[3]
    }
}
