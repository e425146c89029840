//! Signal handlers that allocate, in the middle of everything.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pagemill_hosted::{Pagemill, WithHandlers};

#[global_allocator]
static A: Pagemill<WithHandlers> = Pagemill::new();

const SIGNALS: u32 = 20_000;
const LONGEST: Duration = Duration::from_secs(3);
/// The sizes that handlers ask for.
const LAYOUTS: [Layout; 4] =
    [Layout::new::<u64>(), Layout::new::<[u64; 9]>(), Layout::new::<[u64; 500]>(), Layout::new::<[u64; 9000]>()];
/// What one handler leaves for the next, by layout.
static LEFT: [AtomicPtr<u8>; 4] = [const { AtomicPtr::new(std::ptr::null_mut()) }; 4];
static HANDLED: AtomicU32 = AtomicU32::new(0);
static SERVED: AtomicU32 = AtomicU32::new(0);
static BROKEN: AtomicU32 = AtomicU32::new(0);

fn mark(layout: Layout) -> u8 {
    layout.size() as u8 | 1
}

extern "C" fn handler(_: libc::c_int) {
    let turn = HANDLED.fetch_add(1, Ordering::Relaxed) as usize % LAYOUTS.len();
    let layout = LAYOUTS[turn];
    // SAFETY: the layout has bytes.
    let new = unsafe { A.alloc(layout) };
    if !new.is_null() {
        SERVED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: just lent.
        unsafe { new.write_bytes(mark(layout), layout.size()) };
    }
    let old = LEFT[turn].swap(new, Ordering::AcqRel);
    if !old.is_null() {
        // SAFETY: lent to another handler of this layout, which has given it up.
        let bytes = unsafe { std::slice::from_raw_parts(old, layout.size()) };
        if bytes.iter().any(|&byte| byte != mark(layout)) {
            BROKEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as above.
        unsafe { A.dealloc(old, layout) };
    }
}

fn work(done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let map: BTreeMap<usize, Vec<u8>> = (0..300).map(|n| (n * 31 % 301, vec![n as u8; n * 40])).collect();
        assert!(map.iter().all(|(key, bytes)| bytes.len() / 40 * 31 % 301 == *key));
        let large = vec![1u8; 200_000];
        assert_eq!(large.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 200_000);
    }
}

#[test]
fn a_storm_of_handlers_that_allocate() {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler may interrupt anything, and the action outlives the call.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
    let storm = |interval_us| {
        let interval = libc::timeval { tv_sec: 0, tv_usec: interval_us };
        let timer = libc::itimerval { it_interval: interval, it_value: interval };
        // SAFETY: the timer is read during the call.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }, 0);
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(|| work(&done))));
        storm(20);
        let began = Instant::now();
        while HANDLED.load(Ordering::Relaxed) < SIGNALS && began.elapsed() < LONGEST {
            // Threads come, and their first requests are interrupted too.
            std::thread::spawn(|| vec![1u8; 100].len()).join().unwrap();
        }
        storm(0);
        done.store(true, Ordering::Relaxed);
    });
    let [handled, served, broken] = [&HANDLED, &SERVED, &BROKEN].map(|counter| counter.load(Ordering::Relaxed));
    println!("{handled} signals, {served} served");
    assert!(served > 0 && broken == 0, "{served} served, {broken} broken");
}
