//! An ordered map whose entries are replaced at random.

use std::collections::BTreeMap;

use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const KEYS: usize = 100_000;

/// Each thread has a map of its own.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let steps = load.times(400_000);
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        let mut map = BTreeMap::new();
        for step in 0..steps {
            map.insert(rng.below(KEYS), [step; 4]);
            map.remove(&rng.below(KEYS));
        }
    });
    (steps * load.threads) as u64
}
