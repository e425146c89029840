//! What the loader hands over: the start info of the PVH boot protocol. Pure: bytes in, data out.

use crate::memory_map::{FirmwareEntry, PhysRange};

/// Bytes of the start info, version 1.
pub const START_INFO_BYTES: u64 = 56;
/// Bytes of an entry of its memory map.
pub const MAP_ENTRY_BYTES: u64 = 24;
/// Bytes of an entry of its module list.
pub const MODULE_BYTES: u64 = 32;
/// Bytes of the command line that are looked at.
pub const COMMAND_LINE_BYTES: u64 = 4096;

const MAGIC: u32 = 0x336e_c578;

/// The start info; every address is physical.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartInfo {
    /// The list of modules, such as an initial file system.
    pub modules: PhysRange,
    /// Where the command line begins; it ends with a zero byte. 0 if there is none.
    pub command_line: u64,
    /// The root pointer of the ACPI tables, 0 if the loader does not know it.
    pub rsdp: u64,
    /// The memory map.
    pub memory_map: PhysRange,
}

/// A start info that cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartInfoError {
    /// Fewer bytes than version 1 has.
    TooShort,
    /// Not a start info at all.
    Magic(u32),
    /// An older version, without a memory map.
    Version(u32),
    /// A list in it runs past the end of the address space.
    Wraps,
}

impl StartInfo {
    /// Reads the start info at the beginning of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, StartInfoError> {
        if (bytes.len() as u64) < START_INFO_BYTES {
            return Err(StartInfoError::TooShort);
        }
        let u32_at = |at| read_u32(bytes, at);
        let u64_at = |at| read_u64(bytes, at);
        let magic = u32_at(0);
        if magic != MAGIC {
            return Err(StartInfoError::Magic(magic));
        }
        let version = u32_at(4);
        if version < 1 {
            return Err(StartInfoError::Version(version));
        }
        let list =
            |start, count: u32, each| PhysRange::with_len(start, u64::from(count) * each).ok_or(StartInfoError::Wraps);
        Ok(Self {
            modules: list(u64_at(16), u32_at(12), MODULE_BYTES)?,
            command_line: u64_at(24),
            rsdp: u64_at(32),
            memory_map: list(u64_at(40), u32_at(48), MAP_ENTRY_BYTES)?,
        })
    }
}

/// The entries of a memory map; a part of an entry at the end is ignored.
pub fn memory_map(bytes: &[u8]) -> impl Iterator<Item = FirmwareEntry> + Clone + '_ {
    bytes.chunks_exact(MAP_ENTRY_BYTES as usize).map(|entry| FirmwareEntry {
        start: read_u64(entry, 0),
        bytes: read_u64(entry, 8),
        kind: read_u32(entry, 16),
    })
}

/// The bytes of the modules in a module list; one that wraps is cut at the end of the address space.
pub fn modules(bytes: &[u8]) -> impl Iterator<Item = PhysRange> + Clone + '_ {
    bytes.chunks_exact(MODULE_BYTES as usize).filter_map(|module| {
        let start = read_u64(module, 0);
        PhysRange::new(start, start.saturating_add(read_u64(module, 8)))
    })
}

/// The command line in `bytes`: up to the first zero byte, and as far as it is text.
pub fn command_line(bytes: &[u8]) -> &str {
    let line = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    match core::str::from_utf8(line) {
        Ok(text) => text,
        Err(error) => core::str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default(),
    }
}

/// The little-endian word at `at`, which the caller knows to lie in `bytes`.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

/// The little-endian double word at `at`, which the caller knows to lie in `bytes`.
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [MAGIC, 1, 0, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for double in [0x7000_u64, 0x5a8, 0xf_5000, 0x11c0] {
            bytes.extend(double.to_le_bytes());
        }
        bytes.extend(6_u32.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes
    }

    #[test]
    fn reads_version_1() {
        let info = StartInfo::parse(&sample()).expect("good start info");
        assert_eq!(info.modules, PhysRange::with_len(0x7000, 32).expect("range"));
        assert_eq!((info.command_line, info.rsdp), (0x5a8, 0xf_5000));
        assert_eq!(info.memory_map, PhysRange::with_len(0x11c0, 6 * 24).expect("range"));
    }

    #[test]
    fn refuses_what_is_no_start_info() {
        let good = sample();
        for len in 0..good.len() {
            assert_eq!(StartInfo::parse(&good[..len]), Err(StartInfoError::TooShort));
        }
        let mut bad = good.clone();
        bad[0] ^= 1;
        assert_eq!(StartInfo::parse(&bad), Err(StartInfoError::Magic(MAGIC ^ 1)));
        let mut old = good.clone();
        old[4] = 0;
        assert_eq!(StartInfo::parse(&old), Err(StartInfoError::Version(0)));
        let mut wrapping = good;
        wrapping[40..48].fill(0xff);
        assert_eq!(StartInfo::parse(&wrapping), Err(StartInfoError::Wraps));
    }

    #[test]
    fn reads_map_entries_and_ignores_a_torn_one() {
        let mut bytes = Vec::new();
        for start in [0x1000_u64, 0x9000] {
            bytes.extend(start.to_le_bytes());
            bytes.extend(0x2000_u64.to_le_bytes());
            bytes.extend(1_u64.to_le_bytes());
        }
        bytes.extend([1; 23]);
        let entries: Vec<_> = memory_map(&bytes).collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1], FirmwareEntry { start: 0x9000, bytes: 0x2000, kind: 1 });
    }

    #[test]
    fn a_module_that_wraps_is_cut() {
        let mut bytes = Vec::new();
        for double in [u64::MAX - 1, 10, 0, 0] {
            bytes.extend(double.to_le_bytes());
        }
        assert_eq!(modules(&bytes).next(), PhysRange::new(u64::MAX - 1, u64::MAX));
    }

    #[test]
    fn the_command_line_ends_at_zero_or_where_text_ends() {
        assert_eq!(command_line(b"one two\0three"), "one two");
        assert_eq!(command_line(b"no end"), "no end");
        assert_eq!(command_line(b"ok\xff\0"), "ok");
        assert_eq!(command_line(b""), "");
    }
}
