//! A limit on the memory of a process: null beyond it, life below it, and an error for one that cannot be kept.
#![cfg(target_os = "linux")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// The limit is the whole process's: one test at a time, and none leaves one behind.
struct Alone(#[expect(dead_code, reason = "held")] MutexGuard<'static, ()>);

impl Alone {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        Self(ALONE.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        A.set_limit(usize::MAX).expect("there always is");
    }
}

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
fn there_is_no_more_than_the_limit_and_all_of_it_is() {
    let _alone = Alone::new();
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
    A.heap().validate().expect("a heap that adds up");
}

#[test]
fn a_limit_that_cannot_be_kept_is_an_error_and_changes_nothing() {
    let _alone = Alone::new();
    let held = vec![1u8; 80 * MIB];
    for limit in [0, 4096, 10 * MIB, 79 * MIB] {
        let error = A.set_limit(limit).expect_err("more is in use");
        assert!(error.limit_bytes == limit && error.used_bytes >= 80 * MIB, "{error:?}");
        assert!(error.to_string().contains("bytes are in use, more than a limit of"), "{error}");
    }
    assert_eq!(vec![2u8; 100 * MIB].len(), 100 * MIB, "there is no limit");
    assert!(held.iter().all(|&byte| byte == 1));
    A.heap().validate().expect("a heap that adds up");
}

#[test]
fn what_is_beyond_a_limit_is_not_resident() {
    let _alone = Alone::new();
    drop((0..600).map(|_| vec![1u8; 100_000]).collect::<Vec<_>>());
    A.set_limit(12 * MIB).expect("little is in use");
    let system = A.stats().system.expect("Linux tells");
    assert!(system.resident_bytes < 40 * MIB, "{system:?}");
    A.set_limit(usize::MAX).expect("there always is");
}

#[test]
fn threads_meet_the_limit_together_and_go_on() {
    let _alone = Alone::new();
    A.set_limit(60 * MIB).expect("little is in use");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for size in [700, 9000, 200_000] {
                    let held = exhaust(size);
                    assert!(held.iter().all(|block| block.iter().all(|&byte| byte == 7)));
                }
            });
        }
    });
    A.set_limit(usize::MAX).expect("there always is");
    A.heap().validate().expect("a heap that adds up");
}
