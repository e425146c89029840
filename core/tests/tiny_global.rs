//! A program on a `TinyHeap`: everything here that allocates, the test harness too, does so from one static region.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::null_mut;
use std::thread;

use pagemill::{AllocError, Context, RegionError, TinyHeap};

/// What a kernel has as its global allocator, but for the moment at which the heap gets its memory: a kernel adds it
/// before it allocates, a program on an operating system allocates before its `main`.
struct Program(TinyHeap<spin::Mutex<()>>);

// Miri looks at each byte.
const BYTES: usize = if cfg!(miri) { 256 << 10 } else { 4 << 20 };
static mut MEMORY: [u8; BYTES] = [0; BYTES];

#[global_allocator]
// Threads may wait for each other.
static PROGRAM: Program = Program(TinyHeap::with_context(|| Context::Task));

impl Program {
    fn add_memory(&self) {
        let memory = &raw mut MEMORY;
        // SAFETY: nobody else uses the static, and a second call adds nothing.
        let added = unsafe { self.0.add_region(memory) };
        assert!(matches!(added, Ok(()) | Err(RegionError::Overlap)));
    }
}

// SAFETY: the heap's own, with one request repeated.
unsafe impl GlobalAlloc for Program {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut memory = self.0.alloc(layout);
        if memory == Err(AllocError::NotReady) {
            self.add_memory();
            memory = self.0.alloc(layout);
        }
        memory.map_or(null_mut(), |memory| memory.as_ptr())
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.0.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { GlobalAlloc::realloc(&self.0, memory, layout, new_size) }
    }
}

const ROUNDS: usize = if cfg!(miri) { 20 } else { 2000 };

#[test]
fn collections_live_on_a_tiny_heap() {
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            thread::spawn(move || {
                let mut map = BTreeMap::new();
                let mut queue = VecDeque::new();
                for round in 0..ROUNDS {
                    map.insert(round * 7919 % ROUNDS, format!("{worker} {round}"));
                    queue.push_back((round as u8, vec![round as u8; round % 300]));
                    if round % 3 == 0 {
                        map.pop_first();
                        let (fill, bytes) = queue.pop_front().unwrap();
                        assert!(bytes.iter().all(|&byte| byte == fill), "somebody else's bytes");
                    }
                }
                let in_order = map.keys().is_sorted();
                assert!(in_order && map.values().all(|text| text.starts_with(&worker.to_string())));
                let lengths: usize = queue.iter().map(|(_, bytes)| bytes.len()).sum();
                (map.len(), lengths)
            })
        })
        .collect();
    let results: Vec<_> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    assert!(results.iter().all(|result| *result == results[0]));
    // More than there is: an error, no panic, and all goes on.
    let mut large = Vec::<u8>::new();
    assert!(large.try_reserve_exact(BYTES).is_err());
    assert!(large.try_reserve_exact(BYTES / 4).is_ok());
    drop(large);
    let census = PROGRAM.0.census().unwrap();
    assert!(census.bytes - census.free_bytes < BYTES / 4, "memory came back: {census:?}");
    if !cfg!(miri) {
        PROGRAM.0.validate().unwrap();
    }
}
