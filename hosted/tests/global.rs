//! A program that runs on pagemill.
#![cfg(target_os = "linux")]

#[global_allocator]
static A: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();

use std::collections::BTreeMap;

#[test]
fn collections_and_threads() {
    let map: BTreeMap<u64, String> = (0..10_000).map(|n| (n * 7919 % 10_007, n.to_string())).collect();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let map = map.clone();
            std::thread::spawn(move || map.values().map(String::len).sum::<usize>())
        })
        .collect();
    let sums: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));
}
