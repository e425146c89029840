//! Page tables of four levels. Pure: where tables live and how they are read is the caller's business.

/// Bytes of a small page.
pub const SMALL: u64 = 4 << 10;
/// Bytes of a large page.
pub const LARGE: u64 = 2 << 20;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const WRITE_THROUGH: u64 = 1 << 3;
const UNCACHED: u64 = 1 << 4;
const LARGE_PAGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a page may be used for. Nothing is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read and execute.
    Code,
    /// Read.
    ReadOnly,
    /// Read and write.
    Data,
    /// Read and write, past the caches: registers of devices.
    Device,
}

impl Access {
    const fn bits(self) -> u64 {
        PRESENT
            | GLOBAL
            | match self {
                Self::Code => 0,
                Self::ReadOnly => NO_EXECUTE,
                Self::Data => NO_EXECUTE | WRITABLE,
                Self::Device => NO_EXECUTE | WRITABLE | UNCACHED | WRITE_THROUGH,
            }
    }
}

/// Why pages were not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No memory for a table.
    NoMemory,
    /// Something else is mapped at this address.
    Occupied(u64),
    /// An address or a length is no multiple of the page.
    Unaligned,
}

/// Where page tables live. A table is named by its physical address and has 512 entries.
pub trait TableMemory {
    /// A table with 512 zero entries.
    fn new_table(&mut self) -> Option<u64>;
    /// The entry at `index` of `table`.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Sets the entry at `index` of `table`.
    fn write(&mut self, table: u64, index: usize, entry: u64);
}

/// Builds one tree of page tables.
#[derive(Debug)]
pub struct Mapper<M> {
    memory: M,
    root: u64,
}

impl<M: TableMemory> Mapper<M> {
    /// A tree that maps nothing.
    pub fn new(mut memory: M) -> Result<Self, MapError> {
        let root = memory.new_table().ok_or(MapError::NoMemory)?;
        Ok(Self { memory, root })
    }

    /// The table of the highest level.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Maps `bytes` bytes at `address` to `physical`, by pages of `page` bytes ([`SMALL`] or [`LARGE`]).
    pub fn map(&mut self, address: u64, physical: u64, bytes: u64, page: u64, access: Access) -> Result<(), MapError> {
        if !(address | physical | bytes).is_multiple_of(page) {
            return Err(MapError::Unaligned);
        }
        for offset in (0..bytes).step_by(page as usize) {
            self.map_page(address + offset, physical + offset, page, access)?;
        }
        Ok(())
    }

    fn map_page(&mut self, address: u64, physical: u64, page: u64, access: Access) -> Result<(), MapError> {
        let (depth, kind) = if page == LARGE { (3, LARGE_PAGE) } else { (4, 0) };
        let mut table = self.root;
        for level in 1..depth {
            table = self.descend(table, index(address, level), address)?;
        }
        let last = index(address, depth);
        if self.memory.read(table, last) != 0 {
            return Err(MapError::Occupied(address));
        }
        self.memory.write(table, last, physical | access.bits() | kind);
        Ok(())
    }

    /// The table below `table` at `index`, made if there is none.
    fn descend(&mut self, table: u64, index: usize, address: u64) -> Result<u64, MapError> {
        let entry = self.memory.read(table, index);
        if entry & LARGE_PAGE != 0 {
            return Err(MapError::Occupied(address));
        }
        if entry & PRESENT != 0 {
            return Ok(entry & ADDRESS);
        }
        let below = self.memory.new_table().ok_or(MapError::NoMemory)?;
        // The last level alone decides about rights.
        self.memory.write(table, index, below | PRESENT | WRITABLE);
        Ok(below)
    }
}

/// The index into a table of `level`, 1 being the root.
const fn index(address: u64, level: u32) -> usize {
    (address >> (48 - 9 * level)) as usize & 511
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Tables at 0x1000, 0x2000 and so on, and no more than `limit`.
    struct FakeTables {
        tables: Vec<[u64; 512]>,
        limit: usize,
    }

    impl TableMemory for FakeTables {
        fn new_table(&mut self) -> Option<u64> {
            if self.tables.len() == self.limit {
                return None;
            }
            self.tables.push([0; 512]);
            Some(self.tables.len() as u64 * 0x1000)
        }

        fn read(&self, table: u64, index: usize) -> u64 {
            self.tables[(table / 0x1000) as usize - 1][index]
        }

        fn write(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[(table / 0x1000) as usize - 1][index] = entry;
        }
    }

    fn mapper(limit: usize) -> Mapper<FakeTables> {
        Mapper::new(FakeTables { tables: Vec::new(), limit }).expect("room for the root")
    }

    /// What the CPU would find.
    fn walk(mapper: &Mapper<FakeTables>, address: u64) -> Option<(u64, u64)> {
        let mut table = mapper.root;
        for level in 1..=4 {
            let entry = mapper.memory.read(table, index(address, level));
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 4 || entry & LARGE_PAGE != 0 {
                let page = if level == 4 { SMALL } else { LARGE };
                return Some(((entry & ADDRESS) + address % page, entry & !ADDRESS));
            }
            table = entry & ADDRESS;
        }
        None
    }

    #[test]
    fn finds_what_was_mapped_and_nothing_else() {
        let mut mapper = mapper(100);
        let high = 0xffff_ffff_8010_0000;
        mapper.map(0xffff_8000_0000_0000, 0, 4 * LARGE, LARGE, Access::Data).expect("large pages");
        mapper.map(high, 0x10_0000, 3 * SMALL, SMALL, Access::Code).expect("small pages");
        let large = walk(&mapper, 0xffff_8000_0070_1234).expect("mapped");
        assert_eq!(large, (0x70_1234, Access::Data.bits() | LARGE_PAGE));
        assert_eq!(walk(&mapper, high + 0x2fff), Some((0x10_2fff, Access::Code.bits())));
        assert_eq!(walk(&mapper, high + 0x3000), None);
        assert_eq!(walk(&mapper, 0xffff_8000_0080_0000), None);
        assert_eq!(walk(&mapper, 0), None);
    }

    #[test]
    fn nothing_is_mapped_twice() {
        let mut mapper = mapper(100);
        mapper.map(0, 0, LARGE, LARGE, Access::Data).expect("free");
        assert_eq!(mapper.map(0, 0, LARGE, LARGE, Access::Data), Err(MapError::Occupied(0)));
        assert_eq!(mapper.map(0x1000, 0, SMALL, SMALL, Access::Data), Err(MapError::Occupied(0x1000)));
        mapper.map(LARGE, 0, SMALL, SMALL, Access::Data).expect("free");
        assert_eq!(mapper.map(LARGE, 0, LARGE, LARGE, Access::Data), Err(MapError::Occupied(LARGE)));
    }

    #[test]
    fn says_what_is_wrong() {
        let mut mapper = mapper(3);
        assert_eq!(mapper.map(SMALL, 0, LARGE, LARGE, Access::Data), Err(MapError::Unaligned));
        assert_eq!(mapper.map(0, 0, 100, SMALL, Access::Data), Err(MapError::Unaligned));
        assert_eq!(mapper.map(0, 0, SMALL, SMALL, Access::Data), Err(MapError::NoMemory));
    }

    #[test]
    fn no_page_is_writable_and_executable() {
        for access in [Access::Code, Access::ReadOnly, Access::Data, Access::Device] {
            let bits = access.bits();
            assert!(bits & WRITABLE == 0 || bits & NO_EXECUTE != 0);
        }
    }
}
