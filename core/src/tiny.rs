//! The heap of a tiny kernel or a microcontroller: one file of policy over the trees, no frames and no CPUs.
//!
//! **Units.** A region of memory is cut into *units* of 64 bytes; a request gets as many as it needs, in a row. Regions
//! of more than 32 KiB have several [trees](crate::tree) rather than larger units: a tree costs 1 % of what it covers,
//! and a program for 100 KiB allocates the same small objects as one for 4 KiB, each of which would waste the larger
//! unit.
//!
//! **Metadata** lies at the start of the region it describes: a tree of 128 bytes and a note for each 32 KiB, and three
//! bitmaps of a bit a unit, which say where allocations begin and end and what is on its way back. So a free needs no
//! header before the object, and its pointer and size are compared with what was lent.
//!
//! **Placement.** A request is the head of the smallest free block that holds it, and what is left of the block stays
//! free; if no block does, the smallest run of free units, whatever blocks it is made of. So memory is refused only if
//! it is not there in a row.
//!
//! **Locks.** Each region has one. A free never waits for it: it leaves its memory in the pending map of the region, as
//! frames are left by interrupts, and the holder takes it along. A request waits as its context allows; see
//! [`TinyHeap::with_context`].

mod grove;
#[cfg(all(test, not(any(loom, shuttle))))]
mod interrupts;
mod marks;
mod memory;
mod region;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
mod traits;
#[cfg(all(test, not(any(loom, shuttle))))]
mod twin;

use core::alloc::Layout;
use core::fmt;

use lock_api::RawMutex;

use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::platform::Context;
use crate::sync::{Lock, Publish, const_fn};
use memory::Alone;
use region::Region;

/// The bytes of a unit.
const UNIT_BYTES: usize = 64;
/// What the first unit's address is a multiple of, so that blocks up to this size are aligned by their place.
const ORIGIN_BYTES: usize = 4096;
/// Units of a tree: 32 KiB.
const TREE_UNITS: u32 = 1 << Units::HUGE_ORDER;

/// The geometry of the trees.
enum Units {}

impl Config for Units {
    const FRAME_BYTES: usize = UNIT_BYTES;
    const ARENA_ORDER: u32 = Self::HUGE_ORDER;
}

/// What a [`TinyHeap`] takes as its lock: every lock of `lock_api` that may be shared.
pub trait TinyLock: RawMutex + Send + Sync + 'static {}

impl<L: RawMutex + Send + Sync + 'static> TinyLock for L {}

/// A heap for little memory: some bytes of state, all else in the regions it is given.
///
/// ```
/// use pagemill::TinyHeap;
/// use core::alloc::Layout;
///
/// static HEAP: TinyHeap<spin::Mutex<()>> = TinyHeap::new();
///
/// # static mut MEMORY: [u8; 4096] = [0; 4096];
/// let memory = &raw mut MEMORY;
/// // SAFETY: nobody else uses it.
/// unsafe { HEAP.add_region(memory) }.unwrap();
/// let layout = Layout::new::<[u64; 20]>();
/// let object = HEAP.alloc(layout).unwrap();
/// // SAFETY: it is not used any more.
/// unsafe { HEAP.free(object, layout) }.unwrap();
/// // SAFETY: that it is free already is found out.
/// assert!(unsafe { HEAP.free(object, layout) }.is_err());
/// ```
///
/// In a `static` it can be the `#[global_allocator]`, which answers null when memory has ended, and ignores wrong frees
/// but for the [fault hook](Self::set_fault_hook).
pub struct TinyHeap<L: TinyLock> {
    /// The region that was added last.
    regions: Publish<'static, Region<L>>,
    /// Held while a region is added.
    adding: Lock<Alone<L>, ()>,
    context: fn() -> Context,
    on_fault: Publish<'static, fn(BadFree)>,
}

/// Why a region was not added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionError {
    /// It cannot hold its own state and a unit.
    TooSmall,
    /// It has more units than 32 bits number, or wraps.
    TooLarge,
    /// Some of it belongs to the heap already.
    Overlap,
    /// Another region is being added, and this context must not wait for that.
    WouldBlock,
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooSmall => "the region cannot hold its own state and 64 bytes",
            Self::TooLarge => "the region is too large",
            Self::Overlap => "some of the region belongs to the heap already",
            Self::WouldBlock => "another region is being added: try again later",
        })
    }
}

impl core::error::Error for RegionError {}

/// What a heap has, at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TinyCensus {
    /// Bytes that can be lent: the regions without their state.
    pub bytes: usize,
    /// Bytes that are free.
    pub free_bytes: usize,
    /// The longest run of free bytes: the largest request that would be served.
    pub largest_free_bytes: usize,
    /// How many allocations there are.
    pub allocations: usize,
}

/// An invariant of a region that does not hold: the heap's own fault, or memory overwritten by somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokenRegion {
    /// The first address of the region.
    pub start: usize,
    /// What is wrong.
    pub what: &'static str,
}

impl<L: TinyLock> Default for TinyHeap<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: TinyLock> TinyHeap<L> {
    const_fn! {
        /// A heap without memory, for a kernel of one CPU: who finds a lock held there has interrupted its holder, so
        /// no request waits for longer than some tens of microseconds.
        ///
        /// With a lock that masks interrupts it is never found held. Where threads are preempted and the lock does not
        /// hold that off, or many CPUs contend for it, use [`with_context`](Self::with_context).
        pub const fn new() -> Self {
            Self::with_context(|| Context::Atomic)
        }
    }

    const_fn! {
        /// A heap without memory that asks what kind of code its caller is: in [`Context::Task`] a request waits for a
        /// lock as long as it takes, in [`Context::Atomic`] it tries for a while, in [`Context::Nmi`] once. Frees never
        /// wait.
        pub const fn with_context(context: fn() -> Context) -> Self {
            Self { regions: Publish::empty(), adding: Lock::new(()), context, on_fault: Publish::empty() }
        }
    }

    /// Calls `hook` with every refused free, before the error is returned; nothing is held, and it may allocate.
    /// Through `GlobalAlloc` there is no other way to learn of them.
    pub fn set_fault_hook(&self, hook: &'static fn(BadFree)) {
        self.on_fault.set(Some(hook));
    }

    /// All regions, the newest first.
    fn regions(&self) -> impl Iterator<Item = &'static Region<L>> {
        core::iter::successors(self.regions.get(), |region| region.next())
    }

    /// The region that lends an address.
    fn region_of(&self, address: usize) -> Option<&'static Region<L>> {
        self.regions().find(|region| region.lends(address))
    }

    /// Adds the region from `start` to `end` that `build` makes, as the only one that adds.
    fn register(
        &self,
        start: usize,
        end: usize,
        build: impl FnOnce(Option<&'static Region<L>>) -> Result<&'static Region<L>, RegionError>,
    ) -> Result<(), RegionError> {
        let _adding = match (self.context)() {
            Context::Task => self.adding.wait(),
            _ => self.adding.try_lock().ok_or(RegionError::WouldBlock)?,
        };
        if self.regions().any(|region| region.overlaps(start, end)) {
            return Err(RegionError::Overlap);
        }
        self.regions.set(Some(build(self.regions.get())?));
        Ok(())
    }

    /// Units for `layout`: the region and the address.
    fn lend(&self, layout: Layout) -> Result<(&'static Region<L>, usize), AllocError> {
        let (count, align) = (units(layout), layout.align().div_ceil(UNIT_BYTES));
        let mut miss = AllocError::NotReady;
        let mut found = None;
        for region in self.regions() {
            match region.lend((self.context)(), count, align) {
                Some(Some(address)) => {
                    found = Some((region, address));
                    break;
                }
                Some(None) if miss != AllocError::WouldBlock => miss = AllocError::NoMemory,
                Some(None) => {}
                None => miss = AllocError::WouldBlock,
            }
        }
        self.tell_late_faults();
        found.ok_or(miss)
    }

    /// Takes back what lies at `address`, lent with `layout` if given. Never waits.
    fn free_address(&self, address: usize, layout: Option<Layout>) -> Result<(), BadFree> {
        let freed = match self.region_of(address) {
            Some(region) => region.take_back(address, layout.map(units)),
            None => Err(foreign(address)),
        };
        self.tell_late_faults();
        freed.map_err(|bad| self.tell(bad))
    }

    /// Makes the allocation at `address` one for another layout where it lies, if it can; answers its region too.
    fn resize(&self, address: usize, from: Layout, to: Layout) -> Result<(&'static Region<L>, bool), AllocError> {
        let Some(region) = self.region_of(address) else { return Err(self.refuse(foreign(address))) };
        // Where it cannot stay for its alignment, it is looked at all the same.
        let count = if address.is_multiple_of(to.align()) { units(to) } else { usize::MAX };
        let resized = region.resize((self.context)(), address, units(from), count);
        self.tell_late_faults();
        match resized.ok_or(AllocError::WouldBlock)? {
            Ok(fits) => Ok((region, fits)),
            Err(bad) => Err(self.refuse(bad)),
        }
    }

    /// The bytes of the allocation that begins at `address`.
    fn lent_bytes(&self, address: usize) -> Option<usize> {
        let (_, count) = self.region_of(address)?.check(address, None).ok()?;
        Some(count as usize * UNIT_BYTES)
    }

    /// A request about what is not lent.
    #[cold]
    fn refuse(&self, bad: BadFree) -> AllocError {
        self.tell(bad);
        AllocError::Impossible
    }

    /// Tells the hook of a wrong free; nothing is held.
    #[cold]
    fn tell(&self, bad: BadFree) -> BadFree {
        if let Some(hook) = self.on_fault.get() {
            hook(bad);
        }
        bad
    }

    /// Tells the hook of wrong frees that came to light when a lock's holder took them along.
    fn tell_late_faults(&self) {
        for region in self.regions() {
            if let Some(bad) = region.late_fault() {
                self.tell(bad);
            }
        }
    }

    /// Whether anything waits for the holder of a lock.
    #[cfg(all(test, loom))]
    pub(crate) fn is_pending(&self) -> bool {
        self.regions().any(|region| region.is_pending())
    }

    /// What there is. Looks at every unit.
    ///
    /// # Errors
    /// [`AllocError::WouldBlock`] as for [`alloc`](Self::alloc).
    pub fn census(&self) -> Result<TinyCensus, AllocError> {
        let mut census = TinyCensus::default();
        for region in self.regions() {
            let counted = region.with((self.context)(), |grove| region.count(grove, &mut census));
            counted.ok_or(AllocError::WouldBlock)?;
        }
        Ok(census)
    }

    /// Checks every invariant. A region whose lock cannot be had is passed over.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn validate(&self) -> Result<(), BrokenRegion> {
        for region in self.regions() {
            if let Some(Err(what)) = region.with((self.context)(), |grove| region.validate(grove)) {
                return Err(BrokenRegion { start: region.start(), what });
            }
        }
        Ok(())
    }
}

fn foreign(address: usize) -> BadFree {
    BadFree { kind: BadFreeKind::Foreign, address, object_bytes: 0, block: 0 }
}

/// The units of a layout, at least one.
fn units(layout: Layout) -> usize {
    layout.size().div_ceil(UNIT_BYTES).max(1)
}
