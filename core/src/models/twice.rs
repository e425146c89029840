//! Two frees of one frame at the same time, by contexts that only try: one of them is wrong, and must be found out.

use super::machine::{Cpus, Machine, Tiny, TinyFast, interrupting, on_cpu};
use super::runner::check;
use crate::arena::Access;
use crate::config::Config;
use crate::frame_table::Kind;
use crate::platform::Platform;

/// Two frees of frame 3 while `meanwhile` runs; answers how many were accepted.
fn free_twice<C: Config>(machine: &std::sync::Arc<Machine<C>>, meanwhile: impl FnOnce()) -> usize {
    let freers: Vec<_> = (1..3)
        .map(|cpu| {
            let machine = machine.clone();
            on_cpu(cpu, move || interrupting(|| machine.free(3)).is_ok())
        })
        .collect();
    meanwhile();
    freers.into_iter().map(|freer| usize::from(freer.join().unwrap())).sum()
}

fn late_faults<C: Config>(machine: &Machine<C>) -> usize {
    machine.frames.late_faults().0 as usize
}

/// Threads: two freers of the same frame, both while a third holds the lock.
///
/// Property: the frame is in its tree once, and exactly one free was accepted.
///
/// * `twice_unguarded`: neither the word nor the bit in the pending map says who was second (each alone would);
/// * `posted_without_rmw`, without words: both find the bit clear.
fn held<C: Config>() {
    let machine = Machine::<C>::new(0, 8, 0);
    let _held = machine.hold(3, 1);
    let pinned = Cpus::pin().unwrap();
    let held = machine.arena(3).with(Access::Wait(&pinned), |_, _| free_twice(&machine, || ()));
    drop(pinned);
    assert_eq!(held, Ok(1), "one of two frees is wrong");
    assert_eq!((machine.free_in_trees(), late_faults(&machine)), (8, 0));
    machine.frames.validate().unwrap();
}

#[test]
fn the_second_of_two_pending_frees_is_refused() {
    check("twice_held", &["twice_unguarded"], held::<Tiny>);
}

#[test]
fn the_second_of_two_pending_frees_is_refused_without_words() {
    check("twice_held_fast", &["posted_without_rmw"], held::<TinyFast>);
}

/// Threads: two freers of the same frame, who leave it in the pending map and take over what lies there if they can:
/// the frame may be in its tree before the second gets to it.
///
/// Property: the frame is in its tree once, exactly one free was accepted, and none had to be found late.
///
/// * `pending_without_claim`: the second has looked at the word before the first wrote it, and does not look again.
fn posted() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = machine.hold(3, 1);
    let freers = [1, 2].map(|cpu| {
        let machine = machine.clone();
        on_cpu(cpu, move || {
            let arena = machine.arena(3);
            arena.check_words(3, 1).and_then(|()| arena.post(3, 1)).is_ok()
        })
    });
    let accepted: usize = freers.into_iter().map(|freer| usize::from(freer.join().unwrap())).sum();
    assert_eq!(accepted, 1, "one of two frees is wrong");
    assert_eq!((machine.free_in_trees(), late_faults(&machine)), (8, 0));
    machine.frames.validate().unwrap();
}

#[test]
fn the_second_is_refused_when_the_first_is_through() {
    check("twice_posted", &["pending_without_claim"], posted);
}

/// Threads: two freers of the same frame, and a holder who comes and goes: each free may find the lock taken or not.
///
/// Property: the frame is in its tree once, none stays behind, and of two frees accepted one is reported late.
///
/// * `posted_without_rmw`, `freer_fence`: a frame is lost, or waits for a holder who may never come.
fn racing<C: Config>() {
    let machine = Machine::<C>::new(0, 8, 0);
    let _held = machine.hold(3, 1);
    let accepted = free_twice(&machine, || {
        let pinned = Cpus::pin().unwrap();
        machine.arena(3).with(Access::Wait(&pinned), |_, _| ()).unwrap();
    });
    assert_eq!(machine.free_in_trees(), 8, "there once, and none behind");
    assert_eq!(accepted, 1 + late_faults(&machine), "a wrong free goes unreported");
    let mut kinds = (0..8).map(|index| machine.arena(3).table.get(index).kind());
    assert!(kinds.all(|kind| kind == Kind::Free), "a word contradicts the tree");
}

#[test]
fn a_wrong_free_that_races_is_reported() {
    check("twice_racing", &["freer_fence"], racing::<Tiny>);
}

#[test]
fn a_wrong_free_that_races_is_reported_without_words() {
    check("twice_racing_fast", &["posted_without_rmw"], racing::<TinyFast>);
}
