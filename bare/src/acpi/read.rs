//! Little-endian fields, and the entries behind a table's fixed part.

use super::TableError;

pub(super) fn u8_at(bytes: &[u8], at: usize) -> Result<u8, TableError> {
    bytes.get(at).copied().ok_or(TableError::TooShort)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, TableError> {
    chunk_at(bytes, at).map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, TableError> {
    chunk_at(bytes, at).map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, TableError> {
    chunk_at(bytes, at).map(u64::from_le_bytes)
}

fn chunk_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], TableError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(TableError::TooShort)
}

/// An entry with its own kind and length, at `offset` of the table.
pub(super) struct Entry<'a> {
    pub(super) kind: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry, if it has at least `bytes` bytes.
    pub(super) fn at_least(&self, bytes: usize) -> Result<&'a [u8], TableError> {
        if self.bytes.len() < bytes { Err(TableError::EntryTooShort(self.offset)) } else { Ok(self.bytes) }
    }
}

/// How an entry begins.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// A byte of kind, a byte of length.
    Bytes,
    /// Two bytes of kind, two reserved, four of length.
    Wide,
}

impl Head {
    const fn bytes(self) -> usize {
        match self {
            Self::Bytes => 2,
            Self::Wide => 8,
        }
    }

    fn read(self, bytes: &[u8]) -> Result<(u16, usize), TableError> {
        match self {
            Self::Bytes => Ok((u16::from(u8_at(bytes, 0)?), usize::from(u8_at(bytes, 1)?))),
            Self::Wide => Ok((u16_at(bytes, 0)?, u32_at(bytes, 4)? as usize)),
        }
    }
}

/// Walks the entries; an error is the last thing it gives.
pub(super) struct Entries<'a> {
    table: &'a [u8],
    offset: usize,
    head: Head,
}

impl<'a> Entries<'a> {
    /// The entries of `table` from `offset` on.
    pub(super) fn new(table: &'a [u8], offset: usize, head: Head) -> Result<Self, TableError> {
        if table.len() < offset { Err(TableError::TooShort) } else { Ok(Self { table, offset, head }) }
    }

    fn take(&mut self) -> Result<Entry<'a>, TableError> {
        let offset = self.offset;
        let rest = &self.table[offset..];
        if rest.len() < self.head.bytes() {
            return Err(TableError::EntryPastEnd(offset));
        }
        let (kind, len) = self.head.read(rest)?;
        // A length of zero would never end.
        if len < self.head.bytes() {
            return Err(TableError::EntryTooShort(offset));
        }
        let bytes = rest.get(..len).ok_or(TableError::EntryPastEnd(offset))?;
        self.offset += len;
        Ok(Entry { kind, offset, bytes })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.table.len() {
            return None;
        }
        let entry = self.take();
        if entry.is_err() {
            self.offset = self.table.len();
        }
        Some(entry)
    }
}
