//! Files of programs and libraries: the number that the linker gave them, and the names of their functions.
//!
//! Debug information may have short names alone, or may not be there at all; the table of symbols has whole ones.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// An ELF file of 64 bits, in the machine's own order of bytes.
pub(super) struct Elf {
    file: File,
    header: [u8; 64],
}

/// A function: where it begins in the memory of its file, its bytes, and where its name is among `names`.
struct Function {
    start: u64,
    bytes: u64,
    name: usize,
}

/// The functions of a file.
#[derive(Default)]
pub(super) struct Functions {
    /// By their addresses.
    functions: Vec<Function>,
    names: Vec<u8>,
    /// Parts of the file: where they are in it, their bytes, and where they are in memory.
    segments: Vec<[u64; 3]>,
}

/// No table of anything is larger.
const MOST_BYTES: u64 = 1 << 30;

impl Elf {
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let mut header = [0; 64];
        file.read_exact_at(&mut header, 0).ok()?;
        let order = if cfg!(target_endian = "little") { 1 } else { 2 };
        (header.starts_with(b"\x7fELF\x02") && header[5] == order).then_some(Self { file, header })
    }

    fn read(&self, start: u64, bytes: u64) -> Option<Vec<u8>> {
        // A file may say anything of itself.
        let bytes =
            Some(bytes).filter(|&bytes| bytes < MOST_BYTES && bytes <= self.file.metadata().map_or(0, |m| m.len()))?;
        let mut read = vec![0; bytes as usize];
        self.file.read_exact_at(&mut read, start).ok()?;
        Some(read)
    }

    /// The entries of a table that the header tells of.
    fn table(&self, start_at: usize, size_at: usize) -> Option<Vec<Vec<u8>>> {
        let (start, size, count) =
            (word(&self.header, start_at)?, short(&self.header, size_at)?, short(&self.header, size_at + 2)?);
        let table = self.read(start, u64::from(size) * u64::from(count))?;
        Some(table.chunks_exact(usize::from(size).max(1)).map(<[u8]>::to_vec).collect())
    }

    /// What the linker knows it by, in hexadecimal digits.
    pub(super) fn build_id(&self) -> Option<String> {
        const PT_NOTE: u32 = 4;
        let segments = self.table(32, 54)?;
        let notes = segments.iter().filter(|segment| half(segment, 0) == Some(PT_NOTE));
        notes.filter_map(|segment| self.read(word(segment, 8)?, word(segment, 32)?)).find_map(|notes| {
            let id = id_among(&notes)?;
            Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
        })
    }

    /// Its functions: all, or those that others may call if it tells no more.
    pub(super) fn functions(&self) -> Functions {
        const SYMTAB: u32 = 2;
        const DYNSYM: u32 = 11;
        let all = self.functions_in(SYMTAB).filter(|functions| !functions.functions.is_empty());
        all.or_else(|| self.functions_in(DYNSYM)).unwrap_or_default()
    }

    fn functions_in(&self, kind: u32) -> Option<Functions> {
        const PT_LOAD: u32 = 1;
        let sections = self.table(40, 58)?;
        let table = sections.iter().find(|section| half(section, 4) == Some(kind))?;
        let names = sections.get(half(table, 40)? as usize)?;
        let names = self.read(word(names, 24)?, word(names, 32)?)?;
        let symbols = self.read(word(table, 24)?, word(table, 32)?)?;
        let mut functions: Vec<_> = symbols.chunks_exact(24).filter_map(Function::of).collect();
        functions.sort_unstable_by_key(|function| function.start);
        let loaded = self.table(32, 54)?.into_iter().filter(|segment| half(segment, 0) == Some(PT_LOAD));
        let segments =
            loaded.filter_map(|segment| Some([word(&segment, 8)?, word(&segment, 32)?, word(&segment, 16)?]));
        Some(Functions { functions, names, segments: segments.collect() })
    }
}

impl Function {
    /// That of a symbol, if it is a function that is in the file.
    fn of(symbol: &[u8]) -> Option<Self> {
        const STT_FUNC: u8 = 2;
        const STT_GNU_IFUNC: u8 = 10;
        let inside = [STT_FUNC, STT_GNU_IFUNC].contains(&(symbol[4] & 15)) && short(symbol, 6)? != 0;
        let (name, start, bytes) = (half(symbol, 0)? as usize, word(symbol, 8)?, word(symbol, 16)?);
        inside.then_some(Self { start, bytes, name })
    }
}

impl Functions {
    /// The function at an offset into the file.
    pub(super) fn at(&self, offset: u64) -> Option<&[u8]> {
        let segment = self.segments.iter().find(|[start, bytes, _]| offset.wrapping_sub(*start) < *bytes)?;
        let address = offset - segment[0] + segment[2];
        let next = self.functions.partition_point(|function| function.start <= address);
        let function = &self.functions[next.checked_sub(1)?];
        // Written by hand, some have no end.
        if function.bytes != 0 && address - function.start >= function.bytes {
            return None;
        }
        let name = self.names.get(function.name..)?;
        name.split(|&byte| byte == 0).next().filter(|name| !name.is_empty())
    }
}

/// The number among notes: each has the lengths of its name and of its contents, its kind, and these, by fours.
fn id_among(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let [name, contents, kind] = [half(notes, 0)?, half(notes, 4)?, half(notes, 8)?];
        let start = 12 + (name as usize).next_multiple_of(4);
        let end = start.checked_add(contents as usize)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return notes.get(start..end);
        }
        notes = notes.get(end.next_multiple_of(4)..)?;
    }
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_found_among_others() {
        let notes = b"\x04\0\0\0\x02\0\0\0\x01\0\0\0GNU\0ab\0\0\x04\0\0\0\x03\0\0\0\x03\0\0\0GNU\0\x01\x02\x03";
        assert_eq!(id_among(notes), Some(&[1, 2, 3][..]));
        assert_eq!(id_among(&notes[..20]), None);
    }

    #[test]
    fn a_file_that_is_none_says_nothing() {
        for path in ["/dev/null", "/proc/self/maps", "/nowhere", "/"] {
            assert!(Elf::open(Path::new(path)).is_none(), "{path}");
        }
    }

    #[test]
    fn what_a_file_says_of_itself_is_not_believed() {
        let path = std::env::temp_dir().join(format!("pagemill-elf-{}", std::process::id()));
        let program = std::fs::read("/proc/self/exe").unwrap();
        for at in (16..64).step_by(2) {
            let mut broken = program[..4096].to_vec();
            broken[at..at + 2].fill(0xff);
            std::fs::write(&path, broken).unwrap();
            let elf = Elf::open(&path).unwrap();
            assert!(elf.functions().at(0x1000).is_none_or(|name| !name.is_empty()));
            elf.build_id();
        }
        std::fs::remove_file(path).unwrap();
    }
}
