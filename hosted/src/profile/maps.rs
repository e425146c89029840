//! Which files the process's code comes from.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::elf::Elf;

/// A stretch of code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// Where in the file it begins.
    pub(super) offset: u64,
    pub(super) file: PathBuf,
    /// What the linker knows the file by, in hexadecimal digits; empty if it has no such number.
    pub(super) build_id: String,
}

/// All there are, the program's own first.
pub(super) fn all() -> Vec<Mapping> {
    // Without `/proc` there are addresses, and no more.
    let text = fs::read("/proc/self/maps").unwrap_or_default();
    let mut mappings: Vec<_> = text.split(|&byte| byte == b'\n').filter_map(parse).collect();
    let program = fs::read_link("/proc/self/exe").unwrap_or_default();
    mappings.sort_by_key(|mapping| program != mapping.file);
    for mapping in &mut mappings {
        mapping.build_id = Elf::open(&mapping.file).and_then(|elf| elf.build_id()).unwrap_or_default();
    }
    mappings
}

/// A line on code: `7f00-7f40 r-xp 00001000 fe:00 77 /usr/lib/libc.so.6`.
fn parse(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let from = rest.trim_ascii_start();
        let (word, behind) = from.split_at(from.iter().position(|&byte| byte == b' ')?);
        rest = behind;
        str::from_utf8(word).ok()
    };
    let (start, end) = word()?.split_once('-')?;
    let rights = word()?;
    let offset = word()?;
    word()?;
    word()?;
    // A path need not be text.
    let file = rest.trim_ascii();
    if !rights.contains('x') || file.is_empty() {
        return None;
    }
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let (start, end, offset) = (number(start)?, number(end)?, number(offset)?);
    Some(Mapping { start, end, offset, file: OsStr::from_bytes(file).into(), build_id: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn lines_on_code_are_understood() {
        let mapping = parse(b"7f00-7f40 r-xp 00001000 fe:00 77       /a file (deleted)").unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.offset), (0x7f00, 0x7f40, 0x1000));
        assert_eq!(mapping.file, Path::new("/a file (deleted)"));
        assert_eq!(parse(b"7f00-7f40 rw-p 00001000 fe:00 77 /data"), None);
        assert_eq!(parse(b"7f00-7f40 r-xp 00001000 fe:00 0 "), None);
        assert_eq!(parse(b"7f00"), None);
    }

    #[test]
    fn the_program_comes_first() {
        let here = the_program_comes_first as *const () as u64;
        let first = &all()[0];
        assert!((first.start..first.end).contains(&here), "{first:?}");
    }
}
