//! A heap for what boot and a young kernel need before pagemill runs. It is not the global allocator: its memory is
//! reserved, and nothing that comes from it may be given to another heap.

use linked_list_allocator::Heap;

use crate::early::{EarlyError, Owner};
use crate::memory_map::PhysRange;
use crate::percpu::IrqLock;
use crate::physical;

/// Its size.
pub const BYTES: u64 = 256 << 10;

static HEAP: lock_api::Mutex<IrqLock, Heap> = lock_api::Mutex::new(Heap::empty());

/// Gives it its memory.
pub(crate) fn init() {
    match physical::alloc(BYTES, 4096, PhysRange::BELOW_4_GIB, Owner::BootHeap) {
        Ok(block) => HEAP.lock().init_from_slice(block.into_bytes()),
        // A kernel that does not use it need not have it.
        Err(EarlyError::NoMemory) => {}
        Err(error) => panic!("no boot heap: {error:?}"),
    }
}

/// Runs `f` on the heap, with interrupts off. The heap is empty where memory was too short for it.
pub fn with<R>(f: impl FnOnce(&mut Heap) -> R) -> R {
    f(&mut HEAP.lock())
}
