//! Wrong frees through the global allocator: a line and an end, or what the program wants instead.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Mutex;

use pagemill::{BadFree, BadFreeKind};
use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const LAYOUT: Layout = Layout::new::<[u64; 8]>();
const LARGE: Layout = Layout::new::<[u64; 1 << 16]>();

/// A name, what is done, a part of the line that it writes, and what a hook is told.
type Wrong = (&'static str, fn(), &'static str, BadFreeKind);

/// Everything that is wrong.
const WRONGS: [Wrong; 7] = [
    ("twice", twice, "freed twice", BadFreeKind::NotLent),
    ("twice_on_another_thread", twice_on_another_thread, "freed twice", BadFreeKind::NotLent),
    ("interior", interior, "inside an object", BadFreeKind::Interior),
    ("foreign", foreign, "in no object's memory", BadFreeKind::Foreign),
    ("wrong_class", wrong_class, "another layout", BadFreeKind::WrongClass),
    ("large_twice", large_twice, "freed twice", BadFreeKind::NotLent),
    ("large_of_another_size", large_of_another_size, "another size", BadFreeKind::WrongSize),
];

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

fn twice() {
    let object = object(LAYOUT);
    free(object, LAYOUT);
    free(object, LAYOUT);
}

fn twice_on_another_thread() {
    let object = object(LAYOUT);
    free(object, LAYOUT);
    let address = object.expose_provenance();
    std::thread::spawn(move || free(std::ptr::with_exposed_provenance_mut(address), LAYOUT)).join().unwrap();
}

fn interior() {
    let object = object(LAYOUT);
    free(object.wrapping_add(8), LAYOUT);
    free(object, LAYOUT);
}

fn foreign() {
    let mut local = [0u64; 8];
    free(local.as_mut_ptr().cast(), LAYOUT);
}

fn wrong_class() {
    let object = object(LAYOUT);
    free(object, Layout::new::<[u64; 20]>());
    free(object, LAYOUT);
}

fn large_twice() {
    let object = object(LARGE);
    free(object, LARGE);
    free(object, LARGE);
}

fn large_of_another_size() {
    let object = object(LARGE);
    free(object, Layout::new::<[u64; 1 << 17]>());
    free(object, LARGE);
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
fn a_wrong_free_says_so_and_aborts() {
    for (name, _, line, _) in WRONGS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "do_wrong", "--ignored", "--nocapture"]).env("PAGEMILL_WRONG", name);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{name}: {text}");
        let said: Vec<_> = text.lines().filter(|line| line.starts_with("pagemill: bad free: 0x")).collect();
        assert!(said.len() == 1 && said[0].contains(line), "{name}: {text}");
    }
}

static CAUGHT: Mutex<Vec<BadFreeKind>> = Mutex::new(Vec::new());

/// A function that returns: the free is ignored. It may allocate.
#[test]
#[ignore = "changes what the process does"]
fn a_function_of_the_program() {
    A.on_bad_free(|fault: BadFree| CAUGHT.lock().unwrap().push(fault.kind));
    for (name, wrong, _, kind) in WRONGS {
        wrong();
        assert_eq!(CAUGHT.lock().unwrap().pop(), Some(kind), "{name}");
        assert!(CAUGHT.lock().unwrap().is_empty(), "{name}");
    }
    // As before: nothing was taken back twice.
    let objects: Vec<usize> = (0..10_000usize).map(|n| Box::into_raw(Box::new([n; 8])).expose_provenance()).collect();
    for (n, address) in objects.into_iter().enumerate() {
        // SAFETY: given up just above, and taken back once.
        let object = unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<[usize; 8]>(address)) };
        assert_eq!(*object, [n; 8]);
    }
}

/// One that unwinds aborts.
#[test]
#[ignore = "ends the process"]
fn a_function_that_unwinds() {
    A.on_bad_free(|_| panic!("out of a free"));
    twice();
    std::process::exit(0);
}

fn alone(name: &str) -> std::process::Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"]).output().unwrap()
}

#[test]
fn the_program_may_decide() {
    let output = alone("a_function_of_the_program");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(alone("a_function_that_unwinds").status.signal(), Some(libc::SIGABRT));
}
