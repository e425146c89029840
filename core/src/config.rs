//! What an instance fixes at compile time: its level of checking and its geometry.

/// The level and the geometry of an instance, as a type.
///
/// Embedders use [`Checked`] or [`Fast`]; tests and models shrink the geometry with a type of their own, so that the
/// same code runs over a machine of a few frames. All constants are asserted where they are used.
pub trait Config: 'static {
    /// Whether every free is checked against the frame's word, which catches a free of anything that is not lent at
    /// that moment, at the call. Without it a wrong free is caught when the frame reaches its tree.
    const CHECKED: bool = true;
    /// The order of a tree: the huge frame of the machine, 2 MiB of 4 KiB frames. At most 9.
    const HUGE_ORDER: u32 = 9;
    /// The order of an arena: what one lock covers, 1 GiB of 4 KiB frames. At most 9 above [`Config::HUGE_ORDER`].
    const ARENA_ORDER: u32 = 18;
    /// The bytes of a frame: only for reports and for watermarks, which are computed from bytes.
    const FRAME_BYTES: usize = 4096;
    /// Whether each frame has a word that belongs to the embedder (a reference count, an owner).
    const EMBEDDER_WORDS: bool = false;
    /// The most order-0 frames a CPU keeps at hand, at most 128.
    const POOL_FRAMES: u32 = 128;
    /// The order-0 frames of the first refill; consecutive refills double it up to [`Config::POOL_FRAMES`].
    const REFILL_FRAMES: u32 = 64;
    /// A tree with fewer free frames than this is dense: its frames may stay in a pool when freed. Others go back,
    /// so that nearly free huge frames become whole again (measured: 231 of 256 huge frames survive churn, against 0).
    const DENSE_BELOW_FRAMES: u32 = 128;
    /// The bytes of a slab of small objects, a power of two; the largest classes take two or four times as many. A slab
    /// starts at a multiple of its size.
    const SLAB_BYTES: usize = 32 << 10;
    /// Empty slabs of each class that a heap keeps on each node: the next requests need no frames then.
    const KEEP_EMPTY_SLABS: usize = 1;
    /// With the feature `deep-pools`: the objects that CPUs may have at hand beyond two batches of each class, in bytes, a
    /// quarter of it each. Two batches are 256 objects, or 32 KiB of them; with this it is up to four times as much of a
    /// class that comes and goes.
    const DEEP_BYTES: usize = 1 << 20;
    /// The most objects of one class, in bytes, that a shard of the depot holds.
    const DEPOT_BYTES: usize = 64 << 10;
    /// The most objects of one class that a shard of the depot holds.
    const DEPOT_ROUNDS: usize = 512;
    /// With so many bytes of objects in a shard of the depot, it takes in no more than two batches of each class.
    const DEPOT_TOTAL_BYTES: usize = 512 << 10;
    /// Freed large blocks that are kept for the next request of their size, in bytes.
    const LARGE_CACHE_BYTES: usize = 4 << 20;
    /// The sizes that large blocks of up to [`LARGE_CACHE_BYTES`](Self::LARGE_CACHE_BYTES) / 4 have in each doubling, a
    /// power of two: a request between them gets some frames more, and one that was kept more often; what was kept also
    /// serves a request that is up to a fifth smaller. For memory that costs nothing until it is touched. 0 if any
    /// number of frames is a size.
    const LARGE_SIZES_PER_DOUBLING: usize = 0;
    /// Whether a request may interrupt another one of the same CPU: in a kernel whose handlers allocate, in a process
    /// whose signal handlers do. If not, a platform's desks are looked at and not taken, which leaves out the two
    /// stores that every request would have to wait for: 0.9 ns of a pair of 2.4. That nothing interrupts is then the
    /// promise of whoever initialises a heap.
    const INTERRUPTIBLE: bool = true;
    /// Whether the machine may have more than one node. If not, a free of an object need not look which node it is on.
    const NUMA: bool = true;
    /// Whether a heap marks lent objects in arrays that follow the span, a quarter of it long, instead of in the slabs'
    /// descriptors: faster, and for metadata that costs memory only where it is touched.
    const LINEAR_SHADOW: bool = false;
    /// Whether a frame that was never lent reads as zeros, as mappings of an operating system do.
    const FRESH_FRAMES_ARE_ZERO: bool = false;
    /// Whether a heap can [sample](crate::SampleHook) what it lends, for a profile of who has the memory. It costs
    /// nothing while nobody wants samples. Without [`Config::CHECKED`] only large objects are sampled.
    const SAMPLED: bool = false;
    /// Whether a heap also looks at what stands in memory: see [`Hardened`]. Needs [`Config::CHECKED`].
    const HARDENED: bool = false;
    /// What freed objects are overwritten with, at [`Hardened`]. 0 also makes requests for zeroed objects free; another
    /// byte makes uses of freed memory stand out in a debugger.
    const POISON: u8 = 0;
    /// Freed objects that a CPU holds back before they may be lent again, at [`Hardened`]. 0 switches the quarantine
    /// off.
    const QUARANTINE_OBJECTS: usize = 256;
    /// The same in bytes. What is larger is not held back.
    const QUARANTINE_BYTES: usize = 256 << 10;
}

/// Every free is checked at the call: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked;

impl Config for Checked {}

/// Every free is checked at the call, and what a heap lends is watched for writes beyond it and after it: for programs
/// that must not go on with memory that somebody has overwritten, and for finding who did.
///
/// * **Canaries** behind an object, up to a keyed trailer with its exact size: a write beyond the end, by one byte too,
///   is an [`Overrun`] at the free or the change of size, and a free by another size a [`WrongSize`]. From StackGuard,
///   OpenBSD's `malloc` and Scudo.
/// * **Poison**: what is freed is overwritten, and compared when it is to be lent again. A byte that has changed is a
///   [`WrittenAfterFree`], and the object is never lent again. No secret stays in freed memory. From `hardened_malloc`
///   and SLUB.
/// * **Quarantine**: what is freed takes a random place among others and drives out what was there, so that a second
///   free and a late use meet an object that nobody has. From Scudo and OpenBSD.
/// * **Order**: slots are lent in none that is known. From OpenBSD, `hardened_malloc`, and Linux's freelists.
/// * **Guards**: a frame before a large block and one behind it that nobody has. Where the machine can make them
///   inaccessible, by a [`PageHook`], overflow and underflow end at the access, else at the free. From Electric Fence.
/// * **Marks** are taken off by an exchange: of two frees at the same moment the second is always refused.
///
/// What it costs: 8 bytes an object, all of it written at the free and read at the next request; 2 frames a large
/// block, which make one of a power of two come out of twice as many, and as many more as it is aligned to, both for a
/// moment; [`Config::QUARANTINE_BYTES`] a CPU, or a thread. Large blocks do not grow in place, and are not kept when
/// freed. Objects of an [`ObjectCache`](crate::ObjectCache) are as at [`Checked`].
///
/// [`Overrun`]: crate::BadFreeKind::Overrun
/// [`WrongSize`]: crate::BadFreeKind::WrongSize
/// [`WrittenAfterFree`]: crate::BadFreeKind::WrittenAfterFree
/// [`PageHook`]: crate::PageHook
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardened;

impl Config for Hardened {
    const HARDENED: bool = true;
}

/// A free is checked by its tree alone, when it gets there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fast;

impl Config for Fast {
    const CHECKED: bool = false;
}

/// Geometry derived from a [`Config`], asserted at compile time wherever an instance is built.
pub(crate) struct Geometry<C>(core::marker::PhantomData<C>);

impl<C: Config> Geometry<C> {
    /// Frames of a tree.
    pub(crate) const TREE_FRAMES: usize = 1 << C::HUGE_ORDER;
    /// Frames of an arena.
    pub(crate) const ARENA_FRAMES: usize = 1 << C::ARENA_ORDER;
    /// Trees of an arena.
    pub(crate) const ARENA_TREES: usize = 1 << (C::ARENA_ORDER - C::HUGE_ORDER);
    /// Evaluating this refuses a geometry that the words and bitmaps cannot hold.
    pub(crate) const VALID: () = {
        assert!(C::HUGE_ORDER >= 1 && C::HUGE_ORDER <= 9, "a tree is 16 words");
        assert!(C::ARENA_ORDER >= C::HUGE_ORDER && C::ARENA_ORDER <= C::HUGE_ORDER + 9, "an arena has 512 trees");
        assert!(C::ARENA_ORDER >= 6, "an arena is at least a row of the pending map");
        assert!(C::POOL_FRAMES >= 2 && C::POOL_FRAMES <= 128, "a magazine has 128 rounds");
        assert!(C::REFILL_FRAMES >= 1 && C::REFILL_FRAMES <= C::POOL_FRAMES, "a refill fits the magazine");
        assert!(C::FRAME_BYTES >= 1, "a frame has bytes");
    };
}
