//! What the tests of the library share: the library itself, and C programs that are compiled and run with it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

/// The levels that a process can choose.
pub(crate) const LEVELS: [&str; 3] = ["fast", "checked", "hardened"];

/// Whether the long form is wanted.
pub(crate) fn is_full() -> bool {
    env::var_os("PAGEMILL_FULL").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Where cargo put this program, and puts the library: the directory of a profile.
fn profile_dir() -> PathBuf {
    let program = env::current_exe().expect("a test knows its own program");
    program.ancestors().nth(2).expect("it lies in `deps` of a profile").to_owned()
}

/// The library and the archive, in the profile of this test. Cargo makes neither for tests, so they are made here.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dir = profile_dir();
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a profile has a name");
        let profile = if name == "debug" { "dev" } else { name };
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "pagemill-preload",
            "--lib",
            "--profile",
            profile,
            "--target-dir",
        ]);
        cargo.arg(dir.parent().expect("a profile lies in a target directory"));
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
        assert!(status.success(), "the library cannot be built");
        dir
    })
}

/// The shared library.
pub(crate) fn library() -> PathBuf {
    built().join("libpagemill.so")
}

/// The archive.
pub(crate) fn archive() -> PathBuf {
    built().join("libpagemill.a")
}

/// A source of these tests.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(name)
}

/// Compiles a C or C++ source and answers the program, which lies in a directory of its own.
///
/// The compiler is to know nothing of `malloc`: it would leave out what is under test.
pub(crate) fn compile(name: &str, arguments: &[&str]) -> PathBuf {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let stem = Path::new(name).file_stem().expect("a source has a name");
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    let place = format!("{}-{}-{number}", stem.display(), std::process::id());
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(place);
    std::fs::create_dir_all(&dir).expect("the directory of tests can be written");
    let shared = arguments.contains(&"-shared");
    let program = dir.join(stem).with_extension(if shared { "so" } else { "" });
    let cpp = name.ends_with(".cpp");
    let mut compiler = Command::new(compiler(cpp));
    if cpp {
        compiler.arg("-std=c++17");
    }
    compiler.args(["-O1", "-g", "-fno-builtin", "-pthread", "-w", "-o"]).arg(&program).arg(source(name));
    let output = compiler.args(arguments).arg("-ldl").output().expect("there is a C compiler");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    program
}

fn compiler(cpp: bool) -> OsString {
    let (variable, name) = if cpp { ("CXX", "c++") } else { ("CC", "cc") };
    env::var_os(variable).unwrap_or_else(|| name.into())
}

/// Whether there is a C++ compiler; says so if there is none.
pub(crate) fn has_cpp() -> bool {
    let there = Command::new(compiler(true)).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        println!("no C++ compiler: SKIPPED");
    }
    there
}

/// A program that has done its work is not needed any more.
pub(crate) fn remove(program: &Path) {
    let dir = program.parent().expect("a program lies in its directory");
    std::fs::remove_dir_all(dir).expect("the directory of a program can be removed");
}

/// A run of a program with the library and these options of it.
pub(crate) fn with_library(program: &Path, options: &str) -> Command {
    let mut command = without_library(program);
    command.env("LD_PRELOAD", library()).env("PAGEMILL_CONF", options);
    command
}

/// A run of a program on the C library's own heap.
pub(crate) fn without_library(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_PRELOAD").env_remove("PAGEMILL_CONF").stdin(Stdio::null());
    command
}

/// The names that a program lists when it is called without arguments.
pub(crate) fn cases(program: &Path) -> Vec<String> {
    let output = without_library(program).output().expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("names are text");
    assert!(output.status.success() && !text.is_empty());
    text.lines().map(str::to_owned).collect()
}

/// What a run said, for the message of a failed test.
pub(crate) fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{}\n{out}{err}", output.status)
}

/// Runs each case of a program, as `how` has it run, in a process of its own, two at once. Answers how many there were.
pub(crate) fn run_cases(program: &Path, how: impl Fn(&str) -> Command + Sync) -> usize {
    let cases = cases(program);
    let failed = Mutex::new(Vec::new());
    each(&cases, |case| {
        let output = how(case).arg(case).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() || !text.contains(&format!("ok {case}")) {
            failed.lock().expect("nobody panics with it").push(format!("{case}: {}", told(&output)));
        }
        // What wrote where nothing is wrong says a wrong thing.
        let complains = String::from_utf8_lossy(&output.stderr).contains("pagemill:");
        if output.status.success() && complains {
            failed.lock().expect("nobody panics with it").push(format!("{case}: {}", told(&output)));
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    cases.len()
}

/// Does the work for each item, two at once.
pub(crate) fn each<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item)
                }
            });
        }
    });
}
