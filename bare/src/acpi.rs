//! Finding the ACPI tables, and reading the four that tell where CPUs and memory are. Pure: bytes in, data out.
//!
//! The tables come from firmware and are believed only as far as they can be checked: every length is bounded by the
//! table it stands in, every checksum is verified, and whatever is wrong becomes a [`TableError`], after which the rest
//! of the machine still starts.

use crate::fixed_vec::FixedVec;
use crate::memory_map::PhysRange;

pub mod hmat;
pub mod madt;
mod read;
pub mod slit;
pub mod srat;

use read::{u8_at, u32_at, u64_at};

/// Tables that are kept.
pub const MAX_TABLES: usize = 64;

/// Bytes of the header every table begins with.
const HEADER_BYTES: usize = 36;
/// A table longer than this is taken for damaged: the DSDTs of large servers stay below 1 MiB.
const MAX_TABLE_BYTES: u32 = 16 << 20;
/// Where a PC keeps the root pointer: the last KiB of low memory, and the BIOS area.
const RSDP_PLACES: [(u64, u64); 2] = [(0x9_fc00, 0xa_0000), (0xe_0000, 0x10_0000)];

/// A table's four letters.
pub type Signature = [u8; 4];

/// What is wrong with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TableError {
    /// There is none.
    #[default]
    Missing,
    /// It lies where it cannot be read, or in memory that is used for something else.
    OutOfReach,
    /// Its header says an impossible length.
    Length(u32),
    /// It ends before the fields it must have.
    TooShort,
    /// Its bytes do not add up to zero.
    Checksum,
    /// The entry at this offset is shorter than its kind must be.
    EntryTooShort(usize),
    /// The entry at this offset runs past the end of the table.
    EntryPastEnd(usize),
    /// A matrix of this many rows does not fit the table.
    Matrix(u64),
    /// More entries than this kernel can hold; those that fit are used.
    TooMany,
}

impl core::fmt::Display for TableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::OutOfReach => f.write_str("out of reach"),
            Self::Length(bytes) => write!(f, "impossible length {bytes}"),
            Self::TooShort => f.write_str("too short"),
            Self::Checksum => f.write_str("bad checksum"),
            Self::EntryTooShort(offset) => write!(f, "entry at {offset:#x} too short"),
            Self::EntryPastEnd(offset) => write!(f, "entry at {offset:#x} runs past the end"),
            Self::Matrix(rows) => write!(f, "matrix of {rows} rows does not fit"),
            Self::TooMany => f.write_str("more entries than this kernel can hold"),
        }
    }
}

/// Physical memory that can be read.
pub trait PhysicalMemory<'a> {
    /// The bytes of `range`, or `None` where they may not or cannot be read.
    fn bytes(&self, range: PhysRange) -> Option<&'a [u8]>;
}

/// A table, or what is known of a damaged one.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// Its letters.
    pub signature: Signature,
    /// Where it lies.
    pub range: PhysRange,
    contents: Result<&'a [u8], TableError>,
}

impl Default for Table<'_> {
    fn default() -> Self {
        Self { signature: [0; 4], range: PhysRange::default(), contents: Err(TableError::Missing) }
    }
}

/// The tables of a machine.
#[derive(Clone, Debug, Default)]
pub struct Tables<'a> {
    tables: FixedVec<Table<'a>, MAX_TABLES>,
    dropped: usize,
}

impl<'a> Tables<'a> {
    /// Follows the root pointer at `hint`, or searches for it where a PC keeps it if there is none at `hint`.
    pub fn locate(memory: &impl PhysicalMemory<'a>, hint: u64) -> Result<Self, TableError> {
        let hinted = if hint == 0 { None } else { read_rsdp(memory, hint) };
        let root = hinted.or_else(|| search_rsdp(memory)).ok_or(TableError::Missing)?;
        let mut tables = Self::default();
        tables.keep(Table { signature: *b"RSDP", range: root.range, contents: Ok(&[]) });
        // An XSDT that is damaged may still have an RSDT beside it.
        let wide = root.xsdt.map(|at| (read_table(memory, at), 8));
        let narrow = root.rsdt.map(|at| (read_table(memory, at), 4));
        let (list, pointer_bytes) = match (wide, narrow) {
            (Some((xsdt, width)), _) if xsdt.contents.is_ok() => (xsdt, width),
            (_, Some(rsdt)) => rsdt,
            (Some(xsdt), None) => xsdt,
            (None, None) => return Err(TableError::Missing),
        };
        let pointers = list.contents?;
        tables.keep(list);
        for pointer in pointers[HEADER_BYTES..].chunks_exact(pointer_bytes) {
            let at = if pointer_bytes == 8 { u64_at(pointer, 0)? } else { u64::from(u32_at(pointer, 0)?) };
            if at != 0 {
                tables.keep(read_table(memory, at));
            }
        }
        Ok(tables)
    }

    /// All tables, the root ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Table<'a>> {
        self.tables.iter()
    }

    /// How many tables found no room in the list.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// The bytes of the first table with these letters, header included, or why it cannot be used.
    pub fn find(&self, signature: Signature) -> Result<&'a [u8], TableError> {
        let table = self.tables.iter().find(|table| table.signature == signature);
        table.ok_or(TableError::Missing)?.contents
    }

    fn keep(&mut self, table: Table<'a>) {
        if self.tables.push(table).is_err() {
            self.dropped += 1;
        }
    }
}

/// What the root pointer says.
struct Root {
    range: PhysRange,
    rsdt: Option<u64>,
    xsdt: Option<u64>,
}

fn read_rsdp<'a>(memory: &impl PhysicalMemory<'a>, at: u64) -> Option<Root> {
    let range = PhysRange::with_len(at, 20)?;
    let first = memory.bytes(range)?;
    if !first.starts_with(b"RSD PTR ") || !adds_up(first) {
        return None;
    }
    let rsdt = u32_at(first, 16).ok().map(u64::from).filter(|&at| at != 0);
    let old = Root { range, rsdt, xsdt: None };
    if u8_at(first, 15).ok()? < 2 {
        return Some(old);
    }
    // Later versions go on. If that part is damaged, the first part still counts.
    let range = PhysRange::with_len(at, 36)?;
    match memory.bytes(range) {
        Some(whole) if adds_up(whole) => {
            let xsdt = u64_at(whole, 24).ok().filter(|&at| at != 0);
            Some(Root { range, rsdt, xsdt })
        }
        _ => Some(old),
    }
}

fn search_rsdp<'a>(memory: &impl PhysicalMemory<'a>) -> Option<Root> {
    let places = RSDP_PLACES.iter().flat_map(|&(start, end)| (start..end).step_by(16));
    places.filter_map(|at| read_rsdp(memory, at)).next()
}

fn read_table<'a>(memory: &impl PhysicalMemory<'a>, at: u64) -> Table<'a> {
    let mut table = Table::default();
    table.contents = check_table(memory, at, &mut table.signature, &mut table.range);
    table
}

fn check_table<'a>(
    memory: &impl PhysicalMemory<'a>,
    at: u64,
    signature: &mut Signature,
    range: &mut PhysRange,
) -> Result<&'a [u8], TableError> {
    let bytes_at = |bytes| {
        let range = PhysRange::with_len(at, bytes).ok_or(TableError::OutOfReach)?;
        Ok((range, memory.bytes(range).ok_or(TableError::OutOfReach)?))
    };
    let (_, header) = bytes_at(HEADER_BYTES as u64)?;
    *signature = header.first_chunk().copied().unwrap_or_default();
    let len = u32_at(header, 4)?;
    if (len as usize) < HEADER_BYTES || len > MAX_TABLE_BYTES {
        return Err(TableError::Length(len));
    }
    let (whole, bytes) = bytes_at(u64::from(len))?;
    *range = whole;
    if adds_up(bytes) { Ok(bytes) } else { Err(TableError::Checksum) }
}

fn adds_up(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

#[cfg(test)]
#[path = "acpi/tests.rs"]
pub(crate) mod tests;
