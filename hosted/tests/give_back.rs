//! Memory that a process has freed goes back to the system: by itself, down to what it may keep, and all of it on
//! request.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// The tests look at the memory of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// Blocks of so many bytes in all, with something in every page.
fn blocks(bytes: usize, size: usize) -> Vec<Vec<u8>> {
    (0..bytes / size).map(|_| vec![0xa5; size]).collect()
}

/// What a process that has used 60 MiB, in blocks of this size, has beyond what it had before.
fn left_after(size: usize) -> usize {
    let before = resident_bytes();
    drop(blocks(60 * MIB, size));
    resident_bytes().saturating_sub(before)
}

/// Run by the test below, in processes of their own.
#[test]
#[ignore = "what a process does first is not what it does later"]
fn one_fall() {
    let size = std::env::var("BLOCK_BYTES").expect("it is said").parse().expect("a number");
    let left = left_after(size);
    // 8 MiB that may be dirty, 4 of kept blocks, what the thread and the depot keep.
    assert!(left < 20 * MIB, "{} MiB of blocks of {size} stay", left / MIB);
    assert!(A.given_back_bytes() > 40 * MIB);
    common::adds_up(&A);
}

#[test]
fn what_is_freed_goes_back_but_for_a_little() {
    [100, 3000, 40_000, 5 * MIB].into_iter().for_each(|size| alone("one_fall", size));
}

#[test]
fn what_comes_and_goes_is_kept() {
    alone("who_goes_up_and_down_keeps_what_he_needs", 0);
}

fn alone(test: &str, size: usize) {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    let program = program.args(["--exact", test, "--ignored", "--test-threads", "1"]);
    let output = program.env("BLOCK_BYTES", size.to_string()).output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
}

/// Each page that comes and goes costs a fault, and this one would come and go for ever.
#[test]
#[ignore = "what a process does first is not what it does later"]
fn who_goes_up_and_down_keeps_what_he_needs() {
    let _alone = ALONE.lock();
    let given = || {
        let before = A.given_back_bytes();
        let left = left_after(3000);
        (left, A.given_back_bytes() - before)
    };
    let rounds: Vec<_> = (0..8).map(|_| given()).collect();
    let all: usize = rounds.iter().map(|&(_, given)| given).sum();
    assert!(all < 4 * 60 * MIB, "{rounds:?}");
    A.trim();
}

#[test]
fn no_peak_is_made_of_what_is_idle() {
    alone("what_lies_idle_goes_before_more_is_touched_than_ever", 0);
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "what a process does first is not what it does later"]
fn what_lies_idle_goes_before_more_is_touched_than_ever() {
    let _alone = ALONE.lock();
    let mut held = blocks(40 * MIB, 128 << 10);
    // So little that it may stay, in pieces that serve nothing larger.
    let mut number = 0;
    held.retain(|_| {
        number += 1;
        number % 6 != 0
    });
    let before = (A.given_back_bytes(), resident_bytes());
    assert!(before.0 < MIB, "{} bytes went back at once", before.0);
    let large = vec![1u8; 30 * MIB];
    let after = (A.given_back_bytes(), resident_bytes());
    assert!(after.0 - before.0 > 4 * MIB, "{} bytes went back", after.0 - before.0);
    // 6 MiB less than the block has, and a huge page of which it has the first bytes.
    let more = after.1.saturating_sub(before.1);
    assert!(more < 28 * MIB, "{more} bytes more than before, {}", A.stats());
    drop((held, large));
    common::adds_up(&A);
}

#[test]
fn all_of_it_goes_back_on_request() {
    let _alone = ALONE.lock();
    drop(blocks(30 * MIB, 10_000));
    A.trim();
    let least = resident_bytes();
    drop(blocks(6 * MIB, 10_000));
    assert!(resident_bytes() > least + 5 * MIB, "so little is kept");
    assert!(A.trim() > 5 * MIB);
    // Nor does anything stay of a huge page that was used in part.
    let left = resident_bytes();
    assert!(left < least + MIB, "{left} bytes, {least} at least: {}", A.stats());
    assert_eq!(A.trim(), 0, "there is nothing left");
}

#[test]
fn what_comes_again_is_zero_where_it_is_to_be() {
    let _alone = ALONE.lock();
    for _ in 0..4 {
        let held = blocks(16 * MIB, 300_000);
        drop(held);
        A.trim();
        let zeroed = vec![0u8; 16 * MIB];
        assert!(zeroed.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn threads_that_sleep_hold_little() {
    alone("threads_that_have_freed_and_sleep_hold_little", 0);
}

/// Run by the test above, in a process of its own.
#[test]
#[ignore = "what a process does first is not what it does later"]
fn threads_that_have_freed_and_sleep_hold_little() {
    const THREADS: usize = 200;
    let _alone = ALONE.lock();
    A.trim();
    let before = resident_bytes();
    let all_hold = std::sync::Arc::new(std::sync::Barrier::new(THREADS));
    let (ready, are_ready) = mpsc::channel();
    let (wake, sleepers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|index| {
            let (wake, sleep) = mpsc::channel::<()>();
            let (ready, all_hold) = (ready.clone(), all_hold.clone());
            let sleeper = thread::Builder::new().stack_size(64 << 10).spawn(move || {
                let held: Vec<_> = (0..2000).map(|n| vec![1u8; 16 + (n * 37 + index) % 1985]).collect();
                ready.send(resident_bytes()).expect("somebody waits");
                all_hold.wait();
                drop(held);
                ready.send(0).expect("somebody waits");
                let _ = sleep.recv();
            });
            (wake, sleeper.expect("a thread"))
        })
        .unzip();
    let most = are_ready.iter().take(2 * THREADS).max().expect("they have said so");
    let asleep = resident_bytes();
    drop(wake);
    sleepers.into_iter().for_each(|sleeper| sleeper.join().expect("no panic"));
    println!("{} MiB before, {} at most, {} asleep", before / MIB, most / MIB, asleep / MIB);
    // Some 470 MiB at most.
    assert!(asleep < before + 64 * MIB, "{} MiB more than before", (asleep - before) / MIB);
}
