//! Interrupts that allocate and free at every point where the lock is taken or let go: a lock that brings them along.

#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use std::cell::{Cell, RefCell};
use std::vec::Vec;

use lock_api::{GuardNoSend, RawMutex};

use super::TinyHeap;
use crate::error::AllocError;

/// A lock whose CPU is interrupted before and after each of its changes.
struct Interrupted(AtomicBool);

// SAFETY: the flag is set by one holder at a time.
unsafe impl RawMutex for Interrupted {
    #[allow(clippy::declare_interior_mutable_const, reason = "as the trait has it")]
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        unreachable!("a heap that does not know its context waits for nobody");
    }

    fn try_lock(&self) -> bool {
        interrupt();
        let taken = !self.0.swap(true, Ordering::Acquire);
        interrupt();
        taken
    }

    unsafe fn unlock(&self) {
        interrupt();
        self.0.store(false, Ordering::Release);
        interrupt();
    }
}

static HEAP: TinyHeap<Interrupted> = TinyHeap::new();
static mut MEMORY: [u8; 16 << 10] = [0; 16 << 10];

#[derive(Clone, Copy)]
struct Object(NonNull<u8>, Layout, u8);

std::thread_local! {
    /// Interrupts are on, and none runs.
    static ENABLED: Cell<bool> = const { Cell::new(false) };
    static SEED: Cell<u64> = const { Cell::new(1) };
    /// What is lent, and neither being allocated nor freed.
    static OBJECTS: RefCell<Vec<Object>> = const { RefCell::new(Vec::new()) };
    /// Requests in vain: because the lock was held, because memory had ended.
    static MISSES: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

fn draw(below: u64) -> u64 {
    SEED.set(SEED.get().wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f));
    (SEED.get() >> 33) % below
}

fn interrupt() {
    if ENABLED.replace(false) {
        (0..draw(3)).for_each(|_| step());
        ENABLED.set(true);
    }
}

/// Allocates, frees or resizes something, as the code that is interrupted does too.
fn step() {
    let layout = Layout::from_size_align(1 + draw(600) as usize, 8 << draw(5)).unwrap();
    match draw(7) {
        0..=3 => match HEAP.alloc(layout) {
            Ok(memory) => lent(Object(memory, layout, draw(256) as u8)),
            Err(AllocError::WouldBlock) => MISSES.set((MISSES.get().0 + 1, MISSES.get().1)),
            Err(error) => {
                assert_eq!(error, AllocError::NoMemory);
                MISSES.set((MISSES.get().0, MISSES.get().1 + 1));
            }
        },
        4 | 5 => {
            if let Some(object) = pick() {
                checked(object, object.1.size());
                // SAFETY: lent, and not used any more.
                unsafe { HEAP.free(object.0, object.1) }.unwrap();
                // SAFETY: that it is free is found out, as long as nobody else has been lent it.
                assert!(draw(2) == 0 || ENABLED.get() || unsafe { HEAP.free(object.0, object.1) }.is_err());
            }
        }
        _ => {
            if let Some(object) = pick() {
                let bytes = layout.size();
                // SAFETY: lent; used at its new place from now on, if that succeeds.
                match unsafe { HEAP.realloc(object.0, object.1, bytes) } {
                    Ok(memory) => {
                        let layout = Layout::from_size_align(bytes, object.1.align()).unwrap();
                        checked(Object(memory, layout, object.2), bytes.min(object.1.size()));
                        lent(Object(memory, layout, object.2));
                    }
                    Err(_) => lent(object),
                }
            }
        }
    }
}

fn pick() -> Option<Object> {
    let count = OBJECTS.with_borrow(|objects| objects.len() as u64);
    (count > 0).then(|| OBJECTS.with_borrow_mut(|objects| objects.swap_remove(draw(count) as usize)))
}

fn lent(object: Object) {
    // SAFETY: lent, and as long.
    unsafe { object.0.write_bytes(object.2, object.1.size()) };
    OBJECTS.with_borrow_mut(|objects| objects.push(object));
}

fn checked(object: Object, count: usize) {
    // SAFETY: lent, as long and written.
    let bytes = unsafe { core::slice::from_raw_parts(object.0.as_ptr(), count) };
    assert!(crate::testing::is_all(bytes, object.2), "somebody else's bytes");
}

#[test]
fn interrupts_at_every_lock_and_unlock_lose_nothing() {
    let memory = &raw mut MEMORY;
    // SAFETY: nobody else uses it.
    unsafe { HEAP.add_region(memory) }.unwrap();
    for _ in 0..if cfg!(miri) { 60 } else { 20_000 } {
        ENABLED.set(true);
        step();
        ENABLED.set(false);
    }
    HEAP.validate().unwrap();
    while let Some(object) = pick() {
        checked(object, object.1.size());
        // SAFETY: lent, and not used any more.
        unsafe { HEAP.free(object.0, object.1) }.unwrap();
    }
    HEAP.validate().unwrap();
    let census = HEAP.census().unwrap();
    assert_eq!(census.free_bytes, census.bytes);
    assert!(cfg!(miri) || (MISSES.get().0 > 100 && MISSES.get().1 > 100), "both have happened: {:?}", MISSES.get());
}
