use super::*;
use pagemill::{AllocFlags, Checked, Order};

use crate::{MachineBuilder, Topology};

const FRAMES: usize = Desk::FRAMES;
const OBJECTS: usize = Desk::OBJECTS;

/// A desk that was taken, laid back when dropped.
struct Taken<const WHICH: usize>(Desk);

fn take_desk<const WHICH: usize>() -> Taken<WHICH> {
    Taken(Hosted::take_desk::<WHICH>())
}

impl<const WHICH: usize> Drop for Taken<WHICH> {
    fn drop(&mut self) {
        // SAFETY: it was taken there, on this thread, which is the same CPU as long as the desk is claimed.
        unsafe { Hosted::put_desk::<WHICH>(self.0) };
    }
}

/// What can be taken from the desks now.
fn seen() -> [Desk; Desk::COUNT] {
    let (frames, objects) = (take_desk::<FRAMES>(), take_desk::<OBJECTS>());
    [frames.0, objects.0]
}

/// An instance for the CPUs below `cpus`.
fn machine(cpus: u32) -> &'static Frames<'static, Hosted, Checked> {
    let topology = Topology::parse(&format!("cpus 0-{} 64M", cpus - 1)).unwrap();
    MachineBuilder::new(topology).without_watermarks().build::<Checked>().unwrap().frames()
}

/// Runs `work` on a thread whose number and desks are nobody else's business.
fn on_a_thread(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work).join().unwrap();
}

#[test]
fn a_claimed_cpu_is_claimed_once() {
    let pinned = Hosted::pin().unwrap();
    assert!(Hosted::pin().is_none());
    let cpu = pinned.cpu();
    drop(pinned);
    assert_eq!(Hosted::pin().map(|pinned| pinned.cpu()), Some(cpu));
}

#[test]
fn threads_have_numbers_of_their_own_and_give_them_back() {
    let number = || Hosted::pin().unwrap().cpu();
    let here = number();
    let there = std::thread::spawn(number).join().unwrap();
    assert_ne!(here, there);
    // Tests run side by side, so the same number need not come again, but a free one must be had.
    for _ in 0..2 * SEATS {
        let seen = std::thread::spawn(number).join().unwrap();
        assert!(seen.index() < 64, "{seen:?}: numbers are given back");
    }
}

#[test]
fn a_kept_number_is_nobody_elses() {
    let seat = Seat::keep(CpuId::new(SEATS - 1)).unwrap();
    assert!(Seat::keep(CpuId::new(SEATS - 1)).is_none());
    let before = Hosted::pin().unwrap().cpu();
    let sitting = seat.sit().unwrap();
    assert!(seat.sit().is_none());
    assert_eq!(Hosted::pin().unwrap().cpu().index(), SEATS as usize - 1);
    drop(sitting);
    assert_eq!(Hosted::pin().unwrap().cpu(), before);
    drop(seat);
    assert!(Seat::keep(CpuId::new(SEATS - 1)).is_some());
}

#[test]
fn a_thread_that_ends_leaves_nothing_behind() {
    let topology = Topology::parse(&format!("cpus 0-{} 256M", 63)).unwrap();
    let machine = MachineBuilder::new(topology).without_watermarks().build::<Checked>().unwrap();
    let frames = machine.frames();
    let pooled = std::thread::spawn(move || {
        let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
        frames.free(block).unwrap();
        frames.census().pooled
    });
    assert!(pooled.join().unwrap() > 0);
    assert_eq!(frames.census().free, frames.census().present);
    frames.validate().unwrap();
}

#[test]
fn threads_beyond_the_cpus_of_an_instance_do_without_pools() {
    let topology = Topology::parse("cpus 0 8M").unwrap();
    let machine = MachineBuilder::new(topology).without_watermarks().build::<Checked>().unwrap();
    let frames = machine.frames();
    let seat = Seat::keep(CpuId::new(SEATS - 2)).unwrap();
    let _sitting = seat.sit().unwrap();
    let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
    assert_eq!(frames.census().pooled, 0);
    frames.free(block).unwrap();
    assert_eq!(frames.census().free, 2048);
}

#[test]
fn a_handler_says_what_it_is() {
    assert_eq!(Hosted::context(), Context::Task);
    let inside = Hosted::in_signal_handler(|| (Hosted::context(), Hosted::in_signal_handler(Hosted::context)));
    assert_eq!(inside, (Context::Nmi, Context::Nmi));
    assert_eq!(Hosted::context(), Context::Task);
    // A handler on a thread that has no number does without.
    let in_new_thread = std::thread::spawn(|| {
        let handler = Hosted::in_signal_handler(|| Hosted::pin().is_some());
        (handler, Hosted::pin().is_some())
    });
    assert_eq!(in_new_thread.join().unwrap(), (false, true));
}

#[cfg(not(miri))]
#[test]
fn no_handler_comes_while_a_thread_gets_its_number() {
    use std::mem::MaybeUninit;

    static MASKED: AtomicBool = AtomicBool::new(false);
    static UNMASKED: AtomicBool = AtomicBool::new(false);

    fn is_masked() -> bool {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: nothing is changed, and the set is written.
        assert_eq!(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), mask.as_mut_ptr()) }, 0);
        // SAFETY: written by the call above.
        unsafe { libc::sigismember(mask.as_ptr(), libc::SIGALRM) == 1 }
    }

    /// Told of every thread that gets a number, whatever test it is of.
    struct Told;
    impl members::Instance for Told {
        fn settle(&self) {
            if is_masked() { &MASKED } else { &UNMASKED }.store(true, Ordering::Relaxed);
        }

        fn give_back(&'static self) {}
    }
    static MEMBER: Member = Member::new(&Told);
    MEMBER.join();
    on_a_thread(|| assert!(Hosted::pin().is_some() && !is_masked()));
    assert!(MASKED.load(Ordering::Relaxed) && !UNMASKED.load(Ordering::Relaxed));
}

#[test]
fn a_claimed_desk_leaves_the_other_one_alone() {
    on_a_thread(|| {
        let pin = || Hosted::pin().is_some();
        assert!(pin());
        let frames = take_desk::<FRAMES>();
        assert_eq!((frames.0, pin(), seen()), (Desk::EMPTY, false, [Desk::CLAIMED, Desk::EMPTY]));
        let objects = take_desk::<OBJECTS>();
        assert_eq!((objects.0, pin(), seen()), (Desk::EMPTY, false, [Desk::CLAIMED; 2]));
        drop(frames);
        assert_eq!((pin(), seen()), (false, [Desk::EMPTY, Desk::CLAIMED]));
        drop(objects);
        assert_eq!((pin(), seen()), (true, NOTHING));
    });
}

#[test]
fn a_claimed_cpu_has_both_desks_claimed() {
    let frames = machine(64);
    on_a_thread(|| {
        let pinned = Hosted::pin().unwrap();
        assert_eq!(seen(), [Desk::CLAIMED; 2]);
        drop(pinned);
        assert_eq!(seen(), NOTHING);
        assert!(frames.settle());
        let [pool, objects] = seen();
        assert!(pool != Desk::EMPTY && pool != Desk::CLAIMED && objects == Desk::EMPTY);
        let pinned = Hosted::pin().unwrap();
        assert_eq!(seen(), [Desk::CLAIMED; 2]);
        assert!(!frames.settle());
        // From the end of the claim on, and on this desk only.
        // SAFETY: the CPU is claimed, and the desk is to be empty.
        unsafe { Hosted::set_desk::<FRAMES>(Desk::EMPTY) };
        // SAFETY: the pool is this thread's, and has just been taken off the other desk.
        unsafe { Hosted::set_desk::<OBJECTS>(pool) };
        assert_eq!(seen(), [Desk::CLAIMED; 2]);
        drop(pinned);
        assert_eq!(seen(), [Desk::EMPTY, pool]);
    });
}

#[test]
fn frames_come_by_way_of_the_desk() {
    let frames = machine(64);
    on_a_thread(|| {
        assert!(frames.settle());
        let mut blocks: Vec<_> = (0..1000).map(|_| frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap()).collect();
        blocks.drain(..).for_each(|block| frames.free(block).unwrap());
        assert!(frames.census().pooled > 0);
        // A heap that asks for frames has its own desk claimed.
        let objects = take_desk::<OBJECTS>();
        let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
        frames.free(block).unwrap();
        drop(objects);
    });
    assert_eq!(frames.census().free, frames.census().present);
    frames.validate().unwrap();
}

#[test]
fn a_number_that_is_given_up_leaves_empty_desks() {
    let frames = machine(64);
    on_a_thread(|| {
        assert!(frames.settle());
        assert_ne!(seen(), NOTHING);
        give_up_number();
        assert_eq!(seen(), NOTHING);
        assert!(Hosted::pin().is_some());
        assert_eq!(seen(), NOTHING);
    });
}

#[test]
fn a_number_is_kept_inside_the_allocator() {
    on_a_thread(|| {
        let pinned = Hosted::pin().unwrap();
        let cpu = pinned.cpu();
        give_up_number();
        assert!(!numbers::take(cpu.index() as u32));
        drop(pinned);
        let objects = take_desk::<OBJECTS>();
        give_up_number();
        assert!(!numbers::take(cpu.index() as u32));
        drop(objects);
        assert_eq!(Hosted::pin().unwrap().cpu(), cpu);
    });
}

#[test]
fn the_desks_of_a_seat_are_its_own() {
    let frames = machine(SEATS);
    let seat = Box::leak(Box::new(Seat::keep(CpuId::new(SEATS - 3)).unwrap()));
    on_a_thread(|| {
        assert!(frames.settle());
        let (before, cpu) = (seen(), Hosted::pin().unwrap().cpu());
        let sitting = seat.sit().unwrap();
        assert_eq!(seen(), NOTHING);
        assert!(frames.settle());
        assert!(seen() != before && seen() != NOTHING);
        // The number that waits meanwhile is not to be had by others.
        give_up_number();
        assert_eq!(Hosted::pin().unwrap().cpu(), CpuId::new(SEATS - 3));
        drop(sitting);
        assert_eq!((seen(), Hosted::pin().unwrap().cpu()), (before, cpu));
    });
}

#[test]
fn a_thread_sits_once() {
    let [one, two] = [4, 5].map(|below| Seat::keep(CpuId::new(SEATS - below)).unwrap());
    let sitting = one.sit().unwrap();
    assert!(two.sit().is_none());
    drop(sitting);
    assert!(two.sit().is_some());
    // Who forgets to get up sits for ever: the number does not come free.
    std::mem::forget(one.sit());
    drop(one);
    assert!(Seat::keep(CpuId::new(SEATS - 4)).is_none());
}

#[test]
fn who_gets_up_inside_the_allocator_sits_for_ever() {
    on_a_thread(|| {
        let seat = Seat::keep(CpuId::new(SEATS - 6)).unwrap();
        let sitting = seat.sit().unwrap();
        let pinned = Hosted::pin().unwrap();
        drop(sitting);
        drop(pinned);
        assert_eq!(Hosted::pin().unwrap().cpu(), CpuId::new(SEATS - 6));
        assert!(std::thread::scope(|scope| scope.spawn(|| seat.sit().is_none()).join().unwrap()));
    });
}

#[test]
fn threads_that_come_and_go_never_have_each_others_pools() {
    let frames = machine(64);
    let lives = || {
        for life in 0..200 {
            on_a_thread(move || {
                if life % 3 != 0 {
                    assert_eq!(seen(), NOTHING);
                    frames.settle();
                }
                let block = || frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
                let blocks: Vec<_> = (0..50 + life).map(|_| block()).collect();
                blocks.into_iter().for_each(|block| frames.free(block).unwrap());
            });
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(lives))));
    frames.validate().unwrap();
    assert_eq!(frames.census().free, frames.census().present);
}
