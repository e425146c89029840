//! What code is called, by the symbols and the debug information of its file.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use backtrace::SymbolName;

use super::LOADER_IS_LOST;
use super::elf::{Elf, Functions};
use super::maps::Mapping;

/// A function that an address is in, or that was put in line there.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Line {
    pub(super) function: String,
    /// Empty if it is not known.
    pub(super) file: String,
    pub(super) line: u32,
}

impl Line {
    fn is_of_the_allocator(&self) -> bool {
        const CRATES: [&str; 3] = ["pagemill::", "pagemill_hosted::", "__rustc::__rust_"];
        // A method of a trait is `<pagemill::heap::Heap<…> as …>::alloc`.
        let function = self.function.trim_start_matches('<');
        CRATES.iter().any(|name| function.starts_with(name))
    }

    /// Whether it is the allocator's, or the way there: whoever asks for memory is further out.
    fn is_on_the_way(&self) -> bool {
        // What is put in line may have a short name.
        const FUNCTIONS: [&str; 19] = [
            "_Unwind_Backtrace",
            "__rust_alloc",
            "__rust_alloc_zeroed",
            "__rust_realloc",
            "alloc::alloc::alloc",
            "alloc::alloc::alloc_zeroed",
            "alloc::alloc::realloc",
            "alloc::alloc::exchange_malloc",
            "alloc",
            "alloc_zeroed",
            "realloc",
            "malloc",
            "calloc",
            "reallocarray",
            "aligned_alloc",
            "memalign",
            "posix_memalign",
            "_Znwm",
            "_Znam",
        ];
        self.is_of_the_allocator() || FUNCTIONS.contains(&self.function.as_str())
    }
}

/// What is known of addresses so far.
pub(super) struct Names {
    lines: HashMap<u64, Vec<Line>>,
    mappings: Vec<Mapping>,
    /// The functions of files that were looked into.
    files: HashMap<PathBuf, Functions>,
}

impl Names {
    /// For code of these mappings.
    pub(super) fn new(mappings: Vec<Mapping>) -> Self {
        Self { lines: HashMap::new(), mappings, files: HashMap::new() }
    }

    /// The functions at the address of a call, the innermost first; none if the file says nothing.
    pub(super) fn at(&mut self, address: u64) -> &[Line] {
        if !self.lines.contains_key(&address) {
            let lines = self.look_up(address);
            self.lines.insert(address, lines);
        }
        &self.lines[&address]
    }

    fn look_up(&mut self, address: u64) -> Vec<Line> {
        let mut lines = Vec::new();
        let look = |symbol: &backtrace::Symbol| {
            let Some(name) = symbol.name() else { return };
            let file = symbol.filename().map_or_else(String::new, |file| file.to_string_lossy().into_owned());
            lines.push(Line { function: format!("{name:#}"), file, line: symbol.lineno().unwrap_or(0) });
        };
        // It asks the loader which files there are.
        if !LOADER_IS_LOST.load(Ordering::Relaxed) {
            backtrace::resolve(std::ptr::without_provenance_mut(address as usize), look);
        }
        // The last is the one that the others are in line in.
        if let Some(whole) = self.symbol(address) {
            match lines.last_mut() {
                Some(line) => line.function = whole,
                None => lines.push(Line { function: whole, file: String::new(), line: 0 }),
            }
        }
        lines
    }

    /// The function that the code is of, by its file's table.
    fn symbol(&mut self, address: u64) -> Option<String> {
        let mapping = self.mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address))?;
        if !self.files.contains_key(&mapping.file) {
            let functions = Elf::open(&mapping.file).map(|elf| elf.functions()).unwrap_or_default();
            self.files.insert(mapping.file.clone(), functions);
        }
        let name = self.files[&mapping.file].at(address - mapping.start + mapping.offset)?;
        Some(format!("{:#}", SymbolName::new(name)))
    }

    /// Where an address is in its file, for code that has no name.
    pub(super) fn place(&self, address: u64) -> String {
        match self.mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&address)) {
            Some(mapping) => {
                let file = mapping.file.file_name().unwrap_or_default().to_string_lossy();
                format!("{file}+{:#x}", address - mapping.start + mapping.offset)
            }
            None => format!("{address:#x}"),
        }
    }

    /// How many frames of a stack lie on the way to the allocator, and how many functions of the next one.
    pub(super) fn way(&mut self, frames: &[u64]) -> (usize, usize) {
        let outermost = |lines: &[Line]| lines.last().is_some_and(Line::is_on_the_way);
        let count = frames.iter().take_while(|&&frame| outermost(self.at(frame))).count();
        let Some(&next) = frames.get(count) else { return (0, 0) };
        let lines = self.at(next);
        // What the allocator calls in line may have any name.
        let own = lines.iter().rposition(Line::is_of_the_allocator).map_or(0, |place| place + 1);
        (count, own + lines[own..].iter().take_while(|line| line.is_on_the_way()).count())
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // The files stay mapped for the next look otherwise.
        if !LOADER_IS_LOST.load(Ordering::Relaxed) {
            backtrace::clear_symbol_cache();
        }
    }
}
