//! The heaps, as libraries that are loaded before the C library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A heap.
#[derive(Clone, Debug)]
pub(crate) struct Allocator {
    pub name: &'static str,
    /// pagemill's level of checking; nothing for others.
    pub level: &'static str,
    /// The library; none for the C library's own.
    library: Option<PathBuf>,
}

/// The C library's.
pub(crate) const GLIBC: &str = "glibc";
/// pagemill's levels.
pub(crate) const LEVELS: [&str; 3] = ["fast", "checked", "hardened"];

/// Others, by the names of Debian's libraries.
const PEERS: [(&str, &str); 3] =
    [("mimalloc", "libmimalloc.so.2"), ("jemalloc", "libjemalloc.so.2"), ("tcmalloc", "libtcmalloc_minimal.so.4")];

const PLACES: [&str; 4] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

impl Allocator {
    pub(crate) fn glibc() -> Self {
        Self { name: GLIBC, level: "", library: None }
    }

    pub(crate) fn pagemill(library: &Path, level: &'static str) -> Self {
        Self { name: "pagemill", level, library: Some(library.into()) }
    }

    /// Has a command, and all that it starts, run on this heap.
    pub(crate) fn serve(&self, command: &mut Command) {
        command.env_remove("LD_PRELOAD").env_remove("PAGEMILL_CONF");
        if let Some(library) = &self.library {
            command.env("LD_PRELOAD", library);
        }
        if !self.level.is_empty() {
            command.env("PAGEMILL_CONF", format!("level:{}", self.level));
        }
    }

    pub(crate) fn is_pagemill(&self) -> bool {
        !self.level.is_empty()
    }

    /// The name with the level.
    pub(crate) fn title(&self) -> String {
        if self.level.is_empty() { self.name.into() } else { format!("{} {}", self.name, self.level) }
    }
}

/// All that there are: pagemill at its levels, the C library's, and the others that are installed. Says which are not.
pub(crate) fn all(library: &Path) -> Vec<Allocator> {
    let mut all: Vec<_> = LEVELS.iter().map(|&level| Allocator::pagemill(library, level)).collect();
    all.push(Allocator::glibc());
    for (name, file) in PEERS {
        match PLACES.iter().map(|place| Path::new(place).join(file)).find(|path| path.exists()) {
            Some(path) => all.push(Allocator { name, level: "", library: Some(path) }),
            None => println!("{name}: no {file}: not compared"),
        }
    }
    all
}
