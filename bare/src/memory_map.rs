//! Physical memory as the firmware describes it, brought into order. Pure: numbers in, numbers out.
//!
//! Firmware maps come unsorted, overlapping, with empty, unaligned and wrapping entries. A [`MemoryMap`] is sorted and
//! free of overlaps; where entries contradict each other the more careful one holds, so that a byte is usable only if
//! nobody says otherwise. What was odd is kept as [`MapProblem`]s, never silently mended.

use core::fmt;

use crate::fixed_vec::FixedVec;

/// Bytes of a frame.
pub const FRAME_BYTES: u64 = 4096;
/// Entries a firmware map may have, and regions that may come of it.
pub const MAX_REGIONS: usize = 128;
/// Problems that are kept in detail; the rest is counted.
pub const MAX_PROBLEMS: usize = 16;

/// Physical bytes from `start` up to, and not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysRange {
    start: u64,
    end: u64,
}

impl PhysRange {
    /// Everything below 4 GiB: what 32-bit code and the first page tables reach.
    pub const BELOW_4_GIB: Self = Self { start: 0, end: 1 << 32 };
    /// Every address.
    pub const ALL: Self = Self { start: 0, end: u64::MAX };

    /// `start..end`, or `None` if it ends before it starts.
    pub const fn new(start: u64, end: u64) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// `bytes` bytes from `start`, or `None` if they wrap around the end of the address space.
    pub const fn with_len(start: u64, bytes: u64) -> Option<Self> {
        match start.checked_add(bytes) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The first byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many bytes.
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether all of `other` lies in it.
    pub const fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// What both have, or `None` if that is nothing.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }

    /// Whether a byte lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// The whole frames inside, or `None` if there are none.
    pub fn frames_inside(self) -> Option<Self> {
        let start = self.start.checked_next_multiple_of(FRAME_BYTES)?;
        let end = self.end & !(FRAME_BYTES - 1);
        (start < end).then_some(Self { start, end })
    }

    /// The least run of `align` bytes units that covers it; the last unit of the address space is cut short.
    pub fn covering(self, align: u64) -> Self {
        debug_assert!(align.is_power_of_two());
        let end = self.end.checked_next_multiple_of(align).unwrap_or(u64::MAX);
        Self { start: self.start & !(align - 1), end }
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#014x}..{:#014x}", self.start, self.end)
    }
}

/// What a region is, from free for all to keep out: where two entries overlap, the later in this list holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum RegionKind {
    /// Ordinary memory.
    Usable,
    /// ACPI tables: usable once nobody reads them any more.
    AcpiReclaimable,
    /// Memory that ACPI keeps over sleep.
    AcpiNvs,
    /// Memory that keeps its contents: not for an allocator that does not know.
    Persistent,
    /// Belongs to the firmware or to a device.
    #[default]
    Reserved,
    /// Known to be broken.
    Bad,
}

impl RegionKind {
    /// The kind behind a number of the E820 interface, which PVH uses too. What is not known is reserved.
    pub const fn from_e820(number: u32) -> Self {
        match number {
            1 => Self::Usable,
            3 => Self::AcpiReclaimable,
            4 => Self::AcpiNvs,
            5 => Self::Bad,
            7 => Self::Persistent,
            _ => Self::Reserved,
        }
    }
}

impl fmt::Display for RegionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Usable => "usable",
            Self::AcpiReclaimable => "ACPI tables",
            Self::AcpiNvs => "ACPI NVS",
            Self::Persistent => "persistent",
            Self::Reserved => "reserved",
            Self::Bad => "bad",
        })
    }
}

/// One line of the firmware's map, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FirmwareEntry {
    /// First byte.
    pub start: u64,
    /// Length.
    pub bytes: u64,
    /// Kind, an E820 number.
    pub kind: u32,
}

/// Bytes of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// Where.
    pub range: PhysRange,
    /// What.
    pub kind: RegionKind,
}

/// What was odd about entry number `entry` of a firmware map.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MapProblem {
    /// Position in the firmware's order, from 0.
    pub entry: usize,
    /// What was odd.
    pub oddity: MapOddity,
}

/// Ways for an entry of a firmware map to be odd, and what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MapOddity {
    /// No bytes: ignored.
    #[default]
    Empty,
    /// Runs past the end of the address space. A usable entry is dropped, another one is cut there.
    Wraps,
    /// Lies, or ends, beyond the memory the kernel can map: the usable part beyond is dropped.
    BeyondLimit,
    /// Usable, but not from frame to frame: the parts of frames are dropped.
    Unaligned,
    /// Usable, but another entry says otherwise for a part of it: that part is not used.
    Contradicted,
}

/// A firmware map that cannot be used at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// More than [`MAX_REGIONS`] entries, or regions after putting them in order. Leaving one out could hand out memory
    /// that is not ours.
    TooManyRegions,
    /// Nothing usable in it.
    NoMemory,
}

/// The memory of a machine: sorted, without overlaps. Usable regions are whole frames, the others exact bytes.
#[derive(Clone, Debug, Default)]
pub struct MemoryMap {
    regions: FixedVec<Region, MAX_REGIONS>,
    problems: FixedVec<MapProblem, MAX_PROBLEMS>,
    problem_count: usize,
}

impl MemoryMap {
    /// Brings a firmware's entries into order. Usable memory at or above `limit` is dropped.
    pub fn from_firmware(entries: impl IntoIterator<Item = FirmwareEntry>, limit: u64) -> Result<Self, MapError> {
        let mut map = Self::default();
        let mut claims = FixedVec::<Claim, MAX_REGIONS>::new();
        for (position, entry) in entries.into_iter().enumerate() {
            if let Some(region) = map.admit(position, entry, limit) {
                claims.push((position, region)).map_err(|_| MapError::TooManyRegions)?;
            }
        }
        map.settle(&claims)?;
        if map.usable().next().is_none() {
            return Err(MapError::NoMemory);
        }
        Ok(map)
    }

    /// All regions, ascending.
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The usable regions, ascending, in whole frames.
    pub fn usable(&self) -> impl Iterator<Item = PhysRange> + Clone + '_ {
        self.regions.iter().filter(|region| region.kind == RegionKind::Usable).map(|region| region.range)
    }

    /// Bytes in usable regions.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().map(PhysRange::bytes).sum()
    }

    /// The first [`MAX_PROBLEMS`] oddities found.
    pub fn problems(&self) -> &[MapProblem] {
        &self.problems
    }

    /// How many oddities were found in all.
    pub fn problem_count(&self) -> usize {
        self.problem_count
    }

    /// What an entry claims, as far as it can be believed.
    fn admit(&mut self, entry: usize, raw: FirmwareEntry, limit: u64) -> Option<Region> {
        let kind = RegionKind::from_e820(raw.kind);
        let usable = kind == RegionKind::Usable;
        if raw.bytes == 0 {
            self.note(entry, MapOddity::Empty);
            return None;
        }
        let mut range = match PhysRange::with_len(raw.start, raw.bytes) {
            Some(range) => range,
            None => {
                self.note(entry, MapOddity::Wraps);
                if usable {
                    return None;
                }
                PhysRange { start: raw.start, end: u64::MAX }
            }
        };
        if usable && range.end > limit {
            self.note(entry, MapOddity::BeyondLimit);
            range = range.intersection(PhysRange { start: 0, end: limit })?;
        }
        if usable && (range.start % FRAME_BYTES != 0 || range.end % FRAME_BYTES != 0) {
            self.note(entry, MapOddity::Unaligned);
        }
        Some(Region { range, kind })
    }

    /// Cuts overlapping claims into regions. Between two neighbouring borders the claims do not change, so it is enough
    /// to walk from border to border and to ask for the most careful claim there.
    fn settle(&mut self, claims: &[Claim]) -> Result<(), MapError> {
        self.note_contradictions(claims);
        let claims = claims.iter().map(|&(_, region)| region);
        let mut pieces = FixedVec::<Region, { 2 * MAX_REGIONS }>::new();
        let mut at = claims.clone().map(|claim| claim.range.start).min().unwrap_or(0);
        loop {
            let borders = claims.clone().flat_map(|claim| [claim.range.start, claim.range.end]);
            let Some(next) = borders.filter(|&border| border > at).min() else { break };
            let here = PhysRange { start: at, end: next };
            let kind = claims.clone().filter(|claim| claim.range.contains(here)).map(|claim| claim.kind).max();
            if let Some(kind) = kind {
                append(&mut pieces, Region { range: here, kind }).ok_or(MapError::TooManyRegions)?;
            }
            at = next;
        }
        for piece in &pieces {
            let range = if piece.kind == RegionKind::Usable { piece.range.frames_inside() } else { Some(piece.range) };
            if let Some(range) = range {
                self.regions.push(Region { range, kind: piece.kind }).map_err(|_| MapError::TooManyRegions)?;
            }
        }
        Ok(())
    }

    fn note_contradictions(&mut self, claims: &[Claim]) {
        for &(entry, claim) in claims {
            let disputed = |(_, other): &Claim| other.kind > claim.kind && other.range.overlaps(claim.range);
            if claim.kind == RegionKind::Usable && claims.iter().any(disputed) {
                self.note(entry, MapOddity::Contradicted);
            }
        }
    }

    fn note(&mut self, entry: usize, oddity: MapOddity) {
        self.problem_count += 1;
        // A full list still counts.
        let _ = self.problems.push(MapProblem { entry, oddity });
    }
}

/// An entry's position, and what it claims.
type Claim = (usize, Region);

/// Adds `next` behind `pieces`, as part of the last one where it goes on.
fn append<const N: usize>(pieces: &mut FixedVec<Region, N>, next: Region) -> Option<()> {
    match pieces.last_mut() {
        Some(last) if last.kind == next.kind && last.range.end == next.range.start => last.range.end = next.range.end,
        _ => pieces.push(next).ok()?,
    }
    Some(())
}

/// What is left of `ranges` (ascending, without overlaps) after `cuts` (in any order), ascending.
pub fn subtract<'a>(
    ranges: impl Iterator<Item = PhysRange> + Clone + 'a,
    cuts: impl Iterator<Item = PhysRange> + Clone + 'a,
) -> impl Iterator<Item = PhysRange> + Clone + 'a {
    ranges.flat_map(move |range| {
        let cuts = cuts.clone();
        let mut at = range.start;
        core::iter::from_fn(move || {
            while at < range.end {
                let rest = PhysRange { start: at, end: range.end };
                // The cut that reaches furthest among those over the first byte left; else the nearest one ahead.
                let covering = cuts.clone().filter(|cut| cut.start <= at && at < cut.end).map(|cut| cut.end).max();
                if let Some(end) = covering {
                    at = end;
                    continue;
                }
                let ahead = cuts.clone().filter(|cut| cut.overlaps(rest)).map(|cut| cut.start).min();
                let free = PhysRange { start: at, end: ahead.unwrap_or(range.end) };
                at = free.end;
                return Some(free);
            }
            None
        })
    })
}

#[cfg(test)]
#[path = "memory_map/tests.rs"]
mod tests;
