//! The frame word's hand-over: from owner to tree to the next owner.

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use super::machine::{Machine, Tiny, alloc, on_cpu};
use super::runner::check;
use crate::error::{FreeError, Place};
use crate::frame::Pfn;

/// Threads: B frees the only frame there is; A lends it as soon as it can, and frees it twice.
///
/// Property: A's first free is right and accepted, its second is refused by name.
///
/// * `word_after_unlock`: B writes the word when it no longer holds the lock, hence over A's.
fn lent_again() {
    let machine = Machine::<Tiny>::new(0, 8, 0);
    let _held = machine.hold(0, 8);
    let freer = on_cpu(1, {
        let machine = machine.clone();
        move || machine.free(5).unwrap()
    });
    if let Some(frame) = alloc(&machine) {
        assert_eq!(frame, 5);
        machine.free(frame).expect("a right free was refused");
        let twice = machine.free(frame);
        assert_eq!(twice, Err(FreeError::AlreadyFree(Pfn::new(frame), Place::Tree)), "a wrong free was accepted");
    }
    freer.join().unwrap();
    machine.frames.validate().unwrap();
}

#[test]
fn the_word_is_the_next_owners_from_the_unlock_on() {
    check("word", &["word_after_unlock"], lent_again);
}

/// Threads: A lends two frames from its pool and sends one to B, which frees it into its own; each then lends again.
///
/// Property: every free is right and accepted, no frame is lent to both, and all come home.
///
/// * `mailed_relaxed`: the message orders nothing, so B may free before it sees that the frame was lent: the duty of
///   whoever hands a frame on, shown to be needed.
fn mailed() {
    let machine = Machine::<Tiny>::new(0, 8, 2);
    machine.frames.pool_limit.store(4, Ordering::Relaxed);
    let mail = Arc::new(AtomicUsize::new(0));
    let receiver = on_cpu(1, {
        let (machine, mail) = (machine.clone(), mail.clone());
        move || {
            let sent =
                mail.load(if crate::sync::mutant("mailed_relaxed") { Ordering::Relaxed } else { Ordering::Acquire });
            if sent != 0 {
                machine.free(sent - 1).expect("a right free was refused");
            }
            alloc(&machine)
        }
    });
    let (kept, sent) = (alloc(&machine).unwrap(), alloc(&machine).unwrap());
    mail.store(sent + 1, Ordering::Release);
    machine.free(kept).expect("a right free was refused");
    let again = alloc(&machine).unwrap();
    let other = receiver.join().unwrap();
    assert_ne!(Some(again), other, "lent twice");
    machine.frames.validate().unwrap();
}

#[test]
fn a_frame_that_is_sent_on_is_freed_elsewhere() {
    check("word_mailed", &["mailed_relaxed"], mailed);
}
