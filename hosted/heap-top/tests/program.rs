//! The program on files of a real heap.
#![cfg(target_os = "linux")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

use pagemill_hosted::{Pagemill, profile};

#[global_allocator]
static A: Pagemill = Pagemill::new();

fn heap_top(args: &[&str], file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_heap-top")).arg(file).args(args).output().expect("the program")
}

fn text(args: &[&str], file: &Path) -> String {
    let output = heap_top(args, file);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[inline(never)]
fn keeps(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| black_box(Vec::with_capacity(4096))).collect()
}

fn file(name: &str) -> PathBuf {
    env::temp_dir().join(format!("heap-top-{}-{name}.pb.gz", process::id()))
}

#[test]
fn who_has_the_memory_is_seen() {
    let [first, second] = ["first", "second"].map(file);
    profile().start(32 << 10).expect("bytes");
    let held = keeps(2000);
    profile().dump(&first).expect("a file");
    let more = keeps(6000);
    profile().dump(&second).expect("a file");
    let list = text(&["--cum", "--lines", "200"], &second);
    let row = |list: &str| list.lines().find(|line| line.contains("program::keeps")).map(str::to_owned);
    assert!(row(&list).is_some_and(|row| row.contains("MiB")), "{list}");
    assert!(list.starts_with("inuse_space: ") && list.contains("a sample each 32.0 KiB"), "{list}");
    let base = first.to_str().expect("text").to_owned();
    let less = text(&["--cum", "--base", &base], &second);
    let mib = |row: String| row.split_whitespace().nth(3).and_then(|word| word.parse::<f64>().ok()).expect("a number");
    let grown = mib(row(&less).expect("the same function"));
    assert!((grown / (6000.0 * 4120.0 / 1048576.0) - 1.0).abs() < 0.2, "{less}");
    let folded = text(&["--folded", "--value", "inuse_objects"], &second);
    let line = folded.lines().find(|line| line.contains("program::keeps")).expect("a stack");
    assert!(line.rsplit_once(' ').is_some_and(|(stack, count)| stack.contains(';') && count.parse::<u32>().is_ok()));
    drop((held, more));
    [first, second].into_iter().for_each(|file| fs::remove_file(file).expect("a file"));
}

#[test]
fn what_is_no_profile_is_refused() {
    let nowhere = heap_top(&[], Path::new("/nowhere"));
    assert!(!nowhere.status.success() && String::from_utf8_lossy(&nowhere.stderr).contains("/nowhere: "));
    let none = heap_top(&[], &env::current_exe().expect("it runs"));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no profile"));
    let wrong = heap_top(&["--sorted"], Path::new("/nowhere"));
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("usage: "));
}
