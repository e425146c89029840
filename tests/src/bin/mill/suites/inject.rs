//! How an allocator gets into a test suite: one more dependency, and at the end of every test program's source one more
//! test, which links it.

use crate::cargo;

/// What the suites run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocator {
    /// pagemill, at its default level.
    Pagemill,
    /// The system's, to tell a fault of the allocator from one of the suite.
    System,
}

impl Allocator {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pagemill => "pagemill",
            Self::System => "system",
        }
    }

    /// The dependency that a package's tests get.
    fn dependency(self) -> String {
        let path = cargo::root().join("tests/suites/allocator");
        let features = if self == Self::Pagemill { "\"pagemill\"" } else { "" };
        format!("\n[dev-dependencies.{CRATE}]\npath = {path:?}\nfeatures = [{features}]\n")
    }
}

/// The crate that is linked.
pub(super) const CRATE: &str = "pagemill-suites-allocator";

/// The test that links it. It stands behind everything else, so that no line gets another number, and is a whole in
/// itself, so that it fits any edition and any module; `test` alone may be an attribute of the crate's own.
pub(super) const TEST: &str = "
#[cfg(test)]
#[::std::prelude::v1::test]
fn runs_on_the_allocator_under_test() {
    extern crate pagemill_suites_allocator;
    pagemill_suites_allocator::assert_installed();
}
";

/// What makes a test program's allocator its own business.
const OWN_ALLOCATOR: &str = "#[global_allocator]";

/// A test program's source with the test; nothing if it brings an allocator of its own.
pub(super) fn root(source: &str) -> Option<String> {
    (!source.contains(OWN_ALLOCATOR)).then(|| format!("{source}{TEST}"))
}

/// A package's manifest with the dependency and without what is left out: dependencies of its tests by name, test
/// programs by path. Profiles and workspaces go as well, since they are the business of the workspace around it.
pub(super) fn manifest(text: &str, allocator: Allocator, dropped: &[&str], without: &[String]) -> String {
    let mut kept = String::new();
    for section in sections(text) {
        let header = section.lines().next().unwrap_or_default();
        let has_path = |path: &String| section.contains(&format!("path = {path:?}"));
        let goes = header.starts_with("[profile")
            || header.starts_with("[workspace")
            || header == "[[bench]]"
            || header == "[[test]]" && without.iter().any(has_path)
            || dropped.iter().any(|name| header == format!("[dev-dependencies.{name}]"));
        if !goes {
            kept += section;
        }
    }
    kept + &allocator.dependency()
}

/// A manifest cut before every line that begins a table.
fn sections(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    starts.extend(text.match_indices("\n[").map(|(place, _)| place + 1).filter(|&place| place != 0));
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &text[start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
[package]
name = \"a\"

[[test]]
name = \"one\"
path = \"tests/one.rs\"

[[test]]
name = \"two\"
path = \"tests/two.rs\"

[[bench]]
name = \"three\"

[dev-dependencies.criterion]
version = \"0.5\"

[dev-dependencies.rand]
version = \"0.9\"

[profile.release]
debug = true
";

    #[test]
    fn a_manifest_loses_what_is_left_out_and_gains_the_allocator() {
        let text = manifest(MANIFEST, Allocator::Pagemill, &["criterion"], &["tests/two.rs".to_owned()]);
        for kept in ["name = \"a\"", "\"one\"", "dev-dependencies.rand", "features = [\"pagemill\"]"] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        for gone in ["\"two\"", "bench", "criterion", "profile"] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        assert!(manifest(MANIFEST, Allocator::System, &[], &[]).contains("features = []"));
    }

    #[test]
    fn a_program_with_its_own_allocator_is_left_out() {
        assert!(root("fn a() {}\n").unwrap().starts_with("fn a() {}\n\n#[cfg(test)]\n"));
        assert_eq!(root("#[global_allocator]\nstatic A: System = System;\n"), None);
    }
}
