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

/// All of them, in the order of the tables. pagemill takes part with the feature `pagemill`.
pub(crate) const ALL: &[Allocator] = &[
    #[cfg(feature = "pagemill")]
    one("pagemill-fast", "pm-fast", PAGEMILL, "fast"),
    #[cfg(feature = "pagemill")]
    one("pagemill-checked", "pm-check", PAGEMILL, "checked"),
    Allocator { key: "system", short: "system", name: "system", level: "", feature: None },
    one("mimalloc", "mimalloc", "mimalloc", ""),
];

const fn one(key: &'static str, short: &'static str, name: &'static str, level: &'static str) -> Allocator {
    Allocator { key, short, name, level, feature: Some(key) }
}

/// Those that a list of keys or names says.
pub(crate) fn select(list: &str) -> Result<Vec<&'static Allocator>, String> {
    let mut chosen: Vec<&Allocator> = Vec::new();
    for word in list.split(',') {
        let mut found = ALL.iter().filter(|a| a.key == word || a.name == word).peekable();
        if found.peek().is_none() {
            let known: Vec<_> = ALL.iter().map(|a| a.key).collect();
            return Err(format!("no allocator is called {word}; there are {}", known.join(", ")));
        }
        chosen.extend(found.filter(|a| !chosen.contains(a)).collect::<Vec<_>>());
    }
    Ok(chosen)
}
