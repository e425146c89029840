//! The allocators that are measured, each as its own documentation shows it, behind its own or a spin lock.

use std::hint::black_box;

use bitmap_allocator::{BitAlloc, BitAlloc1M};
use buddy_slab_allocator::BuddyAllocator;
use buddy_system_allocator::LockedFrameAllocator;
use pagemill::{Checked, Fast};
use spin::Mutex;

use crate::check;
use crate::frames::{Cpu, Frames};
use crate::os::{Reservation, start_buddy};
use crate::pagemill::{HostedMill, KernelMill, SimulatedMill};
use crate::scale::{self, ScaleCase, ScaleSample};
use crate::workload::{self, Case, Sample};

/// An allocator in the list: who it is and how it is run.
pub struct Peer {
    /// Name in options; unique.
    pub key: &'static str,
    /// Name of the crate.
    pub allocator: &'static str,
    /// Level of checks, for allocators that have levels.
    pub level: &'static str,
    /// How it is embedded, for allocators that can be embedded in several ways.
    pub style: &'static str,
    /// The most frames it can manage.
    pub max_frames: usize,
    /// Can one thread act as several of its CPUs?
    pub simulates_cpus: bool,
    /// One repetition of a workload.
    pub run: fn(&Case) -> Vec<Sample>,
    /// The same with every answer held against a shadow bitmap.
    pub check: fn(&Case) -> Vec<Sample>,
    /// One point of the simulated scale.
    pub scale: fn(&ScaleCase) -> ScaleSample,
}

impl Peer {
    /// Lists the allocator `P`.
    pub const fn new<P: Frames>(
        key: &'static str,
        allocator: &'static str,
        level: &'static str,
        style: &'static str,
    ) -> Self {
        Self {
            key,
            allocator,
            level,
            style,
            max_frames: P::MAX_FRAMES,
            simulates_cpus: P::SIMULATES_CPUS,
            run: workload::run::<P>,
            check: workload::run::<check::Checked<P>>,
            scale: scale::run::<P>,
        }
    }

    /// The simulated scale takes `P` in its place.
    pub const fn simulated_by<P: Frames>(self) -> Self {
        Self { scale: scale::run::<P>, simulates_cpus: P::SIMULATES_CPUS, ..self }
    }

    /// Is it pagemill itself?
    pub fn is_pagemill(&self) -> bool {
        self.allocator == PAGEMILL
    }

    /// Is it the loop without an allocator?
    pub fn is_loop(&self) -> bool {
        self.allocator == LOOP
    }
}

/// The name of pagemill in the records.
pub const PAGEMILL: &str = "pagemill";

/// The name of the loop without an allocator in the records.
pub const LOOP: &str = "loop";

/// Every allocator, pagemill first.
pub fn all() -> Vec<Peer> {
    vec![
        Peer::new::<KernelMill<Fast>>("pagemill-kernel-fast", PAGEMILL, "fast", "kernel")
            .simulated_by::<SimulatedMill<Fast>>(),
        Peer::new::<KernelMill<Checked>>("pagemill-kernel-checked", PAGEMILL, "checked", "kernel")
            .simulated_by::<SimulatedMill<Checked>>(),
        Peer::new::<HostedMill<Fast>>("pagemill-hosted-fast", PAGEMILL, "fast", "hosted"),
        Peer::new::<HostedMill<Checked>>("pagemill-hosted-checked", PAGEMILL, "checked", "hosted"),
        Peer::new::<LockedFrameAllocator<33>>("buddy-system", "buddy_system_allocator", "", ""),
        Peer::new::<Locked<Bitmap>>("bitmap", "bitmap-allocator", "", ""),
        Peer::new::<Locked<BuddySlab>>("buddy-slab", "buddy-slab-allocator", "", ""),
        Peer::new::<LoopAlone>("loop", LOOP, "", ""),
    ]
}

/// An allocator without a lock of its own.
pub trait Exclusive: Send {
    /// The most frames it can manage.
    const MAX_FRAMES: usize = usize::MAX;
    /// Manages `frames` frames.
    fn new(frames: usize) -> Self;
    /// Takes a block.
    fn alloc(&mut self, order: usize) -> Option<usize>;
    /// Gives it back.
    fn free(&mut self, frame: usize, order: usize);
    /// Bytes of metadata, if known.
    fn metadata_bytes(&self) -> Option<usize>;
}

/// An allocator behind a spin lock.
pub struct Locked<A>(Mutex<A>);

impl<A: Exclusive> Frames for Locked<A> {
    const MAX_FRAMES: usize = A::MAX_FRAMES;

    type Cpu<'a>
        = &'a Self
    where
        A: 'a;

    fn new(frames: usize, _cpus: usize) -> Self {
        Self(Mutex::new(A::new(frames)))
    }

    fn cpu(&self, _index: usize) -> &Self {
        self
    }

    fn metadata_bytes(&self) -> Option<usize> {
        self.0.lock().metadata_bytes()
    }
}

impl<A: Exclusive> Cpu for &Locked<A> {
    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        self.0.lock().alloc(order)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: usize) {
        self.0.lock().free(frame, order);
    }
}

/// `buddy_system_allocator` brings its lock with it. Its sets of free blocks live on the heap.
impl Frames for LockedFrameAllocator<33> {
    type Cpu<'a> = &'a Self;

    fn new(frames: usize, _cpus: usize) -> Self {
        let new = LockedFrameAllocator::new();
        new.lock().add_frame(0, frames);
        new
    }

    fn cpu(&self, _index: usize) -> &Self {
        self
    }
}

impl Cpu for &LockedFrameAllocator<33> {
    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        self.lock().alloc(1 << order)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: usize) {
        self.lock().dealloc(frame, 1 << order);
    }
}

/// `bitmap-allocator`: a bitmap of a million frames, 4 GiB, under 16-way summaries.
pub struct Bitmap(Box<BitAlloc1M>);

impl Exclusive for Bitmap {
    const MAX_FRAMES: usize = BitAlloc1M::CAP;

    fn new(frames: usize) -> Self {
        let mut bits = Box::new(BitAlloc1M::DEFAULT);
        bits.insert(0..frames);
        Self(bits)
    }

    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        if order == 0 { self.0.alloc() } else { self.0.alloc_contiguous(None, 1 << order, order) }
    }

    #[inline]
    fn free(&mut self, frame: usize, order: usize) {
        let freed = if order == 0 { self.0.dealloc(frame) } else { self.0.dealloc_contiguous(frame, 1 << order) };
        debug_assert!(freed);
    }

    fn metadata_bytes(&self) -> Option<usize> {
        Some(size_of::<BitAlloc1M>())
    }
}

/// `buddy-slab-allocator`'s buddy: linked lists over 12 bytes a frame. It returns addresses, so it gets address space
/// for its frames, which nobody touches.
pub struct BuddySlab {
    buddy: BuddyAllocator,
    first: usize,
    // Kept for as long as the allocator.
    _region: Reservation,
}

const PAGE: usize = 4096;

impl Exclusive for BuddySlab {
    fn new(frames: usize) -> Self {
        let metadata = BuddyAllocator::<PAGE>::required_meta_size(frames * PAGE).next_multiple_of(PAGE);
        let mut region = Reservation::new(metadata + (frames + 2) * PAGE);
        let mut buddy = BuddyAllocator::new();
        // Its header, whose size it does not tell, precedes the metadata and may or may not need a page of its own.
        for header in 0..=2 {
            let len = metadata + (frames + header) * PAGE;
            let (managed, first) = start_buddy(&mut buddy, &mut region, len);
            if managed == frames {
                return Self { buddy, first, _region: region };
            }
        }
        unreachable!("the header of buddy-slab-allocator fits in two pages");
    }

    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        let address = self.buddy.alloc_pages(1 << order, PAGE).ok()?;
        Some((address - self.first) / PAGE)
    }

    #[inline]
    fn free(&mut self, frame: usize, order: usize) {
        self.buddy.dealloc_pages(self.first + frame * PAGE, 1 << order);
    }

    fn metadata_bytes(&self) -> Option<usize> {
        Some(BuddyAllocator::<PAGE>::required_meta_size(self.buddy.managed_bytes()))
    }
}

/// No allocator: what the measuring loop itself costs. It lends the frame that was freed last.
pub struct LoopAlone;

impl Frames for LoopAlone {
    type Cpu<'a> = LoopCpu;

    fn new(_frames: usize, _cpus: usize) -> Self {
        Self
    }

    fn cpu(&self, _index: usize) -> LoopCpu {
        LoopCpu { last: 0 }
    }
}

/// A CPU of [`LoopAlone`].
pub struct LoopCpu {
    last: usize,
}

impl Cpu for LoopCpu {
    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        Some(black_box(self.last) & !((1 << order) - 1))
    }

    #[inline]
    fn free(&mut self, frame: usize, _order: usize) {
        self.last = black_box(frame);
    }
}
