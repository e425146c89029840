//! SLIT: how far one proximity domain is from another; 10 is near.

use super::TableError;
use super::read::u64_at;

/// The table's letters.
pub const SIGNATURE: super::Signature = *b"SLIT";

/// The distances of a machine, by domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Distances<'a> {
    matrix: &'a [u8],
    domains: usize,
}

impl<'a> Distances<'a> {
    /// Reads `table`.
    pub fn parse(table: &'a [u8]) -> Result<Self, TableError> {
        let rows = u64_at(table, 36)?;
        let matrix = &table[44..];
        let domains = usize::try_from(rows).map_err(|_| TableError::Matrix(rows))?;
        match domains.checked_mul(domains) {
            Some(cells) if cells <= matrix.len() => Ok(Self { matrix: &matrix[..cells], domains }),
            _ => Err(TableError::Matrix(rows)),
        }
    }

    /// The distance of the memory of `to` as seen from `from`. `None` outside the matrix, and for the values 0 to 9,
    /// which mean nothing.
    pub fn get(&self, from: u32, to: u32) -> Option<u8> {
        let (from, to) = (from as usize, to as usize);
        if from >= self.domains || to >= self.domains {
            return None;
        }
        Some(self.matrix[from * self.domains + to]).filter(|&distance| distance >= 10)
    }
}
