//! Requests to give idle frames back, honoured by each CPU for itself.

use std::sync::Arc;

use super::machine::{Cpus, Machine, Tiny, alloc, on_cpu, span};
use super::runner::check;
use crate::platform::Platform;
use loom::sync::atomic::Ordering;

/// A machine of one tree with pools for two CPUs, of which the calling one has lent two frames and keeps none at hand.
fn machine_with_two_lent() -> (Arc<Machine>, [usize; 2]) {
    let machine = Machine::<Tiny>::new(0, 8, 2);
    machine.frames.pool_limit.store(4, Ordering::Relaxed);
    let lent = [alloc(&machine).unwrap(), alloc(&machine).unwrap()];
    // A request that is not honoured yet, so that the owner may be draining while the next one comes.
    machine.frames.drain_requests.fetch_add(1, Ordering::Relaxed);
    (machine, lent)
}

/// Whether this CPU has honoured `request`.
fn has_honoured(machine: &Machine, request: u32) -> bool {
    let mut pinned = Cpus::pin().unwrap();
    machine.frames.pools.mine(&pinned).unwrap().honoured(&mut pinned) >= request
}

/// One takes frames 0 to 3 out of service and asks for what lies idle; the owner of two of them honours what it was
/// asked for, lends `refills` more, frees one of the first and lends again.
///
/// Once the owner has honoured the request the frame is not lent again; in the end all that is freed is out of service.
fn leave(refills: usize) {
    let (machine, [frame, kept]) = machine_with_two_lent();
    let request = machine.frames.drain_requests.load(Ordering::Relaxed) + 1;
    assert!(frame < 4 && kept < 4);
    let requester = on_cpu(1, {
        let machine = machine.clone();
        move || {
            let _ = machine.frames.offline(span(0, 4));
        }
    });
    let owner = on_cpu(0, {
        let machine = machine.clone();
        move || {
            machine.frames.poll();
            let mut held: Vec<_> = (0..refills).filter_map(|_| alloc(&machine)).collect();
            let honoured = has_honoured(&machine, request);
            machine.free(frame).unwrap();
            let again = alloc(&machine);
            assert!(!honoured || again != Some(frame), "a leaving frame is lent again");
            held.extend(again);
            held
        }
    });
    requester.join().unwrap();
    for held in owner.join().unwrap().into_iter().chain([kept]) {
        machine.free(held).unwrap();
    }
    // The owner's own requests: it is this CPU.
    let _ = machine.frames.offline(span(0, 4));
    assert_eq!(machine.frames.offline(span(0, 4)), Ok(()), "an idle frame does not come home");
    machine.frames.validate().unwrap();
    let census = machine.frames.census();
    assert_eq!((census.offline, census.free), (4, 4), "lost, or there twice");
}

/// Threads: a requester and an owner, as in [`leave`], with an empty pool.
///
/// Property: as there.
///
/// * `honour_relaxed`: the owner sees the request but not the range that is leaving, and keeps the
///   frame in its pool;
/// * `drain_honours_late`: the owner counts a request as honoured that came while it drained for another, and whose
///   reason it has not seen.
fn empty() {
    leave(0);
}

#[test]
fn a_drain_request_is_honoured_with_its_reason() {
    check("drain", &["honour_relaxed", "drain_honours_late"], empty);
}

/// Threads as above; the owner fills its pool again before it frees.
///
/// Property: as above.
///
/// * `pool_follows_leaving`: the magazine keeps what is freed to the tree it was filled from, leaving or not.
fn refilled() {
    leave(1);
}

#[test]
fn a_pool_filled_after_the_request_lets_leaving_frames_pass() {
    check("drain_refilled", &["pool_follows_leaving"], refilled);
}
