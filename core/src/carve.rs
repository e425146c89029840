//! The edge where bytes become metadata: the caller's buffer, cut into typed slices that live as long as it does.
//!
//! Nothing is ever given back: metadata lives outside the frames it describes and as long as the instance.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::config::Config;
use crate::error::SetupError;
use crate::frame::FrameRange;
use crate::platform::Platform;

/// The bytes that an instance keeps its state in.
///
/// They are the caller's to choose: of a static, of frames kept back at boot on the node they describe, of a mapping.
/// How many are needed is told by the `metadata_size` functions, with any alignment of the start allowed for.
pub struct Metadata<'m> {
    bytes: &'m mut [MaybeUninit<u8>],
    zeroed: bool,
}

impl<'m> Metadata<'m> {
    /// Bytes of any content.
    pub fn new(bytes: &'m mut [MaybeUninit<u8>]) -> Self {
        Self { bytes, zeroed: false }
    }

    /// Bytes that are known to be zero, as fresh anonymous mappings are: state that starts at zero is then not written,
    /// so that the description of a terabyte that nobody uses costs no memory.
    ///
    /// # Safety
    /// Every byte must be initialised and zero.
    pub unsafe fn zeroed(bytes: &'m mut [MaybeUninit<u8>]) -> Self {
        Self { bytes, zeroed: true }
    }

    /// Divides the bytes, so that one buffer can serve several ranges: the first `bytes` of them and the rest.
    ///
    /// # Errors
    /// Gives itself back if it has fewer.
    pub fn split_at(self, bytes: usize) -> Result<(Self, Self), Self> {
        if bytes > self.bytes.len() {
            return Err(self);
        }
        let (first, rest) = self.bytes.split_at_mut(bytes);
        Ok((Self { bytes: first, zeroed: self.zeroed }, Self { bytes: rest, zeroed: self.zeroed }))
    }

    /// Where they begin.
    pub(crate) fn address(&self) -> usize {
        self.bytes.as_ptr().addr()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Where the frames of an instance lie: the one pointer from which every other is made.
pub(crate) struct Window {
    base: AtomicPtr<u8>,
    /// The same for whoever has an address inside: a plain word, so that a compiler that sees through pointers drops
    /// it.
    origin: UnsafeCell<*mut u8>,
}

// SAFETY: `origin` is written once, before there is any address to ask for; whoever has one got it through what orders
// it after `open`.
unsafe impl Sync for Window {}
// SAFETY: a pointer to memory that is no thread's.
unsafe impl Send for Window {}

impl Window {
    pub(crate) const fn empty() -> Self {
        Self { base: AtomicPtr::new(ptr::null_mut()), origin: UnsafeCell::new(ptr::null_mut()) }
    }

    /// Opens the window.
    ///
    /// # Safety
    /// `base` is the address of frame 0, and may be used for every byte that the instance will ever lend, which nobody
    /// else uses.
    pub(crate) unsafe fn open(&self, base: *mut u8) {
        // SAFETY: nobody has been lent anything yet, so nobody looks.
        unsafe { *self.origin.get() = base };
        self.base.store(base, Ordering::Relaxed);
    }

    /// The address of frame 0.
    #[inline(always)]
    pub(crate) fn base(&self) -> usize {
        self.base.load(Ordering::Relaxed).addr()
    }

    /// How far from frame 0 an address is, for who has a pool of the instance, or an object.
    #[inline(always)]
    pub(crate) fn offset(&self, address: usize) -> usize {
        // SAFETY: written before there was any pool or object, and never again. Not `origin`: a compiler that knows
        // that both are one takes from the pointer what it is just about to add.
        address.wrapping_sub(unsafe { *self.base.as_ptr() }.addr())
    }

    /// The pointer to a byte of some frame.
    #[inline(always)]
    pub(crate) fn pointer(&self, address: usize) -> *mut u8 {
        // SAFETY: written before there was any address, and never again.
        unsafe { *self.origin.get() }.with_addr(address)
    }

    /// Makes metadata of frames, for ever: `frames` is the right to them, and ends here.
    pub(crate) fn metadata<'m>(&self, frames: FrameRange, frame_bytes: usize) -> Metadata<'m> {
        let span = frames.into_raw();
        let start = self.base().wrapping_add(span.start().number() * frame_bytes);
        let bytes = ptr::slice_from_raw_parts_mut(self.pointer(start).cast(), span.count().get() * frame_bytes);
        // SAFETY: by the promise of `open` the bytes of these frames are there and nobody else's; the right to them
        // came by value and goes no further; `MaybeUninit` asks nothing of their content.
        Metadata::new(unsafe { &mut *bytes })
    }
}

/// Words whose value is all zero bits when new.
///
/// # Safety
/// A `T` of zero bytes is valid, and equal to what `zero` makes.
pub(crate) unsafe trait ZeroIsNew {
    fn zero() -> Self;
}

macro_rules! zero_is_new {
    ($($word:ty),*) => {$(
        // SAFETY: an atomic integer has the representation of the integer, for which zero bytes are zero.
        unsafe impl ZeroIsNew for $word {
            fn zero() -> Self {
                <$word>::new(0)
            }
        }
    )*};
}
zero_is_new!(crate::sync::AtomicU8, crate::sync::AtomicU16, crate::sync::AtomicU32, crate::sync::AtomicU64);

// SAFETY: zero bytes are zero.
unsafe impl ZeroIsNew for usize {
    fn zero() -> Self {
        0
    }
}

// SAFETY: a null pointer is all zeros, and is what `empty` makes.
unsafe impl<T> ZeroIsNew for crate::sync::Publish<'_, T> {
    fn zero() -> Self {
        Self::empty()
    }
}

// SAFETY: a pool of zero bytes is one of empty stacks that hold nothing, of node 0, of nobody's desk: as `new` makes
// it.
unsafe impl ZeroIsNew for crate::pool::ObjectPool {
    fn zero() -> Self {
        Self::new()
    }
}

// SAFETY: a frame pool of zero bytes is one of empty magazines that have no tree, with an empty return buffer, of node
// 0, of nobody's desk: as `new` makes it.
unsafe impl<P: Platform, C: Config> ZeroIsNew for crate::frame_pool::FramePool<'_, P, C> {
    fn zero() -> Self {
        Self::new()
    }
}

// loom's atomics are handles that must be made one by one.
const ZERO_BYTES_ARE_NEW: bool = cfg!(not(loom));

/// Cuts metadata into slices, from the front.
pub(crate) struct Carver<'m> {
    rest: &'m mut [MaybeUninit<u8>],
    zeroed: bool,
}

impl<'m> Carver<'m> {
    /// Starts on `metadata`, which must have `needed_bytes`.
    pub(crate) fn new(metadata: Metadata<'m>, needed_bytes: usize) -> Result<Self, SetupError> {
        if metadata.bytes.len() < needed_bytes {
            return Err(SetupError::MetadataTooSmall { needed_bytes });
        }
        Ok(Self { rest: metadata.bytes, zeroed: metadata.zeroed })
    }

    /// The next `count` places for a `T`.
    ///
    /// # Panics
    /// If the plan that sized the metadata has forgotten something.
    fn places<T>(&mut self, count: usize) -> &'m mut [MaybeUninit<T>] {
        let bytes = size_of::<T>().checked_mul(count).expect("the plan has counted it");
        let skip = self.rest.as_ptr().align_offset(align_of::<T>());
        let rest = core::mem::take(&mut self.rest);
        let (place, rest) = rest.split_at_mut(skip).1.split_at_mut(bytes);
        self.rest = rest;
        // SAFETY: `place` is aligned for T, is `count` T long, is borrowed for 'm by nobody else, and `MaybeUninit`
        // asks nothing of its content.
        unsafe { core::slice::from_raw_parts_mut(place.as_mut_ptr().cast(), count) }
    }

    /// `count` values made by `make` from their index.
    pub(crate) fn slice_mut<T>(&mut self, count: usize, mut make: impl FnMut(usize) -> T) -> &'m mut [T] {
        const { assert!(!core::mem::needs_drop::<T>() || cfg!(loom), "metadata is never dropped") };
        let places = self.places::<T>(count);
        for (index, place) in places.iter_mut().enumerate() {
            place.write(make(index));
        }
        // SAFETY: every place was written just now.
        unsafe { places.assume_init_mut() }
    }

    /// A place for one value.
    pub(crate) fn one<T>(&mut self, value: T) -> &'m T {
        const { assert!(!core::mem::needs_drop::<T>() || cfg!(loom), "metadata is never dropped") };
        let places = self.places::<T>(1);
        places[0].write(value)
    }

    /// As [`Carver::slice_mut`], to share.
    pub(crate) fn slice<T>(&mut self, count: usize, make: impl FnMut(usize) -> T) -> &'m [T] {
        self.slice_mut(count, make)
    }

    /// `count` words that start at zero, left unwritten where the bytes are zero already.
    pub(crate) fn zeros_mut<T: ZeroIsNew>(&mut self, count: usize) -> &'m mut [T] {
        if !(self.zeroed && ZERO_BYTES_ARE_NEW) {
            return self.written_zeros(count);
        }
        let places = self.places::<T>(count);
        // SAFETY: the bytes are initialised and zero by the promise of `Metadata::zeroed`, nothing has been carved
        // from them before, and `ZeroIsNew` says that such a T is valid.
        unsafe { places.assume_init_mut() }
    }

    /// Not in line: who has zeroed bytes needs no place on the stack for a `T`.
    #[inline(never)]
    fn written_zeros<T: ZeroIsNew>(&mut self, count: usize) -> &'m mut [T] {
        self.slice_mut(count, |_| T::zero())
    }

    /// As [`Carver::zeros_mut`], to share.
    pub(crate) fn zeros<T: ZeroIsNew>(&mut self, count: usize) -> &'m [T] {
        self.zeros_mut(count)
    }
}

/// Adds up what a carver will cut, at compile time if need be, whatever the alignment of the bytes will be.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    bytes: usize,
}

impl Plan {
    pub(crate) const fn new() -> Self {
        Self { bytes: 0 }
    }

    /// Room for `count` values of `T`, and for aligning the first.
    pub(crate) const fn and<T>(self, count: usize) -> Self {
        // Saturating: a span of more frames than any metadata could describe must not seem to need little.
        let bytes = size_of::<T>().saturating_mul(count).saturating_add(align_of::<T>() - 1);
        Self { bytes: self.bytes.saturating_add(bytes) }
    }

    pub(crate) const fn bytes(self) -> usize {
        self.bytes
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::{AtomicU32, AtomicU64, Ordering};

    #[test]
    fn slices_are_aligned_apart_and_filled() {
        let mut bytes = [MaybeUninit::<u8>::uninit(); 256];
        let plan = Plan::new().and::<u8>(3).and::<AtomicU64>(4).and::<AtomicU32>(2);
        let mut carver = Carver::new(Metadata::new(&mut bytes[1..]), plan.bytes()).unwrap();
        let small = carver.slice_mut(3, |index| index as u8);
        let large = carver.slice(4, |index| AtomicU64::new(index as u64));
        let zeros = carver.zeros::<AtomicU32>(2);
        assert_eq!(small, [0, 1, 2]);
        assert!(large.as_ptr().is_aligned());
        assert_eq!(large[3].load(Ordering::Relaxed), 3);
        assert_eq!(zeros[1].load(Ordering::Relaxed), 0);
    }

    #[test]
    fn zeroed_bytes_are_taken_at_their_word() {
        let mut bytes = [MaybeUninit::new(0u8); 64];
        // SAFETY: the line above made them zero.
        let metadata = unsafe { Metadata::zeroed(&mut bytes) };
        let mut carver = Carver::new(metadata, 32).unwrap();
        assert!(carver.zeros::<AtomicU32>(8).iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn one_buffer_serves_several_ranges() {
        let mut bytes = [MaybeUninit::<u8>::uninit(); 8];
        let (first, rest) = Metadata::new(&mut bytes).split_at(3).ok().unwrap();
        assert_eq!((first.len(), rest.len()), (3, 5));
        assert_eq!(rest.split_at(6).err().map(|whole| whole.len()), Some(5));
    }

    #[test]
    fn what_no_metadata_could_hold_does_not_seem_small() {
        assert_eq!(Plan::new().and::<u64>(usize::MAX / 4).bytes(), usize::MAX);
        assert_eq!(Plan::new().and::<u64>(usize::MAX / 8).and::<u64>(9).bytes(), usize::MAX);
    }

    #[test]
    fn too_few_bytes_say_how_many_are_needed() {
        let mut bytes = [MaybeUninit::<u8>::uninit(); 8];
        let error = Carver::new(Metadata::new(&mut bytes), 9).err();
        assert_eq!(error, Some(SetupError::MetadataTooSmall { needed_bytes: 9 }));
    }
}
