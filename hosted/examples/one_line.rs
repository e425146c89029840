//! The whole of it: one line, and every `Box`, `Vec` and `String` of the program is pagemill's.
//!
//! `cargo run --release -p pagemill-hosted --example one_line`

use std::collections::BTreeMap;
use std::thread;

#[global_allocator]
static A: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();

fn main() {
    let counters: Vec<_> = (0..4)
        .map(|first| {
            thread::spawn(move || {
                let mut words = BTreeMap::new();
                for number in (first..100_000u32).step_by(4) {
                    *words.entry(format!("{}", number % 1000)).or_insert(0u64) += u64::from(number);
                }
                words
            })
        })
        .collect();
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for counter in counters {
        for (word, sum) in counter.join().expect("no panic") {
            *all.entry(word).or_default() += sum;
        }
    }
    println!("{} words, {} in all", all.len(), all.values().sum::<u64>());
}
