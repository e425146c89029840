//! The suites that run: crates whose tests are hard on an allocator, each at the version whose tests were seen to pass.

/// The name of the standard library's own suite.
pub(super) const ALLOCTESTS: &str = "alloctests";

/// The suite of a crate.
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
    /// Features beyond the default ones.
    pub(super) features: &'static [&'static str],
    /// Dependencies of its benchmarks, and of tests that no allocator can fail: left out, because they take long to
    /// build.
    pub(super) dropped: &'static [&'static str],
    /// Files of tests that need what was dropped, or that no allocator can pass on a busy machine.
    pub(super) without: &'static [&'static str],
    /// Whether its tests use other crates that use it, which then have to use the copy.
    pub(super) shared: bool,
    /// Whether it is part of every run.
    pub(super) quick: bool,
}

impl Suite {
    const fn new(name: &'static str, version: &'static str) -> Self {
        Self { name, version, features: &[], dropped: &[], without: &[], shared: false, quick: false }
    }

    /// What the directory of its sources is called, by cargo and here.
    pub(super) fn directory(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    const fn shared(self) -> Self {
        Self { shared: true, ..self }
    }

    const fn features(self, features: &'static [&'static str]) -> Self {
        Self { features, ..self }
    }

    const fn dropped(self, dropped: &'static [&'static str]) -> Self {
        Self { dropped, ..self }
    }

    const fn without(self, without: &'static [&'static str]) -> Self {
        Self { without, ..self }
    }
}

pub(super) const CRATES: &[Suite] = &[
    Suite::new("smallvec", "1.16.5").quick(),
    Suite::new("thin-vec", "0.2.21"),
    Suite::new("bytes", "1.12.1").quick(),
    Suite::new("slab", "0.4.12"),
    Suite::new("hashbrown", "0.17.1").features(&["rayon", "serde"]).dropped(&["criterion"]),
    Suite::new("indexmap", "2.14.2"),
    Suite::new("petgraph", "0.8.3"),
    Suite::new("ropey", "1.6.1").dropped(&["criterion"]),
    Suite::new("crossbeam-deque", "0.8.8").quick(),
    Suite::new("crossbeam-queue", "0.3.14"),
    // Clocks: their tests assert how long things take.
    Suite::new("crossbeam-channel", "0.5.17").without(&["tests/after.rs", "tests/tick.rs"]),
    Suite::new("crossbeam-epoch", "0.9.21"),
    Suite::new("crossbeam-skiplist", "0.1.3"),
    Suite::new("rayon", "1.12.0"),
    Suite::new("tokio", "1.54.1").features(&["full"]).shared(),
];
