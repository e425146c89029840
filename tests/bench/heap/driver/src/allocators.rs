//! Who is measured.

/// An allocator: a program of the package `heap-workers`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Allocator {
    /// As the record and the options call it; the program is `heap-` and this.
    pub key: &'static str,
    /// As the tables call it.
    pub short: &'static str,
    /// The crate, or nothing for the system's.
    pub name: &'static str,
    /// Its level of checks, or how else it differs from others of the same name.
    pub level: &'static str,
    /// The feature that builds it, if any.
    pub feature: Option<&'static str>,
    /// Flags for its C++.
    pub cxx_flags: &'static str,
    /// Does building it take so long that a quick run leaves it out?
    pub is_large: bool,
}

/// The name of the one that is compared with all others.
pub(crate) const PAGEMILL: &str = "pagemill";

impl Allocator {
    /// Is it the one that is compared with all others?
    pub(crate) fn is_pagemill(&self) -> bool {
        self.name == PAGEMILL
    }

    /// Its program.
    pub(crate) fn program(&self) -> String {
        format!("heap-{}", self.key)
    }
}

/// All of them, in the order of the tables.
pub(crate) const ALL: &[Allocator] = &[
    one("pagemill-fast", "pm-fast", PAGEMILL, "fast"),
    one("pagemill-checked", "pm-check", PAGEMILL, "checked"),
    Allocator { feature: None, ..one("system", "system", "system", "") },
    one("mimalloc", "mimalloc", "mimalloc", ""),
    one("mimalloc-plain", "mi-plain", "mimalloc", "plain"),
    one("mimalloc-v2", "mi-v2", "mimalloc", "v2"),
    one("jemalloc", "jemalloc", "tikv-jemallocator", ""),
    // Its build script forgets that a release has no assertions, which more than double the time of a pair.
    Allocator { cxx_flags: "-DNDEBUG", ..one("snmalloc", "snmalloc", "snmalloc-rs", "") },
    one("rpmalloc", "rpmalloc", "rpmalloc", ""),
    Allocator { is_large: true, ..one("tcmalloc", "tcmalloc", "tcmalloc-better", "") },
    one("dlmalloc", "dlmalloc", "dlmalloc", ""),
    one("talc", "talc", "talc", ""),
];

const fn one(key: &'static str, short: &'static str, name: &'static str, level: &'static str) -> Allocator {
    Allocator { key, short, name, level, feature: Some(key), cxx_flags: "", is_large: false }
}

/// Those that a list of keys says, or of names, which some have in common.
pub(crate) fn select(list: &str) -> Result<Vec<&'static Allocator>, String> {
    let mut chosen: Vec<&Allocator> = Vec::new();
    for word in list.split(',') {
        let mut found: Vec<_> = ALL.iter().filter(|a| a.key == word).collect();
        if found.is_empty() {
            found = ALL.iter().filter(|a| a.name == word).collect();
        }
        if found.is_empty() {
            let known: Vec<_> = ALL.iter().map(|a| a.key).collect();
            return Err(format!("no allocator is called {word}; there are {}", known.join(", ")));
        }
        found.retain(|a| !chosen.contains(a));
        chosen.extend(found);
    }
    Ok(chosen)
}
