//! Programs that run on pagemill: the whole life of a process and of its threads.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};

use pagemill_hosted::{Fast, Pagemill};

#[global_allocator]
static A: Pagemill = Pagemill::new();

/// Threads of the tests below; more than there are numbers for would only be slower.
const THREADS: usize = 2000;

// The first request of this process, before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

static FROM_BEFORE_MAIN: AtomicPtr<Vec<u64>> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn before_main() {
    FROM_BEFORE_MAIN.store(Box::into_raw(Box::new((0..1000).collect())), Ordering::Release);
}

#[test]
fn what_was_made_before_main_is_there() {
    let numbers = FROM_BEFORE_MAIN.swap(std::ptr::null_mut(), Ordering::AcqRel);
    // SAFETY: made by `Box::into_raw` before `main`, and taken once.
    let numbers = unsafe { Box::from_raw(numbers) };
    assert_eq!(numbers.iter().sum::<u64>(), 499_500);
}

#[test]
fn collections_and_threads() {
    let map: BTreeMap<u64, String> = (0..10_000).map(|n| (n * 7919 % 10_007, n.to_string())).collect();
    let lengths = |map: BTreeMap<u64, String>| map.values().map(String::len).sum::<usize>();
    let threads: Vec<_> = (0..8).map(|_| map.clone()).map(|map| std::thread::spawn(move || lengths(map))).collect();
    let expected = lengths(map);
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == expected));
}

#[test]
fn objects_outlive_their_threads() {
    let maps: Vec<HashMap<usize, Vec<u8>>> = (0..50)
        .map(|seed| {
            std::thread::spawn(move || (0..200).map(|n| (n, vec![seed as u8; n * 37 + 1])).collect()).join().unwrap()
        })
        .collect();
    for (seed, map) in maps.into_iter().enumerate() {
        assert!(map.values().all(|bytes| bytes.iter().all(|&byte| byte == seed as u8)));
        // The last of them are freed by other threads again.
        std::thread::spawn(move || drop(map)).join().unwrap();
    }
}

#[test]
fn thousands_of_threads_at_once() {
    let barrier = Barrier::new(THREADS);
    let sum = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for seed in 0..THREADS {
            let (barrier, sum) = (&barrier, &sum);
            let work = move || {
                let held: Vec<String> = (0..20).map(|n| (n * seed).to_string()).collect();
                // All of them have pools of their own now.
                barrier.wait();
                sum.fetch_add(held.iter().map(String::len).sum(), Ordering::Relaxed);
            };
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, work).unwrap();
        }
    });
    let expected: usize = (0..THREADS).flat_map(|seed| (0..20).map(move |n| (n * seed).to_string().len())).sum();
    assert_eq!(sum.into_inner(), expected);
}

#[test]
fn thousands_of_threads_one_after_the_other() {
    let (send, receive) = mpsc::channel::<Box<[u8]>>();
    for seed in 0..THREADS {
        let send = send.clone();
        let thread = std::thread::spawn(move || {
            let mine: Vec<Box<[u8]>> = (0..30).map(|n| vec![seed as u8; 16 << (n % 8)].into()).collect();
            for bytes in mine.into_iter().step_by(3) {
                send.send(bytes).unwrap();
            }
        });
        thread.join().unwrap();
    }
    drop(send);
    assert_eq!(receive.iter().count(), THREADS * 10);
}

/// Allocates when it is dropped.
struct Last(usize);

static DROPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Drop for Last {
    fn drop(&mut self) {
        let words: Vec<String> = (0..self.0).map(|n| format!("{n} of {}", self.0)).collect();
        DROPPED.lock().unwrap().push(words.concat());
    }
}

#[test]
fn destructors_of_thread_locals_allocate() {
    thread_local! {
        static FIRST: RefCell<Vec<Last>> = const { RefCell::new(Vec::new()) };
        static SECOND: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    for _ in 0..100 {
        std::thread::spawn(|| {
            SECOND.set(Some(Last(3)));
            FIRST.with_borrow_mut(|first| first.extend((0..10).map(Last)));
        })
        .join()
        .unwrap();
    }
    assert_eq!(DROPPED.lock().unwrap().len(), 1100);
}

/// The destructor of a key made before pagemill's may run after it, and again in the next round.
unsafe extern "C" fn key_ended(value: *mut c_void) {
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    // SAFETY: a key's values here are boxes, each seen once.
    let text = unsafe { Box::from_raw(value.cast::<String>()) };
    let again = Box::new(format!("{text}!"));
    let held: Vec<Vec<u8>> = (0..100).map(|n| vec![1; n * 100]).collect();
    assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 495_000);
    if ROUNDS.fetch_add(1, Ordering::Relaxed) % 3 < 2 {
        // SAFETY: the key is that of the value.
        unsafe { libc::pthread_setspecific(KEY.load(Ordering::Relaxed) as u32, Box::into_raw(again).cast()) };
    }
}

static KEY: AtomicUsize = AtomicUsize::new(0);

#[test]
fn destructors_of_keys_allocate() {
    let mut key = 0;
    // SAFETY: the call writes the key that it is given.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(key_ended)) }, 0);
    KEY.store(key as usize, Ordering::Relaxed);
    for _ in 0..100 {
        let value = Box::into_raw(Box::new(String::from("value"))).addr();
        std::thread::spawn(move || {
            // SAFETY: the box was given up for it.
            unsafe {
                libc::pthread_setspecific(KEY.load(Ordering::Relaxed) as u32, std::ptr::with_exposed_provenance(value))
            };
        })
        .join()
        .unwrap();
    }
}

static AT_EXIT: AtomicBool = AtomicBool::new(false);

extern "C" fn at_exit() {
    let words: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    let well = words.concat().len() == 2890 && std::thread::spawn(|| vec![1u8; 100_000].len()).join().is_ok();
    assert!(AT_EXIT.swap(false, Ordering::Relaxed) && well);
    // Not by the test harness, whose output is over.
    println!("well at exit");
}

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "leaves the process"]
fn leave() {
    AT_EXIT.store(true, Ordering::Relaxed);
    // SAFETY: the function takes and answers nothing.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
    std::process::exit(0);
}

#[test]
fn functions_at_exit_allocate() {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", "leave", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("well at exit"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn both_levels_serve_one_process() {
    let fast = Pagemill::<Fast>::new();
    let layouts: Vec<Layout> = (1..200).map(|n| Layout::from_size_align(n * n, 1 << (n % 13)).unwrap()).collect();
    let serve = || {
        for &layout in &layouts {
            // SAFETY: no layout here has no bytes.
            let object = unsafe { fast.alloc_zeroed(layout) };
            assert!(!object.is_null() && object.is_aligned_to_layout(layout));
            // SAFETY: so many bytes were just lent.
            let bytes = unsafe { std::slice::from_raw_parts_mut(object, layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == 0));
            bytes.fill(0xA5);
            // SAFETY: the object is of that layout, and is not used any more.
            unsafe { fast.dealloc(object, layout) };
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(serve))));
    serve();
}

trait Aligned {
    fn is_aligned_to_layout(&self, layout: Layout) -> bool;
}

impl Aligned for *mut u8 {
    fn is_aligned_to_layout(&self, layout: Layout) -> bool {
        self.addr().is_multiple_of(layout.align())
    }
}

#[test]
fn large_objects_cross_regions() {
    let mut sizes = vec![1 << 20, 70 << 20, 300 << 20, 1100 << 20];
    for &bytes in &sizes {
        // Zeros that nobody touches cost no memory.
        let mut zeros = vec![0u8; bytes];
        zeros[bytes - 1] = 1;
        assert_eq!((zeros[0], zeros[bytes / 2]), (0, 0));
    }
    sizes.clear();
    for align in [4096, 1 << 21, 1 << 30] {
        let layout = Layout::from_size_align(align, align).unwrap();
        // SAFETY: the layout has bytes.
        let object = unsafe { A.alloc(layout) };
        assert!(!object.is_null() && object.is_aligned_to_layout(layout));
        // SAFETY: just lent.
        unsafe { A.dealloc(object, layout) };
    }
}

#[test]
fn growing_vectors_keep_what_they_hold() {
    let mut vectors: Vec<Vec<usize>> = vec![Vec::new(); 20];
    for n in 0..200_000 {
        let place = n % vectors.len();
        vectors[place].push(n);
    }
    for (place, vector) in vectors.iter().enumerate() {
        assert!(vector.iter().enumerate().all(|(index, &n)| n == index * 20 + place));
    }
}
