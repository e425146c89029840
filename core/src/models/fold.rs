//! The zone's count of free frames, to which arenas add what has changed since they last did.

use super::machine::{Machine, Tiny, on_cpu};
use super::runner::check;

/// Threads: two, each of which takes and frees frames of its own arena of one zone.
///
/// Property: when both are done the folded count is what the arenas have. (It may be off by less than the sum of their
/// thresholds; a threshold of one frame makes that nothing.)
///
/// * `fold_without_rmw`: one arena's difference is lost.
fn two_arenas() {
    // The last four frames of one arena and the first four of the next.
    let machine = Machine::<Tiny>::new(60, 8, 0);
    let other = on_cpu(1, {
        let machine = machine.clone();
        move || {
            let held = machine.hold(64, 3);
            machine.frames.free_range(held).unwrap();
        }
    });
    let _held = machine.hold(62, 2);
    other.join().unwrap();
    let zone = machine.frames.zones().find(|zone| zone.is_populated()).unwrap();
    assert_eq!(zone.ledger.free_frames(), zone.free_frames(), "the count has drifted");
    assert_eq!(zone.free_frames(), 6);
    machine.frames.validate().unwrap();
}

#[test]
fn the_folded_count_is_exact_at_rest() {
    check("fold", &["fold_without_rmw"], two_arenas);
}
