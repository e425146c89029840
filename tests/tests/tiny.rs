//! The tiny heap keeps what a heap allocator owes its callers, in regions of all sizes it is meant for.

use std::ptr::slice_from_raw_parts_mut;

use pagemill::{Context, TinyHeap};
use pagemill_tests::conformance::{self, API_PROPERTIES, Alone, Crew, Limits, PROPERTIES, Threads};

type Tiny = TinyHeap<spin::Mutex<()>>;

fn conforms(heap: &Tiny, regions: &[usize], crew: &impl Crew) {
    // Words, so that the regions are aligned for no more than that.
    let memory: Vec<_> = regions.iter().map(|bytes| Box::into_raw(vec![0u64; bytes / 8].into_boxed_slice())).collect();
    for &words in &memory {
        let region = slice_from_raw_parts_mut(words.cast::<u8>(), words.len() * 8);
        // SAFETY: the memory is freed when nobody uses the heap any more.
        unsafe { heap.add_region(region) }.unwrap();
    }
    let before = heap.census().unwrap();
    let mut checked = 0;
    let bytes: usize = regions.iter().sum();
    conformance::check_global(heap, &Limits::of_memory(bytes), crew, &mut |_| checked += 1).unwrap();
    conformance::check_allocator(&heap, &Limits::of_memory(bytes), crew, &mut |_| checked += 1).unwrap();
    assert_eq!(checked, 2 * PROPERTIES.len() + API_PROPERTIES.len());
    heap.validate().unwrap();
    assert_eq!(heap.census(), Ok(before));
    for words in memory {
        // SAFETY: it is from `Box::into_raw`, and the heap that had it is used no more.
        drop(unsafe { Box::from_raw(words) });
    }
}

#[test]
fn a_tiny_heap_conforms_alone() {
    for kib in [32, 100] {
        conforms(&Tiny::new(), &[kib << 10], &Alone);
    }
    conforms(&Tiny::new(), &[100 << 10, 64 << 10], &Alone);
}

#[test]
fn a_tiny_heap_conforms_among_threads() {
    let heap = Tiny::with_context(|| Context::Task);
    conforms(&heap, &[1 << 20], &Threads(3));
}
