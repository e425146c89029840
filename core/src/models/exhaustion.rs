//! Hints may lag; an answer of "no memory" may not: a request that starts after a free must find the frame.

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::machine::{Cpus, Machine, Tiny, alloc, interrupting, on_cpu, span};
use super::runner::check;
use crate::arena::Access;
use crate::buddy::End;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, Pfn};
use crate::frames::Request;
use crate::id::NodeId;
use crate::kind::ZoneKind;
use crate::ledger::EVERY_KIND;
use crate::order::Order;
use crate::platform::Platform;
use crate::zone::Watermarks;

/// A machine of eight frames in two arenas with nothing free, and no hint that says otherwise. (A single arena is asked
/// whatever its hints say.)
fn full() -> Arc<Machine> {
    let machine = Machine::<Tiny>::new(60, 8, 0);
    let _held = machine.hold(60, 8);
    // A request in vain, so that the hints know it too.
    assert_eq!(alloc(&machine), None);
    machine
}

/// One frees a frame by a context that only tries and says so, another holds the lock for a moment, and `ask` runs once
/// it has heard of the free. Three threads and a fourth that waits, so that none starts ahead of the others.
fn freed_while_held(machine: &Arc<Machine>, frame: usize, ask: impl FnOnce(&Machine) + 'static) {
    let freed = Arc::new(AtomicUsize::new(0));
    let freer = on_cpu(1, {
        let (machine, freed) = (machine.clone(), freed.clone());
        move || {
            interrupting(|| machine.free(frame)).unwrap();
            freed.store(1, Ordering::Release);
        }
    });
    let holder = on_cpu(2, {
        let machine = machine.clone();
        move || {
            let pinned = Cpus::pin().unwrap();
            machine.arena(frame).with(Access::Wait(&pinned), |_, _| ()).unwrap();
        }
    });
    let asker = on_cpu(3, {
        let machine = machine.clone();
        move || {
            if freed.load(Ordering::Acquire) == 1 {
                ask(&machine);
            }
        }
    });
    [freer, holder, asker].into_iter().for_each(|thread| thread.join().unwrap());
}

/// Threads: one frees a frame by a context that only tries, while another holds the lock for a moment; a third asks for
/// a frame once it has heard of the free.
///
/// Property: it gets the frame, whether that is still in the pending map, on its way to the tree, or there.
///
/// * `hints_trusted`: the arena is asked only if it says that it has frames;
/// * `absorbed_unseen`: the holder empties the map before it says that its count is not settled;
/// * `glance_unordered`: the one who asks sees the map emptied and yet the old count.
fn through_the_pending_map() {
    let machine = full();
    freed_while_held(&machine, 63, |machine| {
        assert_eq!(alloc(machine), Some(63), "no memory, though a frame was freed before");
    });
}

#[test]
fn a_frame_in_the_pending_map_is_found() {
    let mutants = ["hints_trusted", "absorbed_unseen", "glance_unordered"];
    check("exhaustion_pending", &mutants, through_the_pending_map);
}

/// Threads: one lends the last free frame, one frees another, a third asks for a frame once it has heard of the free.
///
/// Property: the third gets one; there are two, and the first took only one of them.
///
/// * `published_after_unlock`: the first says that nothing is left after the second has said that something is.
fn through_the_lock() {
    let machine = full();
    let freed = Arc::new(AtomicUsize::new(0));
    machine.free(61).unwrap();
    let taker = on_cpu(1, {
        let machine = machine.clone();
        move || alloc(&machine)
    });
    let freer = on_cpu(2, {
        let (machine, freed) = (machine.clone(), freed.clone());
        move || {
            machine.free(62).unwrap();
            freed.store(1, Ordering::Release);
        }
    });
    let asker = on_cpu(3, {
        let machine = machine.clone();
        move || {
            let heard = freed.load(Ordering::Acquire) == 1;
            let got = heard.then(|| alloc(&machine)).flatten();
            assert!(!heard || got.is_some(), "no memory, though a frame was freed before");
            got
        }
    });
    let (taken, got) = (taker.join().unwrap(), asker.join().unwrap());
    assert!(taken.is_some() && taken != got, "lent twice, or not at all");
    freer.join().unwrap();
}

#[test]
fn a_frame_in_the_tree_is_found() {
    check("exhaustion_lock", &["published_after_unlock"], through_the_lock);
}

/// Threads as in the first, on a zone with a reserve that one frame more lifts it above.
///
/// Property: the count that decides whether the zone can afford the request includes a frame on its way to the tree.
///
/// * `absorbed_unseen`, `glance_unordered`: as above.
fn above_the_mark() {
    let machine = full();
    machine.frames.free_raw(Pfn::new(60), FrameCount::new(2)).unwrap();
    let marks = Watermarks { min: 2, low: 2, high: 2 };
    machine.frames.set_watermarks(NodeId::ZERO, ZoneKind::Normal, marks).unwrap();
    assert_eq!(alloc(&machine), None);
    freed_while_held(&machine, 63, |machine| {
        assert!(alloc(machine).is_some(), "no memory, though the zone is above its mark");
    });
}

#[test]
fn a_frame_in_the_pending_map_counts() {
    check("exhaustion_mark", &["absorbed_unseen", "glance_unordered"], above_the_mark);
}

/// Threads as in the first; what is asked for is a run longer than an arena, the frame its last.
///
/// Property: wholly free arenas are found, also if one became so by a frame on its way to the tree.
///
/// * `absorbed_unseen`: as above.
fn whole_arenas() {
    let machine = Machine::<Tiny>::new(0, 128, 0);
    let _held = machine.hold(127, 1);
    // A request in vain, so that the hints know it too.
    let none = machine.arena(127).take(Access::Try, Order::new(6).unwrap(), End::Bottom, None, EVERY_KIND);
    assert_eq!(none, Ok(None));
    freed_while_held(&machine, 127, |machine| {
        let request = Request::frames(FrameCount::new(100)).flags(AllocFlags::TRY);
        let run = machine.frames.alloc_range(&request).expect("no memory, though all is free");
        assert_eq!(run.into_raw(), span(0, 100));
    });
}

#[test]
fn whole_arenas_are_found() {
    check("exhaustion_arenas", &["absorbed_unseen"], whole_arenas);
}
