//! Physical memory: the window through which the kernel sees it, and early memory by name.
//!
//! All of RAM, and everything below 4 GiB, is mapped from [`WINDOW`] on. Who may touch which byte of it is decided
//! here: an [`EarlyBlock`] is the right to the bytes of one allocation, firmware tables are only read where nobody
//! writes.
#![allow(unsafe_code, reason = "pointers made of physical addresses")]

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;

use lock_api::Mutex;
use pagemill::{Config, FrameCount, FrameRange, Frames, Request};

use crate::acpi::PhysicalMemory;
use crate::early::{EarlyError, EarlyMemory, Owner, Reservations};
use crate::fixed_vec::FixedVec;
use crate::memory_map::{FRAME_BYTES, MAX_REGIONS, PhysRange};
use crate::paging::TableMemory;
use crate::percpu::{Bare, IrqLock};

/// Where physical address 0 is mapped.
pub const WINDOW: u64 = 0xffff_8000_0000_0000;
/// Physical memory beyond this is not mapped, and not used.
pub const WINDOW_BYTES: u64 = 1 << 45;

static EARLY: Mutex<IrqLock, Option<EarlyMemory>> = Mutex::new(None);

/// The address at which physical address `at` is seen. Whether anything is mapped there, and who may use it, is another
/// question.
pub fn pointer(at: u64) -> *mut u8 {
    ptr::with_exposed_provenance_mut((WINDOW + at) as usize)
}

/// Puts the early allocator in charge.
pub(crate) fn init(memory: EarlyMemory) {
    *EARLY.lock() = Some(memory);
}

/// Early memory: whole frames for `bytes` bytes at a multiple of `align`, as high as possible `within`.
pub fn alloc(bytes: u64, align: u64, within: PhysRange, owner: Owner) -> Result<EarlyBlock, EarlyError> {
    let mut early = EARLY.lock();
    let memory = early.as_mut().ok_or(EarlyError::NoMemory)?;
    memory.alloc(bytes, align, within, owner).map(|range| EarlyBlock { range })
}

/// Marks frames that early memory must not deal out, for instance because a device uses them.
pub fn reserve(range: PhysRange, owner: Owner) -> Result<(), EarlyError> {
    EARLY.lock().as_mut().ok_or(EarlyError::NoMemory)?.reserve(range, owner)
}

/// Ends early memory: from now on [`free_ranges`] and [`reservations`] stay as they are, and what is free belongs to
/// whoever asked for the end, which works once.
pub fn retire() -> Result<(), EarlyError> {
    let mut early = EARLY.lock();
    let memory = early.as_mut().ok_or(EarlyError::NoMemory)?;
    if memory.is_retired() {
        return Err(EarlyError::Retired);
    }
    memory.retire();
    Ok(())
}

/// Usable memory that nobody has taken, ascending, in whole frames.
pub fn free_ranges() -> FixedVec<PhysRange, { 2 * MAX_REGIONS }> {
    let mut ranges = FixedVec::new();
    if let Some(memory) = EARLY.lock().as_ref() {
        for range in memory.free() {
            // Each region and each reservation ends at most one piece, so they fit.
            let _ = ranges.push(range);
        }
    }
    ranges
}

/// What is taken, and by whom.
pub fn reservations() -> Reservations {
    EARLY.lock().as_ref().map(|memory| *memory.reservations()).unwrap_or_default()
}

/// The right to use the bytes of one early allocation. Dropping it wastes them.
#[must_use]
#[derive(Debug)]
pub struct EarlyBlock {
    range: PhysRange,
}

impl EarlyBlock {
    /// Where it lies.
    pub fn range(&self) -> PhysRange {
        self.range
    }

    /// Its bytes, through the window. What they hold is anyone's guess.
    pub fn into_bytes(self) -> &'static mut [MaybeUninit<u8>] {
        let start = pointer(self.range.start()).cast();
        // SAFETY: usable memory below the window's end is mapped there; early memory deals out a frame only once, and
        // this block is given up for the reference.
        unsafe { slice::from_raw_parts_mut(start, self.range.bytes() as usize) }
    }

    /// Its bytes, all zero.
    pub fn into_zeroed_bytes(self) -> &'static mut [u8] {
        let bytes = self.into_bytes();
        bytes.fill(MaybeUninit::new(0));
        let start = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: the same bytes, which have just been written; the first reference is not used again.
        unsafe { slice::from_raw_parts_mut(start, bytes.len()) }
    }

    /// Puts `value` at its beginning.
    ///
    /// # Panics
    /// If the value does not fit, or would not be aligned there.
    pub fn place<T: 'static>(self, value: T) -> &'static mut T {
        let bytes = self.into_bytes();
        assert!(size_of::<T>() <= bytes.len(), "early block too small");
        let place = NonNull::from(bytes).cast::<MaybeUninit<T>>();
        assert!(place.is_aligned(), "early block not aligned");
        // SAFETY: checked to be large enough and aligned; the bytes are ours alone, and may be uninitialised.
        unsafe { &mut *place.as_ptr() }.write(value)
    }
}

/// Calls `work` with at least `bytes` bytes in frames that `lender` lends, at a multiple of a frame; `false`, and no
/// call, if it has not that many in a row. They are given back afterwards. What they hold is anyone's guess.
///
/// # Safety
/// `lender` manages RAM of this machine that nobody else uses, and nobody frees what it has lent to others.
pub unsafe fn with_bytes<C: Config>(
    lender: &Frames<'_, Bare, C>,
    bytes: usize,
    work: &mut dyn FnMut(&mut [MaybeUninit<u8>]),
) -> bool {
    let count = FrameCount::new(bytes.div_ceil(FRAME_BYTES as usize).max(1));
    let Ok(range) = lender.alloc_range(&Request::frames(count)) else { return false };
    let span = range.into_raw();
    let start = pointer(span.start().number() as u64 * FRAME_BYTES).cast();
    // SAFETY: RAM is mapped in the window, and the caller promises that these frames are ours until we free them.
    work(unsafe { slice::from_raw_parts_mut(start, count.get() * FRAME_BYTES as usize) });
    let freed = lender.free_range(FrameRange::from_raw(span));
    assert_eq!(freed, Ok(()), "what was lent can be freed");
    true
}

/// The bytes of lent frames, for ever: the right to them ends here. What they hold is anyone's guess.
///
/// # Safety
/// `frames` were lent by an instance that manages RAM of this machine that nobody else uses.
pub unsafe fn bytes_of(frames: FrameRange) -> &'static mut [MaybeUninit<u8>] {
    let span = frames.into_raw();
    let start = pointer(span.start().number() as u64 * FRAME_BYTES).cast();
    // SAFETY: RAM is mapped in the window; the frames are the caller's by his promise, who has given them up.
    unsafe { slice::from_raw_parts_mut(start, span.count().get() * FRAME_BYTES as usize) }
}

/// Page tables in early memory.
#[derive(Debug)]
pub(crate) struct WindowTables;

impl TableMemory for WindowTables {
    fn new_table(&mut self) -> Option<u64> {
        let block = alloc(4096, 4096, PhysRange::BELOW_4_GIB, Owner::PageTables).ok()?;
        let at = block.range().start();
        block.into_zeroed_bytes();
        Some(at)
    }

    fn read(&self, table: u64, index: usize) -> u64 {
        // SAFETY: `Mapper` passes tables that came from `new_table`, and an index below 512. Volatile: the CPU may set
        // bits in an entry at any time.
        unsafe { entry(table, index).read_volatile() }
    }

    fn write(&mut self, table: u64, index: usize, value: u64) {
        // SAFETY: as in `read`; a table is written only by the one that builds it.
        unsafe { entry(table, index).write_volatile(value) }
    }
}

fn entry(table: u64, index: usize) -> *mut u64 {
    pointer(table + 8 * (index as u64 % 512)).cast()
}

/// Memory that the firmware and the loader filled, to be read before early memory deals out any.
pub(crate) struct FirmwareMemory {
    /// Frames that this kernel is already writing to: its image.
    ours: PhysRange,
}

impl FirmwareMemory {
    /// # Safety
    /// Besides `ours`, nothing below 4 GiB is written as long as the bytes given out are in use, except frames that
    /// were not given out: whoever reads must reserve what it wants to keep before early memory is dealt out.
    pub(crate) unsafe fn new(ours: PhysRange) -> Self {
        Self { ours }
    }
}

impl PhysicalMemory<'static> for FirmwareMemory {
    fn bytes(&self, range: PhysRange) -> Option<&'static [u8]> {
        // Address 0 would be readable, but nothing the firmware points to lies there.
        if range.start() == 0 || !PhysRange::BELOW_4_GIB.contains(range) || range.overlaps(self.ours) {
            return None;
        }
        // SAFETY: the first 4 GiB are mapped from the first instruction on, and the constructor's promise keeps them
        // unchanged.
        Some(unsafe { slice::from_raw_parts(pointer(range.start()), range.bytes() as usize) })
    }
}
