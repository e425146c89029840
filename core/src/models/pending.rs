//! Frees that find the lock held: the hand-over between the freer and the holder.

use super::machine::{Cpus, Machine, Tiny, interrupting, on_cpu};
use super::runner::check;
use crate::arena::Access;
use crate::frame::{FrameCount, Pfn};
use crate::platform::Platform;

/// Threads: a holder that frees under the lock, and a freer that has interrupted somebody and only tries.
///
/// Property: when both are done every frame is in its tree; none waits in the pending map for a holder who may never
/// come. Looked at without taking the lock, which would settle what was left.
///
/// * `freer_fence`: the freer may see the lock held after the holder has seen nothing pending;
/// * `holder_fence`: the same, from the other side.
fn one_holder() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = machine.hold(0, 3);
    let holder = on_cpu(0, {
        let machine = machine.clone();
        move || machine.frames.free_raw(Pfn::new(0), FrameCount::new(2)).unwrap()
    });
    let freer = on_cpu(1, {
        let machine = machine.clone();
        move || interrupting(|| machine.free(2)).unwrap()
    });
    holder.join().unwrap();
    freer.join().unwrap();
    assert_eq!(machine.free_in_trees(), 8, "a frame stays behind");
    machine.frames.validate().unwrap();
}

#[test]
fn nothing_stays_pending() {
    check("pending", &["freer_fence", "holder_fence"], one_holder);
}

/// Threads: a holder and two freers, of one row, each of which only tries.
///
/// Property and mutants as above: whoever of the three holds the lock last leaves nothing behind, also when a holder
/// that looks again finds the lock taken by another.
fn two_freers() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = [machine.hold(0, 1), machine.hold(1, 1)];
    let freers: Vec<_> = (0..2)
        .map(|frame| {
            let machine = machine.clone();
            on_cpu(frame + 1, move || interrupting(|| machine.free(frame as usize)).unwrap())
        })
        .collect();
    let pinned = Cpus::pin().unwrap();
    let arena = machine.frames.nodes.arena_of(Pfn::new(0)).unwrap();
    arena.with(Access::Wait(&pinned), |_, _| ()).unwrap();
    drop(pinned);
    freers.into_iter().for_each(|freer| freer.join().unwrap());
    assert_eq!(machine.free_in_trees(), 8, "a frame stays behind");
    machine.frames.validate().unwrap();
}

#[test]
fn nothing_stays_pending_between_three() {
    check("pending_three", &["freer_fence", "holder_fence"], two_freers);
}
