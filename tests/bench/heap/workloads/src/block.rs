//! Blocks of memory as a C program would hold them: a request of a size, a touch, a release.
//!
//! They go to the global allocator directly, since a `Vec` would add its own checks to what is measured.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A block whose size the compiler knows, with its first word written.
pub struct Fixed<const WORDS: usize>(Box<MaybeUninit<[u64; WORDS]>>);

impl<const WORDS: usize> Fixed<WORDS> {
    /// Allocates a block.
    #[inline(always)]
    #[expect(clippy::new_without_default, reason = "allocating is no default")]
    pub fn new() -> Self {
        const { assert!(WORDS > 0) };
        let mut block = Box::<[u64; WORDS]>::new_uninit();
        let first: *mut u64 = block.as_mut_ptr().cast();
        // SAFETY: the block has at least one word, and belongs to this function.
        unsafe { first.write(1) };
        Self(block)
    }

    /// Where the block lies.
    #[inline(always)]
    pub fn address(&self) -> *const u64 {
        self.0.as_ptr().cast()
    }
}

/// A block of at least 8 bytes, aligned to 8, with its first word written.
pub struct Block {
    start: NonNull<u64>,
    bytes: usize,
}

// SAFETY: the block belongs to its holder alone.
unsafe impl Send for Block {}

impl Block {
    const ALIGN: usize = 8;

    #[inline(always)]
    fn layout(bytes: usize) -> Layout {
        debug_assert!((8..1 << 40).contains(&bytes));
        // SAFETY: 8 is a power of two, and no workload asks for a size that overflows when rounded up to it.
        unsafe { Layout::from_size_align_unchecked(bytes, Self::ALIGN) }
    }

    /// Allocates `bytes`, which are at least 8.
    #[inline(always)]
    pub fn new(bytes: usize) -> Self {
        let layout = Self::layout(bytes);
        // SAFETY: the size is not zero.
        let start: *mut u64 = unsafe { alloc(layout) }.cast();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        // SAFETY: the block is at least a word long, aligned to a word, and this function's.
        unsafe { start.write(bytes as u64) };
        Self { start, bytes }
    }

    /// How many bytes.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first word.
    #[inline(always)]
    pub fn first(&self) -> u64 {
        // SAFETY: `new` has written it.
        unsafe { self.start.read() }
    }

    /// Writes a word at every `step` bytes, which are a multiple of 8.
    #[inline(always)]
    pub fn touch(&mut self, step: usize) {
        for at in (0..self.bytes / 8).step_by(step / 8) {
            // SAFETY: the word lies in the block.
            let word = unsafe { self.start.add(at) };
            // SAFETY: the block belongs to `self`.
            unsafe { word.write(at as u64) };
        }
    }

    /// Writes its last word.
    #[inline(always)]
    pub fn touch_end(&mut self) {
        let at = self.bytes / 8 - 1;
        // SAFETY: a block has at least one word, so the last one lies in it.
        let word = unsafe { self.start.add(at) };
        // SAFETY: the block belongs to `self`.
        unsafe { word.write(at as u64) };
    }
}

impl Drop for Block {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `new` allocated it with this layout, and nobody holds it any more.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.bytes)) };
    }
}

/// A block that knows its size by its first word, so that it is one pointer.
pub struct Parcel(NonNull<u64>);

// SAFETY: the block belongs to its holder alone.
unsafe impl Send for Parcel {}

impl Parcel {
    /// Allocates `bytes`, which are at least 8.
    #[inline(always)]
    pub fn new(bytes: usize) -> Self {
        Self(ManuallyDrop::new(Block::new(bytes)).start)
    }

    /// Fills it with words made of `seed`.
    #[inline(always)]
    pub fn fill(&mut self, seed: u64) {
        for at in 1..self.words() {
            // SAFETY: the word lies in the block.
            let word = unsafe { self.0.add(at) };
            // SAFETY: the block belongs to `self`.
            unsafe { word.write(seed ^ at as u64) };
        }
    }

    /// Was it filled with words made of `seed`?
    #[inline(always)]
    pub fn holds(&self, seed: u64) -> bool {
        (1..self.words()).all(|at| {
            // SAFETY: the word lies in the block.
            let word = unsafe { self.0.add(at) };
            // SAFETY: `fill` has written it.
            unsafe { word.read() == seed ^ at as u64 }
        })
    }

    fn bytes(&self) -> usize {
        // SAFETY: `Block::new` wrote the size there, and nothing else is ever written there.
        unsafe { self.0.read() as usize }
    }

    fn words(&self) -> usize {
        self.bytes() / 8
    }
}

impl Drop for Parcel {
    #[inline(always)]
    fn drop(&mut self) {
        drop(Block { start: self.0, bytes: self.bytes() });
    }
}

/// A place where threads leave parcels for each other.
pub struct Mailbox(AtomicPtr<u64>);

impl Mailbox {
    /// An empty one.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Leaves `parcel` there and takes what was there.
    #[inline(always)]
    pub fn swap(&self, parcel: Option<Parcel>) -> Option<Parcel> {
        let mine = parcel.map_or(null_mut(), |parcel| ManuallyDrop::new(parcel).0.as_ptr());
        // The pointer of a parcel, which is now this function's alone.
        NonNull::new(self.0.swap(mine, Ordering::AcqRel)).map(Parcel)
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        drop(self.swap(None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_written_and_freed() {
        let mut block = Block::new(4099);
        assert_eq!((block.bytes(), block.first()), (4099, 4099));
        block.touch(4096);
        block.touch_end();
        assert_eq!(block.first(), 0);
        assert!(!Fixed::<2>::new().address().is_null());
    }

    #[test]
    fn a_parcel_goes_through_a_mailbox() {
        let mailbox = Mailbox::new();
        let mut parcel = Parcel::new(100);
        parcel.fill(7);
        assert!(mailbox.swap(Some(parcel)).is_none());
        let parcel = mailbox.swap(None).unwrap();
        assert!(parcel.holds(7) && !parcel.holds(8));
        mailbox.swap(Some(parcel));
    }
}
