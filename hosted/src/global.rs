//! The global allocator.
#![allow(unsafe_code, reason = "the promise of GlobalAlloc")]

use std::alloc::{GlobalAlloc, Layout};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::time::Duration;

use lock_api::Mutex;
use pagemill::{Backing, BadFree, Checked, Config, Fast, Frames, Hardened, Heap, Moves, NodeId};

use crate::balloon::{Balloon, LimitError};
use crate::fault;
use crate::huge::HugePages;
use crate::level::WithHandlers;
use crate::lock::HostedLock;
use crate::members::{Instance, Member};
use crate::moves::{self, Moved};
use crate::options::Format;
use crate::process::Process;
use crate::report;
use crate::stats::Stats;
use crate::tls::Hosted;

/// The heap of the process as a global allocator.
///
/// ```
/// #[global_allocator]
/// static A: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();
///
/// let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
/// assert_eq!(std::thread::spawn(move || squares[31]).join().unwrap(), 961);
/// ```
///
/// `L` is the level of checking: [`Checked`], the default, [`Fast`] or [`Hardened`], or one of them [`WithHandlers`].
/// Each has one heap in the process, however many values of this type there are.
///
/// * **Threads** keep objects at hand: most requests are a few plain instructions. What a thread has goes back when it
///   ends. Beyond 4096 threads, or fewer where address space is limited, the others share what is behind.
/// * **First use** may be before `main`, and last use after it. Destructors of thread-locals may allocate.
/// * **A plug-in** with a heap of its own stays loaded once it was: threads that have used it call it at their end.
/// * **Signal handlers** may allocate and free at the level [`WithHandlers`]. One that interrupted the allocator may
///   get null; its frees are kept. At other levels they must not, as with most allocators.
/// * **A wrong free** writes a line to the error output and aborts, or calls [`on_bad_free`](Self::on_bad_free)'s
///   function.
/// * **At [`Hardened`]** the pages beside large blocks cannot be touched: who does gets a `SIGSEGV`. There are at most
///   as many as a quarter of the mappings that the system allows the process (`vm.max_map_count`); others are filled,
///   and looked at when the block is freed. Its secret comes from `getrandom`.
/// * **Memory** is asked from the system by `mmap`, within what the process may have. When there is none left, requests
///   get null.
///
/// On Linux. Elsewhere, and under Miri, every request goes to [`System`](std::alloc::System), and nothing is checked.
pub struct Pagemill<L: Level = Checked> {
    level: PhantomData<L>,
}

/// The levels that a process has a heap for: [`Checked`], [`Fast`] and [`Hardened`], and each of them [`WithHandlers`].
pub trait Level: Config + Sync + sealed::Served {}

/// A level as configured for processes.
pub struct HostedLevel<L>(PhantomData<L>);

impl<L: sealed::Served> Config for HostedLevel<L> {
    const CHECKED: bool = L::CHECKED;
    const INTERRUPTIBLE: bool = L::HANDLERS;
    const NUMA: bool = false;
    const FRESH_FRAMES_ARE_ZERO: bool = true;
    const SAMPLED: bool = true;
    const LINEAR_SHADOW: bool = true;
    const KEEP_EMPTY_SLABS: usize = 8;
    const LARGE_SIZES_PER_DOUBLING: usize = 8;
    const DEEP_BYTES: usize = 8 << 20;
    const DEPOT_BYTES: usize = 1 << 20;
    const DEPOT_ROUNDS: usize = 4096;
    const DEPOT_TOTAL_BYTES: usize = 2 << 20;
    const HARDENED: bool = L::HARDENED;
    const POISON: u8 = L::POISON;
    const QUARANTINE_OBJECTS: usize = L::QUARANTINE_OBJECTS;
    const QUARANTINE_BYTES: usize = L::QUARANTINE_BYTES;
}

mod sealed {
    use super::{Config, Heap, Hosted, HostedLevel, Process};

    pub trait Served: Config + Sized {
        /// Whether signal handlers allocate.
        const HANDLERS: bool;

        fn heap() -> &'static Heap<'static, Hosted, HostedLevel<Self>>;

        #[allow(private_interfaces, reason = "nobody else can call it")]
        fn process() -> &'static Process<HostedLevel<Self>>;
    }
}

macro_rules! serve {
    ($level:ty, $handlers:literal, $frames:ident, $heap:ident, $process:ident, $member:ident, $moved:ident, $balloon:ident) => {
        static $frames: Frames<'static, Hosted, HostedLevel<$level>> = Frames::new();
        static $heap: Heap<'static, Hosted, HostedLevel<$level>> = Heap::with_backing(
            &$frames,
            Backing {
                // All its memory is on one node, as far as the heap knows.
                supply: |layout, nodes| nodes.contains(NodeId::ZERO) && $process.supply(layout),
                taken: Some(|start, bytes| $process.taken(start, bytes)),
                released: || $process.relieve(),
                describe: Some(|bytes| $process.describe(bytes)),
                moves: Some(Moves {
                    least_bytes: moves::LEAST_BYTES,
                    // SAFETY: the heap's promises are those that are wanted.
                    relocate: |from, to, bytes| unsafe { $process.relocate(from, to, bytes) },
                    // SAFETY: as above.
                    settle: |pages, bytes| unsafe { $process.settle_moved(pages, bytes) },
                }),
            },
        );
        static $process: Process<HostedLevel<$level>> = Process::new(&$frames, &$heap, &$member, &$moved, &$balloon);
        // Apart from what does not start as zeros: so they are memory only where they are touched.
        static $moved: Moved = Moved::new();
        static $balloon: Mutex<HostedLock, Balloon> = Mutex::new(Balloon::new());
        static $member: Member = Member::new(&$process);

        impl Level for $level {}

        impl sealed::Served for $level {
            const HANDLERS: bool = $handlers;

            #[inline(always)]
            fn heap() -> &'static Heap<'static, Hosted, HostedLevel<Self>> {
                &$heap
            }

            #[allow(private_interfaces, reason = "nobody else can call it")]
            fn process() -> &'static Process<HostedLevel<Self>> {
                &$process
            }
        }
    };
}
serve!(Checked, false, CHECKED_FRAMES, CHECKED_HEAP, CHECKED_PROCESS, CHECKED_MEMBER, CHECKED_MOVED, CHECKED_BALLOON);
serve!(Fast, false, FAST_FRAMES, FAST_HEAP, FAST_PROCESS, FAST_MEMBER, FAST_MOVED, FAST_BALLOON);
serve!(
    Hardened,
    false,
    HARDENED_FRAMES,
    HARDENED_HEAP,
    HARDENED_PROCESS,
    HARDENED_MEMBER,
    HARDENED_MOVED,
    HARDENED_BALLOON
);
serve!(
    WithHandlers<Checked>,
    true,
    CHECKED_FRAMES_H,
    CHECKED_HEAP_H,
    CHECKED_PROCESS_H,
    CHECKED_MEMBER_H,
    CHECKED_MOVED_H,
    CHECKED_BALLOON_H
);
serve!(
    WithHandlers<Fast>,
    true,
    FAST_FRAMES_H,
    FAST_HEAP_H,
    FAST_PROCESS_H,
    FAST_MEMBER_H,
    FAST_MOVED_H,
    FAST_BALLOON_H
);
serve!(
    WithHandlers<Hardened>,
    true,
    HARDENED_FRAMES_H,
    HARDENED_HEAP_H,
    HARDENED_PROCESS_H,
    HARDENED_MEMBER_H,
    HARDENED_MOVED_H,
    HARDENED_BALLOON_H
);

impl<L: Level> Pagemill<L> {
    /// The allocator. Nothing happens before the first request.
    #[expect(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { level: PhantomData }
    }

    /// The heap behind it, for statistics, [`drain`](Heap::drain) and [`trim`](Heap::trim).
    #[inline(always)]
    pub fn heap(&self) -> &'static Heap<'static, Hosted, HostedLevel<L>> {
        L::heap()
    }

    /// Gives everything back to the system that is idle: what this thread keeps, what lies between threads, empty
    /// slabs, kept blocks, and the pages behind all free memory. Answers how many bytes there were pages behind. What
    /// other threads keep follows when they next need more.
    pub fn trim(&self) -> usize {
        L::process().trim()
    }

    /// Sets the most memory that there may be for objects, in bytes; `usize::MAX` lifts the limit. What of it is in use
    /// stays, what is free beyond the limit is gone at once. A request that finds no memory below it gets null, as if
    /// the machine had no more. The heap's own metadata comes on top.
    ///
    /// # Errors
    /// If more is in use, after all that is idle was given back; then nothing has changed.
    pub fn set_limit(&self, bytes: usize) -> Result<(), LimitError> {
        L::process().set_limit(bytes)
    }

    /// Sets which pages there should be behind memory: behind what is not yet touched, or not yet had.
    pub fn set_huge_pages(&self, pages: HugePages) {
        L::process().set_huge_pages(pages);
    }

    /// Where the bytes of the heap are, as it has them and as the system does. Reads `/proc/self/smaps`; allocates
    /// nothing.
    pub fn stats(&self) -> Stats {
        L::process().stats()
    }

    /// As [`stats`](Self::stats), without asking the system: some loads.
    pub fn own_stats(&self) -> Stats {
        L::process().own_stats()
    }

    /// Writes the account of this heap as [`write_report`](crate::write_report) does that of all; nothing if it has
    /// never been used.
    ///
    /// # Errors
    /// If `to` answers one.
    pub fn write_report(&self, to: &mut dyn fmt::Write, format: Format) -> fmt::Result {
        let own = L::process().control().filter(|_| L::process().is_set_up());
        report::write_heaps(to, format, own.into_iter())
    }

    /// Gives back to the system what the process should not keep, as far as it may be done now: for an event loop that
    /// is idle for a moment. It happens by itself when memory is freed, but not beyond 100 MB a second in the long run,
    /// nor when nobody comes by.
    pub fn tick(&self) {
        L::process().tick();
    }

    /// Has a thread of its own [`tick`](Self::tick) so often, for a program that sleeps after a burst; a period of zero
    /// ends it. In a copy by `fork` it starts again when that frees memory, but not at levels
    /// [`WithHandlers`](crate::WithHandlers).
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn tick_in_background(&self, period: Duration) -> io::Result<()> {
        L::process().start_background(period)
    }

    /// Bytes that were given back to the system so far. It happens by itself: free memory with pages behind it is at
    /// most an eighth of what is in use, or 8 MiB, but for bursts.
    pub fn given_back_bytes(&self) -> usize {
        L::process().given_back()
    }

    /// Objects that were at hand for other threads when the process became what it is by `fork`: a copy with one
    /// thread. They are in nobody's hands.
    pub fn lost_at_fork(&self) -> usize {
        L::process().lost_at_fork()
    }

    /// Calls `hook` with every refused free of the process, instead of a line on the error output and an abort. It may
    /// return; the free is ignored then. If it unwinds, the process aborts.
    pub fn on_bad_free(&self, hook: fn(BadFree)) {
        fault::on_bad_free(hook);
    }
}

// SAFETY: the heap's own implementation keeps the promise.
unsafe impl<L: Level> GlobalAlloc for Pagemill<L> {
    #[inline(always)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::alloc(L::heap(), layout) }
    }

    #[inline(always)]
    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::dealloc(L::heap(), object, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::alloc_zeroed(L::heap(), layout) }
    }

    #[inline]
    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::realloc(L::heap(), object, layout, new_size) }
    }
}
