//! A storm of signals whose handler allocates and frees, over threads that do nothing else.
#![cfg(target_os = "linux")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pagemill::{AllocError, AllocFlags, Checked, FrameCount, Frames, Order, Pfn, Platform};
use pagemill_hosted::{Hosted, MachineBuilder, Topology};

static FRAMES: OnceLock<&'static Frames<'static, Hosted, Checked>> = OnceLock::new();
/// The signals of the storm, and how long it may take where processors are busy with other things.
const SIGNALS: u32 = 20_000;
const LONGEST: Duration = Duration::from_secs(3);
/// A frame that a handler has left for the next one, plus one; zero if there is none.
static LEFT: AtomicU64 = AtomicU64::new(0);
static HANDLED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);
static INSIDE: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);

fn count(counter: &AtomicU32) {
    counter.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn handler(_: libc::c_int) {
    let Some(frames) = FRAMES.get() else { return };
    count(&HANDLED);
    Hosted::in_signal_handler(|| {
        if Hosted::pin().is_none() {
            count(&INSIDE);
        }
        let new = match frames.alloc_raw(Order::ZERO, AllocFlags::ATOMIC) {
            Ok(pfn) => {
                count(&SERVED);
                pfn.number() as u64 + 1
            }
            Err(AllocError::WouldBlock) => 0,
            Err(_) => {
                count(&WRONG);
                0
            }
        };
        let old = LEFT.swap(new, Ordering::AcqRel);
        if old != 0 && frames.free_raw(Pfn::new(old as usize - 1), FrameCount::new(1)).is_err() {
            count(&WRONG);
        }
    });
}

fn install() {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler does only what may interrupt anything, and the action outlives the call.
    let installed = unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) };
    assert_eq!(installed, 0);
}

/// Keeps a few blocks and replaces them at random.
fn work(frames: &Frames<'_, Hosted, Checked>, done: &AtomicBool) {
    let mut held: [Option<pagemill::Block>; 64] = [const { None }; 64];
    let mut turn = 0usize;
    while !done.load(Ordering::Relaxed) {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (place, log2) = (turn >> 40, (turn >> 50) as u32 % 4);
        let place = &mut held[place % 64];
        if let Some(block) = place.take() {
            frames.free(block).unwrap();
        }
        *place = frames.alloc(Order::new(log2).unwrap(), AllocFlags::empty()).ok();
    }
    held.into_iter().flatten().for_each(|block| frames.free(block).unwrap());
}

/// Lets the calling thread have the storm's signals, or keeps them from it and from the threads it starts.
fn mask(how: libc::c_int) {
    // SAFETY: an all-zero set is a place for one.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call.
    let emptied = unsafe { libc::sigemptyset(&mut set) };
    // SAFETY: as above.
    let added = unsafe { libc::sigaddset(&mut set, libc::SIGALRM) };
    // SAFETY: as above; the mask of one's own thread may always be changed.
    let masked = unsafe { libc::pthread_sigmask(how, &set, std::ptr::null_mut()) };
    assert_eq!((emptied, added, masked), (0, 0, 0));
}

/// Sends a signal every so many microseconds of real time, to whichever thread takes it; zero ends it.
fn storm(interval_us: libc::suseconds_t) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval_us };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is read during the call; the handler is installed.
    let set = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
    assert_eq!(set, 0);
}

#[test]
fn handlers_allocate_and_free_in_the_middle_of_everything() {
    let topology = Topology::parse("cpus 0-7 256M").unwrap();
    let machine = MachineBuilder::new(topology).build::<Checked>().unwrap();
    let frames = *FRAMES.get_or_init(|| machine.frames());
    install();
    mask(libc::SIG_BLOCK);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let by_number = || {
            mask(libc::SIG_UNBLOCK);
            work(frames, &done);
        };
        let at_the_desk = move || {
            assert!(frames.settle());
            by_number();
        };
        let workers = [scope.spawn(by_number), scope.spawn(at_the_desk)];
        storm(20);
        let began = Instant::now();
        while HANDLED.load(Ordering::Relaxed) < SIGNALS && began.elapsed() < LONGEST {
            std::thread::sleep(Duration::from_millis(5));
        }
        storm(0);
        done.store(true, Ordering::Relaxed);
        // By name: a scope does not wait for what a thread does at its very end, which is to empty its pools.
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
    let left = LEFT.swap(0, Ordering::AcqRel);
    if left != 0 {
        frames.free_raw(Pfn::new(left as usize - 1), FrameCount::new(1)).unwrap();
    }
    frames.drain();
    let [handled, served, inside] = [&HANDLED, &SERVED, &INSIDE].map(|counter| counter.load(Ordering::Relaxed));
    println!("{handled} signals, {inside} of them inside the allocator, {served} frames served");
    assert_eq!(WRONG.load(Ordering::Relaxed), 0);
    assert!(served > 0 && inside > 0);
    frames.validate().unwrap();
    assert_eq!(frames.census().lent(), 0);
}
