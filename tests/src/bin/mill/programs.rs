//! `cargo real-programs` and `cargo bench-c`: programs that know nothing of pagemill, on `libpagemill.so`.

use std::path::{Path, PathBuf};

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::tools;

const MANIFEST: &str = "tests/bench/Cargo.toml";

/// What the programs come in, on Debian and those that descend from it: a file of each, and its package.
const PACKAGES: [(&str, &str); 6] = [
    ("git", "git"),
    ("perl", "perl"),
    ("sqlite3", "sqlite3"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("/usr/lib/python3.11/test/test_json/__init__.py", "libpython3.11-testsuite"),
];
/// Other heaps, to be measured beside.
const PEERS: [(&str, &str); 3] = [
    ("/usr/lib/x86_64-linux-gnu/libmimalloc.so.2", "libmimalloc2.0"),
    ("/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "libjemalloc2"),
    ("/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
];

/// Compares what programs say on pagemill with what they say on the C library's heap; with `--times` measures them.
pub(crate) fn run(words: &[String]) -> Outcome {
    let [is_timed, is_quick] = ["--times", "--quick"].map(|option| words.iter().any(|word| word == option));
    // The short form takes what is there.
    if !is_quick {
        install(&PACKAGES);
        if is_timed {
            install(&PEERS);
        }
    }
    let rest: Vec<_> = words.iter().filter(|word| *word != "--times").cloned().collect();
    // It also takes the library that the tests have built.
    let profile = if is_quick && !is_timed { "dev" } else { "release" };
    drive(if is_timed { "times" } else { "compare" }, profile, &rest, "real-programs")
}

/// All programs, compared.
pub(crate) fn full() -> Outcome {
    run(&[])
}

/// Measures malloc and free in a C loop beside others.
pub(crate) fn pairs(words: &[String]) -> Outcome {
    if !words.iter().any(|word| word == "--quick") {
        install(&PEERS);
    }
    drive("pairs", "release", words, "bench-c")
}

/// What cannot be installed is skipped later, with a line for each.
fn install(packages: &[(&str, &str)]) {
    for (file, package) in packages {
        if let Err(Failure { reason, .. }) = tools::debian(Path::new(file), package) {
            eprintln!("{reason}");
        }
    }
}

/// Builds the library and runs the driver on it.
fn drive(work: &str, profile: &str, words: &[String], what: &str) -> Outcome {
    let library = library(profile)?;
    let mut command = cargo::cargo();
    command.args(["run", "--quiet", "--locked", "--manifest-path", MANIFEST]);
    command.args(["--package", "program-driver", "--bin", "programs", "--", work, "--library"]).arg(library);
    cargo::finish(command.args(words), what)
}

fn library(profile: &str) -> Outcome<PathBuf> {
    let mut command = cargo::cargo();
    command.args(["build", "--quiet", "--package", "pagemill-preload", "--profile", profile]);
    cargo::finish(&mut command, "libpagemill.so")?;
    let dir = if profile == "dev" { "debug" } else { profile };
    Ok(cargo::target_dir().join(dir).join("libpagemill.so"))
}
