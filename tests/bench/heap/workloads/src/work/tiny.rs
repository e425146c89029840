//! A program that hardly allocates: what an allocator costs who does not need it.

use std::collections::HashMap;
use std::hint::black_box;

use crate::load::Load;
use crate::meter::Meter;
use crate::os::Resident;

/// A unit is the whole program.
pub fn run(_: &Load, meter: &mut Meter) -> u64 {
    let words: Vec<String> = (0..100).map(|n| format!("word {n}")).collect();
    let lengths: HashMap<&str, usize> = words.iter().map(|word| (word.as_str(), word.len())).collect();
    black_box(&lengths);
    meter.stop();
    meter.note("rss-anonymous", "KiB", Resident::now().anonymous as f64);
    1
}
