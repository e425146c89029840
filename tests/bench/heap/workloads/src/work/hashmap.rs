//! A hash table that grows from nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::load::Load;
use crate::meter::Meter;

const ENTRIES: usize = 1_500_000;

/// A unit is an entry.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let entries = load.times(ENTRIES);
    load.on_each_thread(|_| {
        let mut map: HashMap<u64, [u64; 2], BuildHasherDefault<Multiply>> = HashMap::default();
        for key in 0..entries as u64 {
            map.insert(key, [key, !key]);
        }
        assert_eq!(map.len(), entries);
    });
    (entries * load.threads) as u64
}

/// The standard hash would be most of the time, and differs from run to run.
#[derive(Default)]
struct Multiply(u64);

impl Hasher for Multiply {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
