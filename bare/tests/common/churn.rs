//! Objects that come and go: the work on which heaps are compared.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use pagemill_tests::Rng;

/// Objects that are held at a time.
const HELD: usize = 512;

/// Replaces `steps` objects, one after the other, by others of 16 to 2048 bytes, mostly small, and frees all at the
/// end.
///
/// # Panics
/// If an object is written to by somebody else, or there is none to be had.
pub(crate) fn churn(heap: &(impl GlobalAlloc + ?Sized), steps: usize, rng: &mut Rng) {
    let mut held = [(ptr::null_mut::<usize>(), 0); HELD];
    for step in 0..steps + HELD {
        // The last ones only go.
        let place = if step < steps { rng.below(HELD) } else { step - steps };
        let (object, size) = held[place];
        if !object.is_null() {
            free(heap, object, size);
        }
        held[place] = (ptr::null_mut(), 0);
        if step < steps {
            let size = 16 + (rng.below(2048) >> rng.below(8));
            held[place] = (alloc(heap, size), size);
        }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn alloc(heap: &(impl GlobalAlloc + ?Sized), size: usize) -> *mut usize {
    // SAFETY: the layout has a size.
    let object = NonNull::new(unsafe { heap.alloc(layout(size)) }).expect("there is memory").cast::<usize>().as_ptr();
    // SAFETY: lent just now, and long and aligned enough for a word.
    unsafe { object.write(object.addr() ^ size) };
    object
}

fn free(heap: &(impl GlobalAlloc + ?Sized), object: *mut usize, size: usize) {
    // SAFETY: written by `alloc`.
    assert_eq!(unsafe { object.read() }, object.addr() ^ size, "somebody else has written to it");
    // SAFETY: lent for that layout, and not used any more.
    unsafe { heap.dealloc(object.cast(), layout(size)) };
}
