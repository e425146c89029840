//! HMAT: latency and bandwidth from where a request starts to where its memory is.

use super::TableError;
use super::read::{Entries, Entry, Head, u8_at, u16_at, u32_at, u64_at};

/// The table's letters.
pub const SIGNATURE: super::Signature = *b"HMAT";

/// What a figure tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quantity {
    /// Access latency: reading and writing alike.
    AccessLatency,
    /// Read latency.
    ReadLatency,
    /// Write latency.
    WriteLatency,
    /// Access bandwidth: reading and writing alike.
    AccessBandwidth,
    /// Read bandwidth.
    ReadBandwidth,
    /// Write bandwidth.
    WriteBandwidth,
}

impl Quantity {
    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::AccessLatency,
            1 => Self::ReadLatency,
            2 => Self::WriteLatency,
            3 => Self::AccessBandwidth,
            4 => Self::ReadBandwidth,
            5 => Self::WriteBandwidth,
            _ => return None,
        })
    }
}

/// One figure of the table. Latencies are picoseconds in revision 2 and only comparable with each other in revision 1;
/// bandwidths are MB/s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Figure {
    /// What it tells.
    pub quantity: Quantity,
    /// The domain where the request starts.
    pub initiator: u32,
    /// The domain of the memory.
    pub target: u32,
    /// How much.
    pub value: u64,
}

/// Calls `each` for every figure about memory itself, leaving out those about caches before it and those not given.
pub fn figures(table: &[u8], mut each: impl FnMut(Figure)) -> Result<(), TableError> {
    for entry in Entries::new(table, 40, Head::Wide)? {
        let entry = entry?;
        if entry.kind == 1 {
            latency_or_bandwidth(&entry, &mut each)?;
        }
    }
    Ok(())
}

fn latency_or_bandwidth(entry: &Entry<'_>, each: &mut impl FnMut(Figure)) -> Result<(), TableError> {
    const FIXED: usize = 32;
    let bytes = entry.at_least(FIXED)?;
    let about_memory = u8_at(bytes, 8)? & 0xf == 0;
    let Some(quantity) = Quantity::from_number(u8_at(bytes, 9)?).filter(|_| about_memory) else {
        return Ok(());
    };
    let (initiators, targets) = (u64::from(u32_at(bytes, 12)?), u64::from(u32_at(bytes, 16)?));
    // At most 2^32 times 2^32 cells: the sum needs more than 64 bits before it is compared.
    let needed = FIXED as u128
        + 4 * (u128::from(initiators) + u128::from(targets))
        + 2 * u128::from(initiators) * u128::from(targets);
    if needed > bytes.len() as u128 {
        return Err(TableError::Matrix(initiators));
    }
    let (initiators, targets) = (initiators as usize, targets as usize);
    let base = u64_at(bytes, 24)?;
    let target_list = FIXED + 4 * initiators;
    let matrix = target_list + 4 * targets;
    for row in 0..initiators {
        for column in 0..targets {
            let cell = u16_at(bytes, matrix + 2 * (row * targets + column))?;
            if cell == 0 || cell == u16::MAX {
                continue;
            }
            each(Figure {
                quantity,
                initiator: u32_at(bytes, FIXED + 4 * row)?,
                target: u32_at(bytes, target_list + 4 * column)?,
                value: u64::from(cell).saturating_mul(base),
            });
        }
    }
    Ok(())
}
