//! Processes that may not have much memory: null, and life afterwards.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::process::Command;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

/// Objects of this size until there are no more; answers how many it were, and gives them back.
fn exhaust(bytes: usize) -> usize {
    let layout = Layout::from_size_align(bytes, 16).unwrap();
    let mut last: *mut u8 = std::ptr::null_mut();
    let mut count = 0;
    loop {
        // SAFETY: the layout has bytes.
        let object = unsafe { A.alloc(layout) };
        if object.is_null() {
            break;
        }
        // SAFETY: just lent, and large enough for an address.
        unsafe { object.cast::<*mut u8>().write(last) };
        last = object;
        count += 1;
    }
    while !last.is_null() {
        // SAFETY: written above.
        let next = unsafe { last.cast::<*mut u8>().read() };
        // SAFETY: lent above, and not used any more.
        unsafe { A.dealloc(last, layout) };
        last = next;
    }
    count
}

/// Run by the tests below, in processes of their own.
#[test]
#[ignore = "needs a limit"]
fn under_a_limit() {
    let counts: Vec<usize> = [100_000, 4000, 100_000, 64, 4000].map(exhaust).into();
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    // What was had once is there again.
    assert!(counts[2] * 10 >= counts[0] * 9 && counts[4] * 10 >= counts[1] * 9, "{counts:?}");
    let words: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    assert_eq!(words.concat().len(), 38_890);
    println!("served {counts:?}");
}

/// Run by a test below, in a process of its own: most of what small objects have had, long blocks can have. Not all:
/// what the test itself keeps meanwhile lies somewhere, as does what its other thread has at hand.
#[test]
#[ignore = "needs a limit"]
fn long_blocks_after_small_ones() {
    let before = exhaust(3 << 20);
    let small: Vec<usize> = [16, 24, 100, 500, 1000, 3000, 9000, 32_768, 50_000, 300_000].map(exhaust).into();
    let after = exhaust(3 << 20);
    println!("served {before}, {small:?}, {after}");
    assert!(after * 3 >= before * 2, "{before} blocks before, {after} after");
}

fn with_limit(limit: &str) -> (bool, String) {
    run_with_limit(limit, "under_a_limit")
}

fn run_with_limit(limit: &str, test: &str) -> (bool, String) {
    let shell =
        format!("ulimit {limit} && RUST_BACKTRACE=0 exec \"$0\" --exact {test} --ignored --nocapture --test-threads 1");
    let output = Command::new("sh").arg("-c").arg(shell).arg(std::env::current_exe().unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn little_address_space() {
    for kib in ["65536", "200000", "1000000"] {
        let (well, text) = with_limit(&format!("-v {kib}"));
        assert!(well && text.contains("served"), "{kib} KiB: {text}");
    }
}

#[test]
fn memory_that_was_cut_up_is_whole_again() {
    for kib in ["196608", "500000"] {
        let (well, text) = run_with_limit(&format!("-v {kib}"), "long_blocks_after_small_ones");
        assert!(well && text.contains("served"), "{kib} KiB: {text}");
        println!("{kib} KiB: {}", text.lines().find(|line| line.contains("served")).unwrap_or(""));
    }
}

/// What a process may write counts here as it does under strict overcommit.
#[test]
fn little_data() {
    for kib in ["30000", "100000", "400000"] {
        let (well, text) = with_limit(&format!("-d {kib}"));
        assert!(well && text.contains("served"), "{kib} KiB: {text}");
    }
}

/// Too little for anything: no memory, which Rust's own run-time says and ends. No crash, no hang.
#[test]
fn next_to_no_address_space() {
    let (well, text) = with_limit("-v 12000");
    assert!(!well, "{text}");
}
