//! MADT: the CPUs there are, by the number of their local APIC.

use super::TableError;
use super::read::{Entries, Head, u8_at, u32_at};
use crate::fixed_vec::FixedVec;

/// The table's letters.
pub const SIGNATURE: super::Signature = *b"APIC";

const ENABLED: u32 = 1;

/// Reads the APIC numbers of all enabled CPUs from `table`, in the table's order, without repetitions.
///
/// On an error `cpus` holds those read before it.
pub fn cpus<const N: usize>(table: &[u8], cpus: &mut FixedVec<u32, N>) -> Result<(), TableError> {
    for entry in Entries::new(table, 44, Head::Bytes)? {
        let entry = entry?;
        let (apic, flags) = match entry.kind {
            0 => {
                let bytes = entry.at_least(8)?;
                (u32::from(u8_at(bytes, 3)?), u32_at(bytes, 4)?)
            }
            9 => {
                let bytes = entry.at_least(16)?;
                (u32_at(bytes, 4)?, u32_at(bytes, 8)?)
            }
            _ => continue,
        };
        if flags & ENABLED != 0 && !cpus.contains(&apic) {
            cpus.push(apic).map_err(|_| TableError::TooMany)?;
        }
    }
    Ok(())
}
