//! Objects of all sizes that threads and the signal handlers on them hand to one another, each freed by its address
//! alone.
//!
//! `PAGEMILL_STORM_MS` is how long each level is at it, for a run beside other work.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pagemill::{AllocError, Checked, Fast, Hardened};
use pagemill_hosted::{Level, Pagemill, WithHandlers};

const THREADS: u64 = 4;
const SLOTS: usize = 512;
/// Between two signals of a thread, in nanoseconds.
const BETWEEN_NS: libc::c_long = 40_000;

static DONE: AtomicBool = AtomicBool::new(false);
static HANDLED: AtomicU64 = AtomicU64::new(0);
/// Whether more is freed than allocated, so that slabs and large blocks go.
static FALLS: AtomicBool = AtomicBool::new(false);
static BROKEN: AtomicUsize = AtomicUsize::new(0);
/// What anybody may take and free. An object's first word is its size, its last byte is that of its address.
static SLOT: [AtomicPtr<u8>; SLOTS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SLOTS];
/// What a handler does, for the level under test.
static STEP: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

fn random() -> u64 {
    let next = RANDOM.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    RANDOM.set(next);
    (next >> 33) ^ (next >> 49)
}

/// Small ones, some of the largest classes, whose slabs have two slots, and large ones, of which few are of a size.
fn size() -> usize {
    match random() % 16 {
        0..8 => 16 + random() as usize % 1000,
        8..11 => 1024 << (random() % 6),
        11..14 => 32 << 10,
        14 => 40_000 + random() as usize % 300_000,
        _ => (1 + random() as usize % 4) << 18,
    }
}

fn last_byte(object: NonNull<u8>, bytes: usize) -> (NonNull<u8>, u8) {
    // SAFETY: the object has so many bytes.
    (unsafe { object.add(bytes - 1) }, (object.addr().get() >> 4) as u8 | 1)
}

/// Puts a new object into a slot, or none in times when memory falls, and frees what was there.
fn step<L: Level>() {
    let heap = Pagemill::<L>::new().heap();
    let bytes = size();
    let layout = Layout::from_size_align(bytes, 16).expect("a layout");
    let falls = FALLS.load(Ordering::Relaxed) && !random().is_multiple_of(4);
    let new = if falls { Err(AllocError::NoMemory) } else { heap.alloc(layout) };
    let new = new.map_or(std::ptr::null_mut(), |object| {
        // SAFETY: just lent, and long and aligned enough.
        unsafe { object.cast::<usize>().write(bytes) };
        let (place, byte) = last_byte(object, bytes);
        // SAFETY: the object's own.
        unsafe { place.write(byte) };
        object.as_ptr()
    });
    let old = SLOT[random() as usize % SLOTS].swap(new, Ordering::AcqRel);
    let Some(old) = NonNull::new(old) else { return };
    // SAFETY: lent to whoever put it there, who has given it up, and written by him.
    let bytes = unsafe { old.cast::<usize>().read() };
    let (place, byte) = last_byte(old, bytes);
    // SAFETY: as above.
    let right = unsafe { place.read() } == byte;
    // SAFETY: as above.
    let freed = unsafe { heap.free_unsized(old) };
    if !right || freed.is_err() {
        BROKEN.fetch_add(1, Ordering::Relaxed);
    }
}

extern "C" fn handler(_: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    let step = STEP.load(Ordering::Relaxed);
    if !step.is_null() {
        // SAFETY: a function of this type is all that is ever kept there.
        let step = unsafe { std::mem::transmute::<*mut (), fn()>(step) };
        (0..3).for_each(|_| step());
    }
}

/// A timer whose signals the calling thread gets.
struct Timer(libc::timer_t);

impl Timer {
    fn start() -> Self {
        // SAFETY: an all-zero event is a valid one.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        // SAFETY: a call without arguments.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        let mut timer = std::ptr::null_mut();
        // SAFETY: the event is read during the call, the timer written.
        assert_eq!(unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) }, 0);
        let interval = libc::timespec { tv_sec: 0, tv_nsec: BETWEEN_NS };
        let often = libc::itimerspec { it_interval: interval, it_value: interval };
        // SAFETY: the timer exists, and the interval is read during the call.
        assert_eq!(unsafe { libc::timer_settime(timer, 0, &often, std::ptr::null_mut()) }, 0);
        Self(timer)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: made above and deleted once.
        assert_eq!(unsafe { libc::timer_delete(self.0) }, 0);
    }
}

fn storm<L: Level>(lasts: Duration) {
    STEP.store(step::<L> as fn() as *mut (), Ordering::Relaxed);
    DONE.store(false, Ordering::Relaxed);
    let work = |number: u64, most: usize| {
        move || {
            RANDOM.set(number);
            let timer = Timer::start();
            (0..most).take_while(|_| !DONE.load(Ordering::Relaxed)).for_each(|_| step::<L>());
            drop(timer);
        }
    };
    let threads: Vec<_> = (0..THREADS).map(|number| std::thread::spawn(work(number, usize::MAX))).collect();
    let began = Instant::now();
    for turn in 0.. {
        FALLS.store(turn % 2 == 1, Ordering::Relaxed);
        // Threads that come and go, and are interrupted at both.
        std::thread::spawn(work(THREADS + turn, 300)).join().expect("it ends");
        if turn % 8 == 7 {
            Pagemill::<L>::new().trim();
        }
        if began.elapsed() > lasts {
            break;
        }
    }
    DONE.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    STEP.store(std::ptr::null_mut(), Ordering::Relaxed);
    let heap = Pagemill::<L>::new().heap();
    for slot in &SLOT {
        if let Some(object) = NonNull::new(slot.swap(std::ptr::null_mut(), Ordering::AcqRel)) {
            // SAFETY: lent to whoever put it there, who has given it up.
            unsafe { heap.free_unsized(object) }.expect("it is lent");
        }
    }
    heap.drain();
    heap.validate().expect("a heap that adds up");
    assert_eq!(BROKEN.load(Ordering::Relaxed), 0);
}

#[test]
fn all_sizes_go_from_hand_to_hand_and_are_freed_by_address() {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler may interrupt anything, and the action outlives the call.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
    let lasts = std::env::var("PAGEMILL_STORM_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(300);
    let lasts = Duration::from_millis(lasts);
    storm::<WithHandlers<Fast>>(lasts);
    storm::<WithHandlers<Checked>>(lasts);
    storm::<WithHandlers<Hardened>>(lasts);
    let handled = HANDLED.load(Ordering::Relaxed);
    println!("{handled} signals");
    assert!(handled > 0);
}
