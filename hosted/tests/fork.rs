//! Children of `fork` go on allocating, whatever other threads were doing.
#![cfg(target_os = "linux")]

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pagemill::Checked;
use pagemill_hosted::{MachineBuilder, Topology};

#[global_allocator]
static A: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();

/// Forks under load. `PAGEMILL_FORKS=1500` is the long form.
fn forks() -> usize {
    std::env::var("PAGEMILL_FORKS").ok().and_then(|forks| forks.parse().ok()).unwrap_or(100)
}

/// Small and large objects, of all classes, held for a while.
fn churn(seed: usize, turns: usize) -> usize {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut turn = seed;
    for _ in 0..turns {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = match turn >> 60 {
            0 => 64 << 10,
            1 => 5000,
            _ => turn >> 54,
        };
        held.push(vec![seed as u8; bytes + 1]);
        if held.len() > 200 {
            held.swap_remove(turn % 200);
        }
    }
    held.iter().map(|bytes| usize::from(bytes[bytes.len() - 1] == seed as u8)).sum()
}

extern "C" fn churn_on_a_thread(_: *mut c_void) -> *mut c_void {
    std::ptr::without_provenance_mut(churn(3, 2000))
}

/// What a child does: everything, on a thread of its own too.
///
/// One of the C library: the standard library's threads lock a mutex when they begin and end, and another thread may
/// have held it when the child was made.
fn live() -> bool {
    let map: BTreeMap<usize, String> = (0..1000).map(|n| (n, n.to_string())).collect();
    // SAFETY: a number or a pointer, which all zeros is one of; it is written before it is used.
    let mut thread: libc::pthread_t = unsafe { std::mem::zeroed() };
    let none = std::ptr::null_mut();
    // SAFETY: the thread's name is written during the call, and the function takes no argument.
    let is_there = unsafe { libc::pthread_create(&mut thread, std::ptr::null(), churn_on_a_thread, none) } == 0;
    let well = churn(7, 2000) > 0;
    let mut count = none;
    // SAFETY: the thread was made above and is joined once; what it answers is written during the call.
    let has_ended = is_there && unsafe { libc::pthread_join(thread, &mut count) } == 0;
    well && has_ended && !count.is_null() && map.len() == 1000
}

/// Whether the child ended well within a minute.
fn ends_well(child: libc::pid_t) -> bool {
    let began = Instant::now();
    loop {
        let mut status = 0;
        // SAFETY: the call writes the status it is given.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 if began.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_micros(200)),
            0 => {
                // SAFETY: a child that hangs is ended.
                let _ = unsafe { libc::kill(child, libc::SIGKILL) };
                return false;
            }
            _ => return libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
        }
    }
}

#[test]
fn children_of_a_busy_process_go_on() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (1..=4)
        .map(|seed| {
            std::thread::spawn(move || {
                while !DONE.load(Ordering::Relaxed) {
                    assert!(churn(seed, 5000) > 0);
                    if seed == 1 {
                        // Threads come and go meanwhile.
                        std::thread::spawn(move || churn(seed + 10, 100)).join().unwrap();
                    }
                }
            })
        })
        .collect();
    for turn in 0..forks() {
        // SAFETY: the child does what this test is about.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let well = live() && A.lost_at_fork() < 1 << 20;
            // SAFETY: the test's own end is not the child's.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        assert!(ends_well(child), "child {turn} hangs or fails");
    }
    DONE.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(A.lost_at_fork(), 0);
}

#[test]
fn a_child_of_a_child_too() {
    // SAFETY: the child does what this test is about.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        let grandchild = unsafe { libc::fork() };
        let well = live() && (grandchild == 0 || ends_well(grandchild));
        // SAFETY: the test's own end is not the child's.
        unsafe { libc::_exit(i32::from(!well)) }
    }
    assert!(ends_well(child));
}

#[test]
fn the_thread_in_the_background_is_there_again_in_a_child() {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    A.tick_in_background(Duration::from_millis(50)).expect("a thread");
    // SAFETY: the child does what this test is about.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let alone = threads();
        let began = Instant::now();
        while threads() == alone && began.elapsed() < Duration::from_secs(20) {
            drop(vec![1u8; 20 << 20]);
            std::thread::sleep(Duration::from_millis(5));
        }
        let well = alone == 1 && threads() == 2 && live();
        // SAFETY: the test's own end is not the child's.
        unsafe { libc::_exit(i32::from(!well)) }
    }
    assert!(ends_well(child));
    A.tick_in_background(Duration::ZERO).expect("nothing is started");
}

#[test]
fn a_heap_of_a_machine_goes_on_in_a_child_too() {
    static DONE: AtomicBool = AtomicBool::new(false);
    let topology = Topology::parse("cpus 0-15 128M; 128M").expect("a machine");
    let machine = MachineBuilder::new(topology).build::<Checked>().expect("a machine");
    // Two heaps that share its frames.
    let heaps = [(); 2].map(|()| machine.heap().expect("a heap"));
    let work = move |turns: usize| {
        for turn in 0..turns {
            let heap = heaps[turn % 2];
            let layouts =
                [40, 3000, 30_000, 200_000].map(|size| Layout::from_size_align(size + turn % 7, 8).expect("one"));
            let objects = layouts.map(|layout| heap.alloc(layout).expect("there is memory"));
            for (object, layout) in objects.into_iter().zip(layouts) {
                // SAFETY: just lent, and not used any more.
                unsafe { heap.free(object, layout) }.expect("it is lent");
            }
        }
    };
    let threads: Vec<_> = (0..3)
        .map(|_| {
            std::thread::spawn(move || {
                while !DONE.load(Ordering::Relaxed) {
                    work(100);
                }
            })
        })
        .collect();
    for turn in 0..forks() / 2 {
        // SAFETY: the child does what this test is about.
        let child = unsafe { libc::fork() };
        if child == 0 {
            work(200);
            // SAFETY: the test's own end is not the child's.
            unsafe { libc::_exit(0) }
        }
        assert!(ends_well(child), "child {turn} hangs or fails");
    }
    DONE.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
}
