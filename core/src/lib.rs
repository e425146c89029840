//! pagemill turns the raw frames of a machine into memory for whoever asks, the way an operating-system kernel does.
//!
//! # Theory
//!
//! **1. Frames.** Memory comes in *frames*, the unit of an instance: 4 KiB in a kernel, but a cache of 256-byte units
//! or a range of addresses with nothing behind it is managed alike, because the allocator keeps all it knows in
//! [`Metadata`] beside the frames and never touches a frame itself. A [`Pfn`] names a frame, a [`FrameCount`] counts
//! frames, a [`Block`] or a [`FrameRange`] is the right to use them, given out once and given back by value.
//!
//! **2. Trees.** 512 frames, a huge frame of 2 MiB, are a *tree*: a binary buddy with one bit for every block that
//! could ever be cut from it, 1023 bits in 16 words. A set bit is a free block as large as it can be. Splitting clears
//! a bit and sets its right-hand children; freeing sets a bit and, as long as the buddy is free too, moves up. A single
//! frame that comes home is only its bit until somebody takes from the tree or wants more than one frame: then pairs
//! are merged 64 frames at a time. No frame has a header, so any part of what was lent can come back in any split.
//!
//! **3. Arenas.** 512 trees, 1 GiB, are an *arena*, the extent of one lock. Bitmaps over its trees find a block of any
//! order in a few steps. *Placement decides fragmentation*: single frames come from the lowest tree that has any,
//! blocks from the smallest block that holds them, at the lowest address; what can be moved is taken from the upper
//! end.
//!
//! **4. Zones and nodes.** The arenas of one [`ZoneKind`] on one NUMA node are a *zone*, with watermarks below which it
//! says no; a *node* is its zones and its distances to the others. A [`Policy`] says where a request wants its memory
//! and what else will do.
//!
//! **5. Pools.** Each CPU keeps a few frames at hand, so most requests are a score of plain instructions, with no lock
//! and no atomic read-modify-write. What makes that safe is not an atomic but a witness: [`Pinned`] proves that nothing
//! else runs on this CPU's pool. A freed frame stays in the pool only if its tree is crowded anyway, so that nearly
//! free huge frames become whole again.
//!
//! **6. Objects.** A *slab* is a block of frames cut into slots of one *size class*; which slots are free is a bitmap
//! beside it, so objects carry nothing. A CPU's *object pool* has a stack of addresses for each class; it is filled and
//! emptied by batches, through a *depot* where CPUs meet, else through the *caches* of slabs. Any CPU frees into any
//! slab without a lock: it sets bits, then takes them off the slab's count, and by that learns whether the slab must be
//! listed anew. What is larger than 32 KiB takes whole frames. A [`Heap`] is all of that, over the frames of one
//! [`Frames`].
//!
//! **7. Checks.** At [`Checked`], the default, each frame has a word that says whether it is lent, and a free of
//! anything that is not lent at that moment is refused at the call, with what was found; an object has a mark that says
//! the same of it. At [`Fast`] the tree and the slab find it out when the frame or the object gets there.
//!
//! **8. Hardening.** At [`Hardened`] the heap also looks at what stands in memory. An object is asked for with 8 bytes
//! more, where its exact size stands under a key, with a pattern between its end and there; a free that finds either
//! changed is refused. What is freed is overwritten, waits in a quarantine, and is compared byte by byte before it is
//! lent again. A large block lies between two frames that nobody has. All of it happens where addresses become
//! pointers: the layers below never touch what they lend, at any level.
//!
//! **9. Samples.** Where [`Config::SAMPLED`] allows it, somebody can be told of a few of the objects that are lent and
//! of their frees, as many as it takes to know who has the memory. The fast path counts nothing for that: bytes are
//! counted as they come into a stack, where the samples to be are marked so that they go the long way round.
//!
//! # Implementation
//!
//! **The ladder.** One file, one layer, one noun; requests go down, errors come up, and a file uses only what stands
//! below it:
//!
//! ```text
//!   object          caches of objects of one type, memory pools
//!   harden          between `global` and the heap, at one level: canaries, poison, quarantine, guards
//!   heap            the front end of objects, on addresses; `global` makes pointers       reclaim, tag, placed: beside it
//!   large           whole frames, kept for a while when freed
//!   pool            what one CPU keeps of objects
//!   depot           batches that change hands
//!   cache           slabs of one class on one node
//!   shadow slab     which objects are lent; blocks of frames cut into slots
//!   frames          the front end: what users call, and who answers `NoMemory`      setup, report, check: beside it
//!   frame_pool      what one CPU keeps: magazines and a return buffer
//!   magazine        an array of rounds, one owner
//!   policy          which node a request is meant for
//!   node            zones, distances, the directory from frames to arenas
//!   zone            extents of one kind on one node, watermarks
//!   extent          one range of memory, cut into arenas
//!   arena           a buddy behind a lock, and how CPUs meet there                  hotplug: beside it
//!   buddy           the trees of an arena and the way to them
//!   tree            the 1023 bits of a huge frame
//!   pending ledger frame_table   frees without the lock; counts and hints; a word a frame
//! ```
//!
//! **Tiny.** [`TinyHeap`] is a ladder of its own, for kernels too small for all this: trees of 64-byte units, a lock,
//! and a pending map.
//!
//! **Locks.** Registry, then caches, depot shards, arenas, each by ascending address. Every lock is taken with a
//! [`Pinned`] in hand, so its holder is never interrupted into waiting for itself: an interrupt that finds its CPU
//! pinned has no witness, and only tries. Hooks are called by the front ends alone, with no lock and no pin held.
//!
//! **Interrupts.** A request that interrupted the allocator takes a lock only if it is free. A free that finds it held
//! sets the frame's bit in the *pending map*, and the holder takes it along: both sides fence between writing their own
//! word and reading the other's, so one of them always sees the frame.
//!
//! **Advice and truth.** Counts, hints and the free frames of a tree are read without locks and may be stale; each is
//! advice that costs order when wrong, never a frame. The truth stands under the arena's lock, and is asked for before
//! anyone is told that memory has ended.
//!
//! **Unsafe** code lives in the doors and edges and nowhere else: `sync` (the memory model), `carve` (bytes to
//! metadata), `global` and `adapter` (pointers, other crates' traits), `harden` (what stands in memory), `object` (what
//! is constructed in slots), and the declaration of [`Platform`], whose implementer makes the one promise that all
//! rests on. `frame_pool` and `pool` say of their layout what `sync` relies on, in one line each. The pointers of the
//! tiny heap are in `tiny/memory` and `tiny/traits`.
#![cfg_attr(not(any(test, loom, shuttle)), no_std)]
#![cfg_attr(feature = "allocator_api", feature(allocator_api))]
#![deny(unsafe_code)]

// Values: copied about, no state.
mod config;
mod error;
mod flags;
mod frame;
mod id;
mod kind;
mod order;
mod size_class;

// Doors: the only ways out.
mod platform;
#[allow(unsafe_code, reason = "the door to the memory model")]
mod sync;

// Edges: bytes and other crates' traits.
#[cfg(feature = "x86_64")]
mod adapter;
mod carve;

// The ladder, lowest rung first.
mod frame_table;

mod ledger;

mod pending;

mod tree;

mod buddy;

mod arena;

mod extent;

mod zone;

mod node;

mod policy;

mod magazine;

mod frame_pool;

mod frames;

mod slab;

mod shadow;

mod cache;

mod depot;

mod pool;

mod heap;

mod large;

mod object;

// Edges above it: pointers, and what stands in memory.
mod global;
mod harden;

// A ladder of its own, on the trees.
mod tiny;

// Beside the ladder.
mod backing;
mod check;
mod hotplug;
mod placed;
mod reclaim;
mod report;
mod reporter;
mod setup;
mod stats;
mod tag;

// What the checks need.
#[cfg(any(loom, shuttle))]
mod models;
#[cfg(all(test, not(any(loom, shuttle))))]
mod testing;

/// The README's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}

pub use backing::{Backing, Moves, Relocation};
pub use carve::Metadata;
pub use check::{Census, Invalid};
pub use config::{Checked, Config, Fast, Hardened};
pub use error::{AllocError, BadFree, BadFreeKind, FreeError, Place, SetupError};
pub use flags::AllocFlags;
pub use frame::{FrameCount, FrameRange, FrameSpan, Pfn, SpanError};
pub use frames::{Frames, Request};
pub use harden::PageHook;
pub use heap::{ClassCount, Heap, HeapCensus, HeapInvalid, HeapReport, Sample, SampleHook};
pub use id::{CpuId, NodeId, NodeMask};
pub use kind::ZoneKind;
pub use object::{CacheInfo, CacheOptions, Leak, MemPool, ObjectBox, ObjectCache, ObjectSource};
pub use order::{Block, Order};
pub use placed::Placed;
#[doc(hidden)]
pub use platform::EMPTY_DESK;
pub use platform::{Context, Desk, Pinned, Platform};
pub use policy::Policy;
pub use reclaim::{Failures, OomAnswer, OomPolicy, Shrink, Shrinker};
pub use report::{FrameReport, ZoneInfo};
pub use size_class::SizeClass;
pub use stats::NumaCounts;
pub use tag::{Tag, TagCount, Tagged};
pub use tiny::{BrokenRegion, RegionError, TinyCensus, TinyHeap, TinyLock};
pub use zone::Watermarks;
