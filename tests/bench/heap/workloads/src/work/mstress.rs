//! Like mimalloc's stress test: short-lived threads with objects of very different sizes, some of which outlive their
//! threads or are freed by another. Every word is written, and read back before the release.

use crate::block::{Mailbox, Parcel};
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const SEED: u64 = 0xbf58_476d_1ce4_e5b9;
const MAILBOXES: usize = 1000;
const ROUNDS: usize = 100;

/// In each round all threads are new; every tenth round empties the mailboxes.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let objects = load.times(10_000);
    let mailboxes: Vec<Mailbox> = (0..MAILBOXES).map(|_| Mailbox::new()).collect();
    for round in 0..ROUNDS {
        load.on_new_threads(|index| stress(objects, &mailboxes, Rng::new(round * load.threads + index)));
        if round % 10 == 9 {
            mailboxes.iter().for_each(|mailbox| check(mailbox.swap(None)));
        }
    }
    (objects * ROUNDS * load.threads) as u64
}

fn stress(objects: usize, mailboxes: &[Mailbox], mut rng: Rng) {
    let mut kept: Vec<Option<Parcel>> = Vec::new();
    let mut retained: Vec<Parcel> = Vec::new();
    for object in 0..objects {
        let parcel = make(&mut rng);
        // A third is kept to the end of the thread.
        if object % 3 == 0 {
            retained.push(parcel);
        } else {
            kept.push(Some(parcel));
        }
        if rng.chance(66) && !kept.is_empty() {
            let at = rng.below(kept.len());
            check(kept[at].take());
        }
        if rng.chance(25) && !kept.is_empty() {
            let at = rng.below(kept.len());
            kept[at] = mailboxes[rng.below(MAILBOXES)].swap(kept[at].take());
        }
    }
    kept.into_iter().for_each(check);
    retained.into_iter().for_each(|parcel| check(Some(parcel)));
}

fn make(rng: &mut Rng) -> Parcel {
    let mut words = 1 << rng.below(5);
    if rng.chance(1) {
        words *= 100;
    }
    let mut parcel = Parcel::new((words + 1) * 8);
    parcel.fill(SEED);
    parcel
}

fn check(parcel: Option<Parcel>) {
    if let Some(parcel) = parcel {
        assert!(parcel.holds(SEED), "an object was overwritten");
    }
}
