//! A limit on the memory of a process: null beyond it, life below it, and an error for one that cannot be kept.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::sync::Barrier;
use std::thread;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// Blocks of so many bytes until there are no more.
fn exhaust(bytes: usize) -> Vec<Vec<u8>> {
    let mut held = Vec::new();
    let _ = held.try_reserve_exact(64 * MIB / 1000);
    loop {
        let mut block = Vec::new();
        if held.len() == held.capacity() || block.try_reserve_exact(bytes).is_err() {
            return held;
        }
        block.resize(bytes, 7);
        held.push(block);
    }
}

#[test]
#[ignore = "needs a process of its own"]
fn there_is_no_more_than_the_limit_and_all_of_it_is() {
    for limit in [20 * MIB, 45 * MIB, 150 * MIB] {
        for size in [1000, 30_000, 3 * MIB] {
            A.set_limit(limit).expect("little is in use");
            let held = exhaust(size);
            let got = held.len() * size;
            assert!(A.stats().used_bytes <= limit, "{:?} of {limit}", A.stats());
            // Of several MiB some fit less well.
            let least = if size < MIB { limit * 3 / 4 } else { limit / 2 };
            assert!(got < limit && (got > least || held.len() == held.capacity()), "{got} of {limit} by {size}");
            drop(held);
            // What was had once is there again, and a string finds its place.
            assert!(exhaust(size).len() * size * 10 >= got * 9);
            assert_eq!(vec!["alive"; 1000].concat().len(), 5000);
        }
    }
    A.set_limit(usize::MAX).expect("there always is");
    assert!(vec![1u8; 400 * MIB].iter().all(|&byte| byte == 1));
    common::adds_up(&A);
}

#[test]
#[ignore = "needs a process of its own"]
fn a_limit_that_cannot_be_kept_is_an_error_and_changes_nothing() {
    let held = vec![1u8; 80 * MIB];
    for limit in [0, 4096, 10 * MIB, 79 * MIB] {
        let error = A.set_limit(limit).expect_err("more is in use");
        assert!(error.limit_bytes == limit && error.used_bytes >= 80 * MIB, "{error:?}");
        assert!(error.to_string().contains("bytes are in use, more than a limit of"), "{error}");
    }
    assert_eq!(vec![2u8; 100 * MIB].len(), 100 * MIB, "there is no limit");
    assert!(held.iter().all(|&byte| byte == 1));
    common::adds_up(&A);
}

#[test]
#[ignore = "needs a process of its own"]
fn what_is_beyond_a_limit_is_not_resident() {
    drop((0..600).map(|_| vec![1u8; 100_000]).collect::<Vec<_>>());
    A.set_limit(12 * MIB).expect("little is in use");
    let system = A.stats().system.expect("Linux tells");
    assert!(system.resident_bytes < 40 * MIB, "{system:?}");
    A.set_limit(usize::MAX).expect("there always is");
}

#[test]
#[ignore = "needs a process of its own"]
fn threads_meet_the_limit_together_and_go_on() {
    A.set_limit(60 * MIB).expect("little is in use");
    // Who starts a thread needs memory for it.
    let are_there = Barrier::new(4);
    let work = || {
        are_there.wait();
        for size in [700, 9000, 200_000] {
            let held = exhaust(size);
            assert!(held.iter().all(|block| block.iter().all(|&byte| byte == 7)));
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        // Their ends are waited for too, at which they give back what they have at hand.
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    });
    A.set_limit(usize::MAX).expect("there always is");
    common::adds_up(&A);
}

/// Each of the tests above, in a process whose other threads want nothing meanwhile.
#[test]
fn in_processes_of_their_own() {
    let tests = [
        "there_is_no_more_than_the_limit_and_all_of_it_is",
        "a_limit_that_cannot_be_kept_is_an_error_and_changes_nothing",
        "what_is_beyond_a_limit_is_not_resident",
        "threads_meet_the_limit_together_and_go_on",
    ];
    for test in tests {
        let mut program = Command::new(std::env::current_exe().expect("it runs"));
        let output = program.args(["--exact", test, "--ignored", "--test-threads", "1"]).output().expect("a process");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
    }
}
