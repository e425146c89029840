//! What a signal handler finds on the desks of the thread that it interrupted.
#![cfg(target_os = "linux")]

use std::sync::atomic::{AtomicBool, Ordering};

use pagemill::{AllocFlags, Checked, Desk, Frames, Order, Platform};
use pagemill_hosted::{Hosted, MachineBuilder, Topology};

/// What the handler found claimed: the frames' desk, the objects' desk, the CPU.
static FOUND: [AtomicBool; 3] = [const { AtomicBool::new(false) }; 3];

/// A desk that was taken, laid back when dropped.
struct Taken<const WHICH: usize>(Desk);

fn take_desk<const WHICH: usize>() -> Taken<WHICH> {
    Taken(Hosted::take_desk::<WHICH>())
}

impl<const WHICH: usize> Drop for Taken<WHICH> {
    fn drop(&mut self) {
        // SAFETY: it was taken there, on this thread.
        unsafe { Hosted::put_desk::<WHICH>(self.0) };
    }
}

fn is_claimed<const WHICH: usize>() -> bool {
    take_desk::<WHICH>().0 == Desk::CLAIMED
}

extern "C" fn handler(_: libc::c_int) {
    Hosted::in_signal_handler(|| {
        let found = [is_claimed::<{ Desk::FRAMES }>(), is_claimed::<{ Desk::OBJECTS }>(), Hosted::pin().is_none()];
        for (place, found) in FOUND.iter().zip(found) {
            place.store(found, Ordering::Relaxed);
        }
    });
}

fn install() {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    // SAFETY: the handler does only what may interrupt anything, and the action outlives the call.
    let installed = unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
    assert_eq!(installed, 0);
}

/// What a handler finds here and now.
fn interrupted() -> [bool; 3] {
    // SAFETY: the handler is installed; it has run on this thread when the call is over.
    let raised = unsafe { libc::raise(libc::SIGUSR1) };
    assert_eq!(raised, 0);
    FOUND.each_ref().map(|found| found.load(Ordering::Relaxed))
}

/// Every way to claim, with a handler in the middle.
fn claim_in_every_way() {
    assert_eq!(interrupted(), [false, false, false]);
    let taken = take_desk::<{ Desk::FRAMES }>();
    assert_eq!(interrupted(), [true, false, true]);
    drop(taken);
    assert_eq!(interrupted(), [false, false, false]);
    let taken = take_desk::<{ Desk::OBJECTS }>();
    assert_eq!(interrupted(), [false, true, true]);
    drop(taken);
    assert_eq!(interrupted(), [false, false, false]);
    let pinned = Hosted::pin().unwrap();
    assert_eq!(interrupted(), [true, true, true]);
    drop(pinned);
    assert_eq!(interrupted(), [false, false, false]);
}

#[test]
fn a_handler_finds_what_is_claimed() {
    install();
    // The thread has no number, and gets none from a handler.
    assert_eq!(interrupted(), [false, false, true]);
    assert!(Hosted::pin().is_some());
    claim_in_every_way();
    let topology = Topology::parse("cpus 0-7 8M").unwrap();
    let machine = MachineBuilder::new(topology).without_watermarks().build::<Checked>().unwrap();
    let frames: &'static Frames<'static, Hosted, Checked> = machine.frames();
    assert!(frames.settle());
    claim_in_every_way();
    let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
    frames.free(block).unwrap();
    frames.validate().unwrap();
}
