//! Errors that tell apart who is at fault.
//!
//! No memory, try again, impossible request and caller's mistake are different things. A lost race is none of them:
//! it is retried inside.

use core::fmt;

use crate::frame::{FrameCount, FrameSpan, Pfn};
use crate::id::{CpuId, NodeId};

/// Why a request got no frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AllocError {
    /// No allowed zone has the frames above its watermark.
    NoMemory,
    /// This context interrupted the allocator and could not take a lock without waiting; the next try may succeed.
    WouldBlock,
    /// No instance of this geometry could ever serve it: no frames asked for, or more than any zone spans, or an
    /// alignment that is no power of two or larger than an arena.
    Impossible,
    /// The instance has not been initialised.
    NotReady,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory",
            Self::WouldBlock => "the allocator was interrupted by this very context: try again later",
            Self::Impossible => "no zone could ever serve this request",
            Self::NotReady => "the instance has no memory yet",
        })
    }
}

impl core::error::Error for AllocError {}

/// Where a frame was found that its caller wanted to free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Free in its tree.
    Tree,
    /// In a CPU's pool, ready to be lent.
    Pool,
    /// In a CPU's return buffer, on its way to the tree.
    ReturnBuffer,
    /// In the pending map: freed by an interrupt, not yet in its tree.
    Pending,
}

/// A free that was refused. Nothing has changed: of a range either every frame is freed or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FreeError {
    /// The frame is in no range that the instance manages.
    NotManaged(Pfn),
    /// The frame is free and was never lent.
    NeverLent(Pfn),
    /// The frame was freed before and not lent since; it lies at this place.
    AlreadyFree(Pfn, Place),
    /// The frame is reserved: it was never the allocator's to lend.
    Reserved(Pfn),
    /// The frame is offline.
    Offline(Pfn),
    /// The frame is lent, but to a layer above (a slab, a large object), which alone may free it.
    InUse(Pfn),
    /// The block's head is no multiple of its size, or the range wraps.
    Misaligned(Pfn),
}

impl FreeError {
    /// The frame that gave rise to it.
    pub const fn pfn(self) -> Pfn {
        match self {
            Self::NotManaged(pfn)
            | Self::NeverLent(pfn)
            | Self::AlreadyFree(pfn, _)
            | Self::Reserved(pfn)
            | Self::Offline(pfn)
            | Self::InUse(pfn)
            | Self::Misaligned(pfn) => pfn,
        }
    }
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::NotManaged(_) => "is not managed",
            Self::NeverLent(_) => "was never lent",
            Self::AlreadyFree(_, Place::Tree) => "is already free, in its tree",
            Self::AlreadyFree(_, Place::Pool) => "is already free, in a CPU's pool",
            Self::AlreadyFree(_, Place::ReturnBuffer) => "is already free, in a CPU's return buffer",
            Self::AlreadyFree(_, Place::Pending) => "is already free, in the pending map",
            Self::Reserved(_) => "is reserved",
            Self::Offline(_) => "is offline",
            Self::InUse(_) => "is in use by a layer above",
            Self::Misaligned(_) => "is no multiple of the block's size",
        };
        write!(f, "bad free: {:?} {what}", self.pfn())
    }
}

impl core::error::Error for FreeError {}

/// What was wrong with a free of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadFreeKind {
    /// The address is in no object's memory: of another allocator, of the stack, or nothing at all.
    Foreign,
    /// An object's memory, but no object starts there.
    Interior,
    /// An object of another size class starts there: the layout is not that of the request.
    WrongClass,
    /// A large block of another size starts there; at [`Hardened`](crate::Hardened), any object of another size.
    WrongSize,
    /// The object is not lent now: freed before, or never lent.
    NotLent,
    /// The bytes beyond what was asked for have been written, at [`Hardened`](crate::Hardened).
    Overrun,
    /// No free at all, but found when the object was to be lent again: it was written after it had been freed, at
    /// [`Hardened`](crate::Hardened). It is never lent again.
    WrittenAfterFree,
}

/// A free of an object that was refused, and has changed nothing; or a write to an object that was free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadFree {
    /// What was wrong.
    pub kind: BadFreeKind,
    /// The address that was to be freed.
    pub address: usize,
    /// The bytes of the object that starts there, or in whose memory the address lies; 0 if there is none.
    pub object_bytes: usize,
    /// The first address of the slab or the large block; 0 if there is none.
    pub block: usize,
}

impl fmt::Display for BadFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            BadFreeKind::Foreign => "is in no object's memory",
            BadFreeKind::Interior => "is inside an object, not its start",
            BadFreeKind::WrongClass => "was freed with another layout than it was allocated with",
            BadFreeKind::WrongSize => "was freed with another size than it was allocated with",
            BadFreeKind::NotLent => "is not lent: freed twice, or never allocated",
            BadFreeKind::Overrun => "was written beyond its end, or before its start",
            BadFreeKind::WrittenAfterFree => "was written after it had been freed",
        };
        write!(f, "bad free: {:#x} {what}", self.address)?;
        if self.block != 0 {
            write!(f, " ({} bytes, block {:#x})", self.object_bytes, self.block)?;
        }
        Ok(())
    }
}

impl core::error::Error for BadFree {}

/// Why memory, a CPU or a node could not be added, reserved or taken offline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetupError {
    /// The instance is initialised already, or not yet.
    State,
    /// The metadata bytes do not suffice; so many are needed.
    MetadataTooSmall {
        /// The bytes that the request needs.
        needed_bytes: usize,
    },
    /// The address of frame 0 is no multiple of so many bytes, so that what is aligned among frames would not be in
    /// memory.
    BaseMisaligned {
        /// What it must be a multiple of.
        needed_bytes: usize,
    },
    /// Some frame of the range is managed already.
    Overlap(FrameSpan),
    /// The range is outside the span that the instance was made for.
    OutsideSpan(FrameSpan),
    /// The range holds frames that are not managed.
    NotManaged(Pfn),
    /// More nodes than the instance was made for.
    TooManyNodes(NodeId),
    /// More CPUs than the instance was made for.
    TooManyCpus(CpuId),
    /// A node of that number was never described.
    NoSuchNode(NodeId),
    /// A distance below 10, or other than 10 from a node to itself: no SLIT holds it.
    BadDistance(NodeId, NodeId),
    /// The frame is not free, so it cannot be taken by name.
    NotFree(Pfn),
    /// The frame is not reserved, so it cannot be released.
    NotReserved(Pfn),
    /// The frame is not offline.
    NotOffline(Pfn),
    /// So many frames of the range are still lent. They go offline when they are freed: ask again.
    StillLent(FrameCount),
    /// Another range of the same arena is going offline.
    Busy(FrameSpan),
    /// Memory is being added or taken away just now, and this context must not wait for that.
    WouldBlock,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State => f.write_str("the instance is initialised already, or not yet"),
            Self::MetadataTooSmall { needed_bytes } => write!(f, "metadata too small: {needed_bytes} bytes are needed"),
            Self::BaseMisaligned { needed_bytes } => {
                write!(f, "the address of frame 0 must be a multiple of {needed_bytes} bytes")
            }
            Self::Overlap(span) => write!(f, "{span:?} overlaps memory that is managed already"),
            Self::OutsideSpan(span) => write!(f, "{span:?} is outside the span this instance was made for"),
            Self::NotManaged(pfn) => write!(f, "{pfn:?} is not managed"),
            Self::TooManyNodes(node) => write!(f, "node {node} is more than this instance was made for"),
            Self::TooManyCpus(cpu) => write!(f, "CPU {} is more than this instance was made for", cpu.index()),
            Self::NoSuchNode(node) => write!(f, "there is no node {node}"),
            Self::BadDistance(from, to) => write!(f, "no machine has that distance from node {from} to node {to}"),
            Self::NotFree(pfn) => write!(f, "{pfn:?} is not free"),
            Self::NotReserved(pfn) => write!(f, "{pfn:?} is not reserved"),
            Self::NotOffline(pfn) => write!(f, "{pfn:?} is not offline"),
            Self::StillLent(count) => write!(f, "{count} frames of the range are still lent"),
            Self::Busy(span) => write!(f, "{span:?} is going offline in the same arena"),
            Self::WouldBlock => f.write_str("memory is being added or taken away: try again later"),
        }
    }
}

impl core::error::Error for SetupError {}
