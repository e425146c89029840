//! SRAT: which CPU and which memory belongs to which proximity domain.

use super::TableError;
use super::read::{Entries, Head, u8_at, u16_at, u32_at, u64_at};
use crate::fixed_vec::FixedVec;
use crate::memory_map::PhysRange;

/// The table's letters.
pub const SIGNATURE: super::Signature = *b"SRAT";

const ENABLED: u32 = 1;
const HOT_PLUGGABLE: u32 = 2;

/// A CPU's domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuAffinity {
    /// Number of its local APIC.
    pub apic: u32,
    /// The domain.
    pub domain: u32,
}

/// A domain's memory. It may cover holes, and a domain may have several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryAffinity {
    /// Addresses, whether there is memory behind them or not.
    pub range: PhysRange,
    /// The domain.
    pub domain: u32,
    /// Whether memory may appear there later.
    pub hot_pluggable: bool,
}

/// The enabled entries of an SRAT.
#[derive(Clone, Debug, Default)]
pub struct Affinities<const CPUS: usize, const RANGES: usize> {
    /// CPUs, in the table's order.
    pub cpus: FixedVec<CpuAffinity, CPUS>,
    /// Memory, in the table's order.
    pub memory: FixedVec<MemoryAffinity, RANGES>,
}

impl<const CPUS: usize, const RANGES: usize> Affinities<CPUS, RANGES> {
    /// Reads `table`.
    pub fn parse(table: &[u8]) -> Result<Self, TableError> {
        let mut affinities = Self::default();
        for entry in Entries::new(table, 48, Head::Bytes)? {
            let entry = entry?;
            match entry.kind {
                0 => affinities.local_apic(entry.at_least(16)?)?,
                1 => affinities.memory(entry.at_least(40)?)?,
                2 => affinities.x2apic(entry.at_least(24)?)?,
                _ => {}
            }
        }
        Ok(affinities)
    }

    fn local_apic(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        // The domain's upper bytes were added later, elsewhere.
        let low = u32::from(u8_at(bytes, 2)?);
        let high = u32::from(u8_at(bytes, 9)?) << 8 | u32::from(u16_at(bytes, 10)?) << 16;
        let cpu = CpuAffinity { apic: u32::from(u8_at(bytes, 3)?), domain: low | high };
        self.cpu(cpu, u32_at(bytes, 4)?)
    }

    fn x2apic(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let cpu = CpuAffinity { apic: u32_at(bytes, 8)?, domain: u32_at(bytes, 4)? };
        self.cpu(cpu, u32_at(bytes, 12)?)
    }

    fn cpu(&mut self, cpu: CpuAffinity, flags: u32) -> Result<(), TableError> {
        if flags & ENABLED == 0 {
            return Ok(());
        }
        self.cpus.push(cpu).map_err(|_| TableError::TooMany)
    }

    fn memory(&mut self, bytes: &[u8]) -> Result<(), TableError> {
        let flags = u32_at(bytes, 28)?;
        let (start, len) = (u64_at(bytes, 8)?, u64_at(bytes, 16)?);
        if flags & ENABLED == 0 || len == 0 {
            return Ok(());
        }
        // A range that wraps covers everything up to the last address.
        let range = PhysRange::new(start, start.saturating_add(len)).unwrap_or_default();
        let hot_pluggable = flags & HOT_PLUGGABLE != 0;
        let memory = MemoryAffinity { range, domain: u32_at(bytes, 2)?, hot_pluggable };
        self.memory.push(memory).map_err(|_| TableError::TooMany)
    }
}
