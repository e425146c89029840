//! A process at level `Hardened`: what is beside a large block cannot be touched, what is written where nobody has
//! anything is found, and threads and children of `fork` leave nothing behind.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use pagemill::SizeClass;
use pagemill_hosted::{Hardened, Pagemill};

#[global_allocator]
static A: Pagemill<Hardened> = Pagemill::new();

const SMALL: Layout = Layout::new::<[u64; 8]>();
const LARGE: Layout = Layout::new::<[u64; 1 << 16]>();

/// A name, what is done, and how it ends: a part of the line that is written, or else a touch of what cannot be
/// touched.
type Wrong = (&'static str, fn(), Option<&'static str>);

const WRONGS: [Wrong; 8] = [
    ("behind_large", || touch(object(LARGE), LARGE.size() as isize), None),
    ("before_large", || touch(object(LARGE), -1), None),
    ("behind_large_of_odd_size", || touch(object(odd()), 102_400), None),
    ("in_the_slack", || then_free(odd(), 100_000), Some("written beyond its end")),
    ("behind_small", || then_free(SMALL, 64), Some("written beyond its end")),
    ("behind_nothing", || then_free(Layout::new::<u8>(), 1), Some("written beyond its end")),
    ("another_size", another_size, Some("another size")),
    ("after_free", after_free, Some("written after it had been freed")),
];

fn odd() -> Layout {
    Layout::from_size_align(100_000, 8).unwrap()
}

fn object(layout: Layout) -> *mut u8 {
    // SAFETY: the layouts of this test have bytes.
    let object = unsafe { A.alloc(layout) };
    assert!(!object.is_null());
    object
}

fn free(object: *mut u8, layout: Layout) {
    // SAFETY: none: what is wrong with it is for the allocator to find.
    unsafe { A.dealloc(object, layout) }
}

fn touch(object: *mut u8, offset: isize) {
    // SAFETY: none: the address is in the reservation, and what is wrong is for the allocator to find.
    unsafe { object.wrapping_offset(offset).write_volatile(0) };
}

fn then_free(layout: Layout, offset: isize) {
    let object = object(layout);
    touch(object, offset);
    free(object, layout);
}

fn another_size() {
    // Of the same class.
    free(object(SMALL), Layout::new::<[u8; 60]>());
}

fn after_free() {
    let object = object(SMALL);
    free(object, SMALL);
    A.heap().drain_cpu();
    // SAFETY: none: nobody has it.
    unsafe { object.write_volatile(1) };
    for _ in 0..100_000 {
        self::object(SMALL);
    }
}

/// Run by the test below, in a process of its own for each of them.
#[test]
#[ignore = "ends the process"]
fn do_wrong() {
    let name = std::env::var("PAGEMILL_WRONG").unwrap();
    let wrong = WRONGS.iter().find(|wrong| wrong.0 == name).unwrap();
    wrong.1();
    // Whoever gets here was not caught.
    std::process::exit(0);
}

#[test]
fn whoever_writes_where_he_has_nothing_is_stopped() {
    for (name, _, line) in WRONGS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "do_wrong", "--ignored", "--nocapture"]).env("PAGEMILL_WRONG", name);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let Some(line) = line else {
            assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{name}: {text}");
            continue;
        };
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}: {text}");
        let said: Vec<_> = text.lines().filter(|line| line.starts_with("pagemill: bad free: 0x")).collect();
        assert!(said.len() == 1 && said[0].contains(line), "{name}: {text}");
    }
}

/// More large blocks than the system allows mappings: the last ones' guards are filled, and all come home.
#[test]
fn more_blocks_than_there_may_be_mappings() {
    let layout = Layout::from_size_align(40_000, 8).unwrap();
    let blocks: Vec<_> = (0..12_000).map(|_| object(layout)).collect();
    assert!(std::fs::read_to_string("/proc/self/maps").unwrap().lines().count() < 60_000);
    for &block in &blocks {
        touch(block, 39_999);
    }
    blocks.into_iter().for_each(|block| free(block, layout));
    assert_eq!(A.heap().census().stuck_bytes, 0);
}

/// As strict as can be: the guard before the block is in the gigabyte before.
#[test]
fn a_block_at_a_gigabyte() {
    let layout = Layout::from_size_align(100_000, 1 << 30).unwrap();
    for _ in 0..3 {
        let block = object(layout);
        assert_eq!(block.addr() % layout.align(), 0);
        (0..layout.size() as isize).step_by(4096).for_each(|offset| touch(block, offset));
        free(block, layout);
    }
}

fn quarantined() -> usize {
    let census = A.heap().census();
    SizeClass::all().map(|class| census.class(class).quarantined).sum()
}

/// Small and large objects, of many sizes, held for a while.
fn churn(seed: u64, turns: usize) {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut turn = seed;
    for _ in 0..turns {
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bytes = if turn >> 60 == 0 { 50_000 } else { turn >> 54 };
        held.push(vec![seed as u8; bytes as usize + 1]);
        if held.len() > 100 {
            let mut bytes = held.swap_remove(turn as usize % 100);
            assert!(bytes.iter().all(|&byte| byte == seed as u8));
            bytes.resize(bytes.len() * 2, 1);
        }
    }
}

/// What a thread has held back goes when it does.
#[test]
fn threads_leave_nothing_in_quarantine() {
    for seed in 1..40 {
        std::thread::spawn(move || churn(seed, 3000)).join().unwrap();
    }
    // The threads of these tests, and the one that runs them.
    assert!(quarantined() <= 8 * 256, "{}", quarantined());
}

#[test]
fn children_of_fork_go_on() {
    let threads: Vec<_> = (1..3).map(|seed| std::thread::spawn(move || churn(seed, 30_000))).collect();
    for turn in 0..10 {
        // SAFETY: the child allocates and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            churn(turn, 2000);
            let joined = std::thread::spawn(move || churn(turn + 9, 2000)).join().is_ok();
            let well = joined && A.lost_at_fork() < 1 << 20;
            // SAFETY: the test's own end is not the child's.
            unsafe { libc::_exit(i32::from(!well)) }
        }
        let mut status = 0;
        // SAFETY: the call writes the status it is given.
        let waited = unsafe { libc::waitpid(child, &mut status, 0) };
        assert!(waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
