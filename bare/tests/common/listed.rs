//! `linked_list_allocator` behind this kernel's lock: what a kernel has before it has a heap, to compare with.

use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use lock_api::Mutex;
use pagemill_bare::percpu::IrqLock;

/// A list of free pieces, from which the first that fits is taken.
pub(crate) struct Listed(Mutex<IrqLock, Heap>);

impl Listed {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Heap::empty()))
    }

    /// Gives it memory, for as long as somebody lends it.
    ///
    /// # Safety
    /// Nothing of it is used when the bytes are others' again.
    pub(crate) unsafe fn init(&self, bytes: &mut [MaybeUninit<u8>]) {
        // SAFETY: the bytes are there and ours, for as long as the caller promises.
        unsafe { self.0.lock().init(bytes.as_mut_ptr().cast(), bytes.len()) };
    }

    /// Whether everything it lent is back.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.lock().used() == 0
    }
}

// SAFETY: the heap under the lock keeps these promises, and does not unwind.
unsafe impl GlobalAlloc for Listed {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let Some(object) = NonNull::new(object) else { return };
        // SAFETY: the caller's promise is the same.
        unsafe { self.0.lock().deallocate(object, layout) }
    }
}
