//! Like alloc-test: a random slot, some slots far more often than others, is filled with a block or emptied; blocks are
//! written when they come and read when they go.

use std::hint::black_box;

use crate::block::Parcel;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SLOTS: usize = 1 << 14;
const SEED: u64 = 0x94d0_49bb_1331_11eb;

/// Each thread has slots of its own. A pair is two steps.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let steps = load.times(2_000_000);
    load.on_each_thread(|index| {
        let mut rng = Rng::new(index);
        let mut slots: Vec<Option<Parcel>> = (0..SLOTS).map(|_| None).collect();
        for _ in 0..steps {
            // The product of two: half of the steps go to a sixth of the slots.
            let slot = &mut slots[rng.below(SLOTS) * rng.below(SLOTS) / SLOTS];
            if let Some(parcel) = slot.take() {
                black_box(parcel.holds(SEED));
            } else {
                let mut parcel = Parcel::new(rng.doubling(8, 1024));
                parcel.fill(SEED);
                *slot = Some(parcel);
            }
        }
    });
    (steps * load.threads / 2) as u64
}
