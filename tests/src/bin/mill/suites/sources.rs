//! Where the suites come from, and the workspaces that are made of them.

use super::inject::{self, Allocator};
use super::list::Suite;
use super::tree;
use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How all suites are built: what takes the least time from nothing to the last test.
const PROFILE: &str = "\n[profile.dev]\nopt-level = 1\ndebug = false\nincremental = false\n";

/// The versions that the crates' own dependencies had when the suites were seen to pass. To renew it: remove it, run
/// `cargo alloc-suites --full`, and copy the lock file of the workspace of crates below the target directory.
const LOCK: &str = "tests/suites/Cargo.lock";

/// What the standard library's tests need beside it; `rust-src` brings it along.
const VENDORED: &[&str] = &["rand", "rand_core", "rand_xorshift"];

/// Makes a workspace of the crates' sources, and downloads what they are built with.
///
/// As [`fetch`] this answers whether the sources are there.
pub(super) fn of_crates(suites: &[&Suite], home: &Path, allocator: Allocator) -> Outcome<bool> {
    let Some(registry) = download(suites, &home.with_file_name("fetch"))? else { return Ok(false) };
    let (mut members, mut patches) = (String::new(), String::new());
    for suite in suites {
        let directory = suite.directory();
        let source = registry.iter().map(|source| source.join(&directory)).find(|source| source.is_dir());
        let source =
            source.ok_or_else(|| Failure::new(format!("alloc-suites: there are no sources of {directory}")))?;
        copy_crate(suite, &source, &home.join(&directory), allocator)?;
        members += &format!("    {directory:?},\n");
        if suite.shared {
            patches += &format!("{} = {{ path = {directory:?} }}\n", suite.name);
        }
    }
    let members = format!("[workspace]\nresolver = \"2\"\nmembers = [\n{members}]\n");
    tree::write(&home.join("Cargo.toml"), format!("{members}{PROFILE}\n[patch.crates-io]\n{patches}"))?;
    take_lock(home)?;
    fetch(cargo::cargo, home)
}

/// Makes a workspace of the standard library's tests. As [`fetch`] this answers whether the sources are there.
pub(super) fn of_alloctests(home: &Path, allocator: Allocator) -> Outcome<bool> {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", "nightly", "rustc", "--print", "sysroot"]);
    let sysroot = libtest::read_lines(&mut rustc, "alloc-suites: asking for nightly's sysroot", |_| ())?.join("");
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    // The tests of what only the library itself can see include its sources.
    tree::copy(&library.join("alloc"), &home.join("alloc"), &mut |_, bytes| Some(bytes))?;
    let roots = ["lib.rs", "tests/lib.rs", "tests/vec_deque_alloc_error.rs"];
    tree::copy(&library.join("alloctests"), &home.join("alloctests"), &mut |path, bytes| match path {
        "Cargo.toml" => Some(inject::manifest(&text(&bytes), allocator, &[], &[]).into_bytes()),
        path if roots.contains(&path) => inject::root(&text(&bytes)).map(String::into_bytes),
        _ => Some(bytes),
    })?;
    let mut patches = String::new();
    for name in VENDORED {
        let vendored = tree::find(&library.join("vendor"), |entry| is_version_of(entry, name))?;
        patches += &format!("{name} = {{ path = {vendored:?} }}\n");
    }
    let members = "[workspace]\nresolver = \"2\"\nmembers = [\"alloctests\"]\nexclude = [\"alloc\"]\n";
    tree::write(&home.join("Cargo.toml"), format!("{members}{PROFILE}\n[patch.crates-io]\n{patches}"))?;
    take_lock(home)?;
    fetch(cargo::nightly_cargo, home)
}

/// Copies a crate, and puts the allocator into all of its test programs.
fn copy_crate(suite: &Suite, source: &Path, copy: &Path, allocator: Allocator) -> Outcome {
    let mut without: Vec<_> = suite.without.iter().map(|&path| path.to_owned()).collect();
    let mut manifest = String::new();
    tree::copy(source, copy, &mut |path, bytes| match path {
        "Cargo.toml" => {
            manifest = text(&bytes);
            None
        }
        // The lock file around it is what counts.
        "Cargo.lock" => None,
        path if suite.without.contains(&path) => None,
        path if is_root(path) => {
            let root = inject::root(&text(&bytes));
            if root.is_none() {
                println!("{}: {path} brings its own allocator and is left out", suite.name);
                without.push(path.to_owned());
            }
            root.map(String::into_bytes)
        }
        _ => Some(bytes),
    })?;
    tree::write(&copy.join("Cargo.toml"), inject::manifest(&manifest, allocator, suite.dropped, &without))
}

/// Whether this is the source that a test program begins with.
fn is_root(path: &str) -> bool {
    let in_tests = || path.strip_prefix("tests/");
    let is_file = in_tests().is_some_and(|name| name.ends_with(".rs") && !name.contains('/'));
    let is_directory = in_tests().is_some_and(|name| name.ends_with("/main.rs") && name.matches('/').count() == 1);
    path == "src/lib.rs" || is_file || is_directory
}

/// Whether a directory is named after a version of that package.
fn is_version_of(directory: &str, package: &str) -> bool {
    let version = directory.strip_prefix(package).and_then(|rest| rest.strip_prefix('-'));
    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lets cargo download the crates, and answers where it keeps sources, if it could.
fn download(suites: &[&Suite], dir: &Path) -> Outcome<Option<Vec<PathBuf>>> {
    let mut manifest =
        String::from("[package]\nname = \"fetch\"\nversion = \"0.0.0\"\n\n[workspace]\n\n[dependencies]\n");
    for Suite { name, version, .. } in suites {
        manifest += &format!("{name} = \"={version}\"\n");
    }
    tree::write(&dir.join("Cargo.toml"), manifest)?;
    tree::write(&dir.join("src/lib.rs"), "")?;
    take_lock(dir)?;
    if !fetch(cargo::cargo, dir)? {
        return Ok(None);
    }
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    tree::entries(&home.unwrap_or_default().join("registry/src")).map(Some)
}

/// Downloads what a workspace is built with; does without the network if all of it is there. `false` if there is no
/// network.
fn fetch(cargo: impl Fn() -> Command, workspace: &Path) -> Outcome<bool> {
    let mut offline = cargo();
    let quiet = offline.current_dir(workspace).args(["fetch", "--offline"]).stdout(Stdio::null()).stderr(Stdio::null());
    if quiet.status().is_ok_and(|status| status.success()) {
        return Ok(true);
    }
    println!("alloc-suites: downloading sources");
    let mut online = cargo();
    // Who has no network should learn so in seconds.
    let online = online.current_dir(workspace).arg("fetch").env("CARGO_NET_RETRY", "1");
    let output = online.output().map_err(|error| cargo::cannot_start(online, &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(true);
    }
    eprint!("{said}");
    if is_about_the_network(&said) {
        return Ok(false);
    }
    Err(Failure::new(format!("alloc-suites: downloading sources: failed ({})", output.status)))
}

/// Whether cargo says that it could reach nobody.
fn is_about_the_network(said: &str) -> bool {
    let signs =
        ["resolve host", "download of ", "failed to download", "failed to connect", "network failure", "timed out"];
    signs.iter().any(|sign| said.to_lowercase().contains(sign))
}

/// The versions to build with, as far as they are written down.
fn take_lock(workspace: &Path) -> Outcome {
    let lock = cargo::root().join(LOCK);
    if lock.is_file() { tree::write(&workspace.join("Cargo.lock"), tree::read(&lock)?) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_that_programs_begin_with_are_told_by_their_path() {
        for root in ["src/lib.rs", "tests/a.rs", "tests/a/main.rs"] {
            assert!(is_root(root), "{root}");
        }
        for other in ["src/main.rs", "src/tests/a.rs", "tests/a/b.rs", "tests/a/b/main.rs", "tests/a.txt"] {
            assert!(!is_root(other), "{other}");
        }
    }

    #[test]
    fn no_network_is_told_from_other_failures() {
        for said in ["warning: spurious network error: [6] Could not resolve host: x", "error: failed to download `a`"]
        {
            assert!(is_about_the_network(said), "{said}");
        }
        assert!(!is_about_the_network("error: failed to parse lock file"));
    }

    #[test]
    fn a_package_is_not_taken_for_one_with_a_longer_name() {
        assert!(is_version_of("rand-0.9.2", "rand") && !is_version_of("rand_core-0.9.3", "rand"));
        assert!(!is_version_of("rand-core-0.9.3", "rand"));
    }
}
