//! Memory before there is an allocator: what is taken, and a bump allocator over the rest. Pure: it never touches the
//! memory it deals out.
//!
//! It takes from the top of the highest room that fits, so that what boot needs ends up in few pieces and memory below
//! 16 MiB stays free for devices that reach no further. Nothing is given back, except that [`EarlyMemory::retire`] ends
//! it: what is left then belongs to the frame allocator.

use core::fmt;

use crate::fixed_vec::FixedVec;
use crate::memory_map::{FRAME_BYTES, MemoryMap, PhysRange, subtract};

/// Reservations that are kept apart.
pub const MAX_RESERVATIONS: usize = 128;

/// Whom memory was reserved for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Owner {
    /// Frame 0: holds firmware data, and a null pointer should not be memory.
    #[default]
    FrameZero,
    /// The loader's start info, memory map, module list and command line.
    Loader,
    /// A module the loader brought.
    Module,
    /// An ACPI table.
    Acpi,
    /// Where other CPUs begin.
    Trampoline,
    /// The kernel image.
    Image,
    /// Page tables.
    PageTables,
    /// Per-CPU areas.
    PerCpu,
    /// Kernel stacks.
    Stacks,
    /// The boot heap.
    BootHeap,
    /// Metadata of the frame allocator.
    Metadata,
    /// Anything else.
    Other(&'static str),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FrameZero => "frame zero",
            Self::Loader => "loader data",
            Self::Module => "module",
            Self::Acpi => "ACPI tables",
            Self::Trampoline => "AP trampoline",
            Self::Image => "kernel image",
            Self::PageTables => "page tables",
            Self::PerCpu => "per-CPU areas",
            Self::Stacks => "kernel stacks",
            Self::BootHeap => "boot heap",
            Self::Metadata => "frame metadata",
            Self::Other(name) => name,
        })
    }
}

/// Whole frames that are not free, and why. They may overlap each other and memory that is not usable anyway.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reservation {
    /// Which frames.
    pub range: PhysRange,
    /// For whom.
    pub owner: Owner,
}

/// Why early memory was not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EarlyError {
    /// No room of that size and alignment within the bounds.
    NoMemory,
    /// Zero bytes, or an alignment that is no power of two.
    Impossible,
    /// More than [`MAX_RESERVATIONS`] pieces.
    TooManyReservations,
    /// The frame allocator has taken over.
    Retired,
}

/// The reservations.
pub type Reservations = FixedVec<Reservation, MAX_RESERVATIONS>;

/// The bump allocator.
#[derive(Debug)]
pub struct EarlyMemory {
    map: MemoryMap,
    reservations: Reservations,
    retired: bool,
}

impl EarlyMemory {
    /// Nothing of `map` is taken yet.
    pub fn new(map: MemoryMap) -> Self {
        Self { map, reservations: Reservations::new(), retired: false }
    }

    /// The map it works on.
    pub fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// What is taken.
    pub fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// What is not, ascending, in whole frames.
    pub fn free(&self) -> impl Iterator<Item = PhysRange> + Clone + '_ {
        subtract(self.map.usable(), self.reservations.iter().map(|reservation| reservation.range))
    }

    /// Takes all frames that `range` touches, whether they are usable or not.
    pub fn reserve(&mut self, range: PhysRange, owner: Owner) -> Result<(), EarlyError> {
        if self.retired {
            return Err(EarlyError::Retired);
        }
        if range.is_empty() {
            return Ok(());
        }
        let range = range.covering(FRAME_BYTES);
        // Early memory grows downwards: most often this one ends where the last one of its owner starts.
        for last in self.reservations.iter_mut().filter(|reservation| reservation.owner == owner) {
            if range.end() == last.range.start() || range.start() == last.range.end() {
                let (start, end) = (range.start().min(last.range.start()), range.end().max(last.range.end()));
                last.range = PhysRange::new(start, end).ok_or(EarlyError::Impossible)?;
                return Ok(());
            }
        }
        self.reservations.push(Reservation { range, owner }).map_err(|_| EarlyError::TooManyReservations)
    }

    /// Takes whole frames for `bytes` bytes at a multiple of `align` (and of a frame), as high as possible `within`.
    pub fn alloc(&mut self, bytes: u64, align: u64, within: PhysRange, owner: Owner) -> Result<PhysRange, EarlyError> {
        if bytes == 0 || !align.is_power_of_two() {
            return Err(EarlyError::Impossible);
        }
        let bytes = bytes.checked_next_multiple_of(FRAME_BYTES).ok_or(EarlyError::NoMemory)?;
        let align = align.max(FRAME_BYTES);
        let highest = |room: PhysRange| {
            let start = room.end().checked_sub(bytes)? & !(align - 1);
            (start >= room.start()).then(|| PhysRange::with_len(start, bytes)).flatten()
        };
        let rooms = self.free().filter_map(|room| room.intersection(within)?.frames_inside());
        let range = rooms.filter_map(highest).last().ok_or(EarlyError::NoMemory)?;
        self.reserve(range, owner)?;
        Ok(range)
    }

    /// Whether it has ended.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Ends it. What is free, and what was reserved, stays as it is from now on.
    pub fn retire(&mut self) {
        self.retired = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_map::FirmwareEntry;
    use std::vec::Vec;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::new(start, end).expect("ordered")
    }

    fn memory(ranges: &[(u64, u64)]) -> EarlyMemory {
        let entries = ranges.iter().map(|&(start, end)| FirmwareEntry { start, bytes: end - start, kind: 1 });
        EarlyMemory::new(MemoryMap::from_firmware(entries, u64::MAX).expect("map"))
    }

    fn free(memory: &EarlyMemory) -> Vec<PhysRange> {
        memory.free().collect()
    }

    #[test]
    fn takes_from_the_top_within_bounds() {
        let mut memory = memory(&[(0, 0x10_0000), (1 << 32, (1 << 32) + 0x10_0000)]);
        let low = memory.alloc(1, 1, PhysRange::BELOW_4_GIB, Owner::PageTables);
        assert_eq!(low, Ok(range(0xf_f000, 0x10_0000)));
        let high = memory.alloc(0x2000, 0x1_0000, PhysRange::ALL, Owner::Metadata);
        assert_eq!(high, Ok(range((1 << 32) + 0xf_0000, (1 << 32) + 0xf_2000)));
        let odd_bounds = memory.alloc(0x1000, 1, range(0x4800, 0x6800), Owner::Metadata);
        assert_eq!(odd_bounds, Ok(range(0x5000, 0x6000)));
    }

    #[test]
    fn never_gives_what_is_reserved() {
        let mut memory = memory(&[(0, 0x8000)]);
        memory.reserve(range(0, 1), Owner::FrameZero).expect("room");
        memory.reserve(range(0x3fff, 0x5001), Owner::Image).expect("room");
        memory.reserve(range(0x4000, 0x1_0000_0000), Owner::Acpi).expect("may overlap, may be no memory");
        assert_eq!(free(&memory), [range(0x1000, 0x3000)]);
        assert_eq!(memory.alloc(0x2001, 1, PhysRange::ALL, Owner::Stacks), Err(EarlyError::NoMemory));
        assert_eq!(memory.alloc(0x2000, 1, PhysRange::ALL, Owner::Stacks), Ok(range(0x1000, 0x3000)));
        assert_eq!(memory.alloc(1, 1, PhysRange::ALL, Owner::Stacks), Err(EarlyError::NoMemory));
    }

    #[test]
    fn one_owner_in_one_piece() {
        let mut memory = memory(&[(0, 0x10_0000)]);
        for _ in 0..200 {
            memory.alloc(0x1000, 1, PhysRange::ALL, Owner::Stacks).expect("room");
        }
        assert_eq!(memory.reservations().len(), 1);
        assert_eq!(free(&memory), [range(0, 0x10_0000 - 200 * 0x1000)]);
    }

    #[test]
    fn says_why_not() {
        let mut memory = memory(&[(0, 0x100_0000)]);
        assert_eq!(memory.alloc(0, 1, PhysRange::ALL, Owner::Stacks), Err(EarlyError::Impossible));
        assert_eq!(memory.alloc(1, 3, PhysRange::ALL, Owner::Stacks), Err(EarlyError::Impossible));
        assert_eq!(memory.alloc(u64::MAX, 1, PhysRange::ALL, Owner::Stacks), Err(EarlyError::NoMemory));
        for i in 0..MAX_RESERVATIONS as u64 {
            memory.reserve(range(i * 0x2000, i * 0x2000 + 1), Owner::Module).expect("room");
        }
        assert_eq!(memory.reserve(range(0xf0_0000, 0xf0_0001), Owner::Module), Err(EarlyError::TooManyReservations));
        memory.retire();
        assert_eq!(memory.alloc(1, 1, PhysRange::ALL, Owner::Stacks), Err(EarlyError::Retired));
        assert_eq!(memory.reserve(range(0, 1), Owner::Stacks), Err(EarlyError::Retired));
    }
}
