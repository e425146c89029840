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

fn on_signal(handler: extern "C" fn(libc::c_int)) {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler may interrupt anything, and the action outlives the call.
    assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()) }, 0);
}

/// A signal so often; none if it is 0.
fn storm(interval_us: libc::suseconds_t) {
    let interval = libc::timeval { tv_sec: 0, tv_usec: interval_us };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: the timer is read during the call.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) }, 0);
}

#[test]
fn a_storm_of_handlers_that_allocate() {
    on_signal(handler);
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

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "its limit is the process's"]
fn forks_with_handlers_that_find_no_memory() {
    extern "C" fn ask_for_too_much(_: libc::c_int) {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        let layout = Layout::new::<[u8; 4 << 20]>();
        // SAFETY: the layout has bytes.
        let object = unsafe { A.alloc(layout) };
        if !object.is_null() {
            // SAFETY: just lent, and not used.
            unsafe { A.dealloc(object, layout) };
        }
    }
    on_signal(ask_for_too_much);
    A.set_limit(3 << 20).expect("little is in use");
    storm(50);
    for turn in 0..200 {
        // SAFETY: the child ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: the test's own end is not the child's.
            unsafe { libc::_exit(i32::from(vec![1u8; 1000].len() != 1000)) }
        }
        let mut status = 0;
        // SAFETY: the call writes the status it is given. A signal may end it too early.
        while unsafe { libc::waitpid(child, &mut status, 0) } == -1 {}
        assert_eq!(status, 0, "child {turn}");
    }
    storm(0);
    println!("{} signals", HANDLED.load(Ordering::Relaxed));
    assert!(HANDLED.load(Ordering::Relaxed) > 0);
}

/// Such a handler may come while the thread that forks has all locks.
#[test]
fn a_handler_in_the_middle_of_a_fork_that_finds_no_memory() {
    let mut program = std::process::Command::new("timeout");
    program.arg("60").arg(std::env::current_exe().expect("it runs"));
    let program = program.args(["--exact", "forks_with_handlers_that_find_no_memory", "--ignored", "--nocapture"]);
    let output = program.output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
}
