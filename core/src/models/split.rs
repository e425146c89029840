//! A block that was lent as one and is freed by two owners at once: the word of its head is nobody's alone.

use super::machine::{Machine, Tiny, interrupting, on_cpu};
use super::runner::check;
use crate::frame::{FrameCount, Pfn};

/// Threads: the owner of the first half frees it under the lock, the owner of the second by a context that only tries.
///
/// Property: both frees are right and accepted; everything is in the tree, and the words say so.
///
/// * `cut_unseen`: who looks for the head without the lock, just while it is replaced, takes its frames for free ones.
fn halves() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = machine.hold(0, 4);
    let holder = on_cpu(0, {
        let machine = machine.clone();
        move || machine.frames.free_raw(Pfn::new(0), FrameCount::new(2))
    });
    let freed = interrupting(|| machine.frames.free_raw(Pfn::new(2), FrameCount::new(2)));
    assert_eq!(freed, Ok(()), "a right free was refused");
    assert_eq!(holder.join().unwrap(), Ok(()), "a right free was refused");
    assert_eq!(machine.free_in_trees(), 8, "a frame stays behind");
    machine.frames.validate().unwrap();
}

#[test]
fn two_owners_of_a_block_free_their_halves() {
    check("split", &["cut_unseen"], halves);
}

/// Threads: a holder who comes and goes, and two owners that only try, of the first frame and of the other three.
///
/// Property and mutants as above; here a cut may also be made by whoever takes over what was posted.
fn both_pending() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = machine.hold(0, 4);
    let owners: Vec<_> = [(0, 1), (1, 3)]
        .into_iter()
        .map(|(start, count)| {
            let machine = machine.clone();
            on_cpu(start + 1, move || {
                interrupting(|| machine.frames.free_raw(Pfn::new(start as usize), FrameCount::new(count)))
            })
        })
        .collect();
    machine.frames.zone_infos().for_each(drop);
    for owner in owners {
        assert_eq!(owner.join().unwrap(), Ok(()), "a right free was refused");
    }
    assert_eq!(machine.free_in_trees(), 8, "a frame stays behind");
    machine.frames.validate().unwrap();
}

#[test]
fn two_owners_of_a_block_leave_their_parts_behind() {
    check("split_pending", &["cut_unseen"], both_pending);
}
