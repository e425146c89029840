//! The allocator under test behind one face, and the blocks it lends: the only file of the kit that touches memory by
//! pointers, together with `store`.
//!
//! The kit relies on the allocator for nothing but that a block it lends can be written to, for as many bytes as were
//! asked for. Whether they are the right ones, and whether they stay, is what the properties find out.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;

use allocator_api2::alloc::Allocator;

use super::constant;
use super::fault::{Broken, Fault};
use super::pattern;

/// An allocator under test, by whichever trait.
pub(super) trait Subject: Sync {
    /// Asks for memory.
    fn allocate(&self, layout: Layout, zeroed: bool) -> Option<NonNull<[u8]>>;

    /// # Safety
    /// The block is lent, and `layout` fits it.
    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout);

    /// Asks for the same block with another size; the old one stays lent if the answer is `None`. `zeroed` is for
    /// growth by [`Allocator`] alone.
    ///
    /// # Safety
    /// The block is lent, `old` fits it, and `new` has its alignment where the trait knows no other.
    unsafe fn resize(&self, start: NonNull<u8>, old: Layout, new: Layout, zeroed: bool) -> Option<NonNull<[u8]>>;

    /// Asks for memory with a layout that the compiler knows.
    fn allocate_constant(&self, which: usize) -> Option<NonNull<[u8]>>;

    /// # Safety
    /// The block is lent, and the layout of that number fits it.
    unsafe fn deallocate_constant(&self, which: usize, start: NonNull<u8>);
}

/// By `GlobalAlloc`.
pub(super) struct ByGlobal<'a, A>(pub(super) &'a A);

/// By `Allocator`.
pub(super) struct ByApi<'a, A>(pub(super) &'a A);

fn bytes_at(start: *mut u8, len: usize) -> Option<NonNull<[u8]>> {
    NonNull::new(start).map(|start| NonNull::slice_from_raw_parts(start, len))
}

impl<A: GlobalAlloc + Sync> Subject for ByGlobal<'_, A> {
    fn allocate(&self, layout: Layout, zeroed: bool) -> Option<NonNull<[u8]>> {
        assert_ne!(layout.size(), 0, "GlobalAlloc is never asked for nothing");
        let start = if zeroed {
            // SAFETY: the size is not zero.
            unsafe { self.0.alloc_zeroed(layout) }
        } else {
            // SAFETY: the size is not zero.
            unsafe { self.0.alloc(layout) }
        };
        bytes_at(start, layout.size())
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promises; blocks of this trait fit the layout they were asked for with, and no other.
        unsafe { self.0.dealloc(start.as_ptr(), layout) };
    }

    unsafe fn resize(&self, start: NonNull<u8>, old: Layout, new: Layout, zeroed: bool) -> Option<NonNull<[u8]>> {
        assert!(old.align() == new.align() && new.size() != 0 && !zeroed, "beyond GlobalAlloc");
        // SAFETY: as the caller promises; the new size is not zero, and `new` is a layout, so that it overflows
        // nothing.
        let start = unsafe { self.0.realloc(start.as_ptr(), old, new.size()) };
        bytes_at(start, new.size())
    }

    fn allocate_constant(&self, which: usize) -> Option<NonNull<[u8]>> {
        let (allocate, _) = constant::calls::<A>(which);
        bytes_at(allocate(self.0), constant::LAYOUTS[which].size())
    }

    unsafe fn deallocate_constant(&self, which: usize, start: NonNull<u8>) {
        let (_, deallocate) = constant::calls::<A>(which);
        // SAFETY: as the caller promises.
        unsafe { deallocate(self.0, start.as_ptr()) };
    }
}

impl<A: Allocator + Sync> Subject for ByApi<'_, A> {
    fn allocate(&self, layout: Layout, zeroed: bool) -> Option<NonNull<[u8]>> {
        if zeroed { self.0.allocate_zeroed(layout).ok() } else { self.0.allocate(layout).ok() }
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { self.0.deallocate(start, layout) };
    }

    unsafe fn resize(&self, start: NonNull<u8>, old: Layout, new: Layout, zeroed: bool) -> Option<NonNull<[u8]>> {
        let answer = if new.size() < old.size() {
            // SAFETY: as the caller promises, and the new size is smaller.
            unsafe { self.0.shrink(start, old, new) }
        } else if zeroed {
            // SAFETY: as the caller promises, and the new size is not smaller.
            unsafe { self.0.grow_zeroed(start, old, new) }
        } else {
            // SAFETY: as the caller promises, and the new size is not smaller.
            unsafe { self.0.grow(start, old, new) }
        };
        answer.ok()
    }

    fn allocate_constant(&self, which: usize) -> Option<NonNull<[u8]>> {
        self.allocate(constant::LAYOUTS[which], false)
    }

    unsafe fn deallocate_constant(&self, which: usize, start: NonNull<u8>) {
        // SAFETY: as the caller promises.
        unsafe { self.deallocate(start, constant::LAYOUTS[which]) };
    }
}

/// A block that the allocator under test has lent. One that is dropped stays lent: a property that found a fault leaves
/// things as they are, and asks nothing more of an allocator that is known to be broken.
#[must_use]
pub(super) struct Block<'k> {
    subject: &'k dyn Subject,
    start: NonNull<u8>,
    layout: Layout,
    /// How many bytes there are, which an [`Allocator`] may make more than were asked for.
    len: usize,
    /// What it was filled with.
    seed: u64,
}

// SAFETY: a block may be freed by any thread, and its bytes are reached through it alone.
unsafe impl Send for Block<'_> {}

impl fmt::Debug for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p} ({} bytes for {:?})", self.start, self.len, self.layout)
    }
}

impl<'k> Block<'k> {
    /// Asks for a block; `None` if the allocator has none to give.
    pub(super) fn ask(subject: &'k dyn Subject, layout: Layout, zeroed: bool) -> Result<Option<Self>, Broken> {
        let Some(bytes) = subject.allocate(layout, zeroed) else { return Ok(None) };
        Self::checked(subject, bytes, layout).map(Some).map_err(|fault| fault.at("lent", layout))
    }

    /// Asks for a block with the constant layout of that number.
    pub(super) fn ask_constant(subject: &'k dyn Subject, which: usize) -> Result<Option<Self>, Broken> {
        let layout = constant::LAYOUTS[which];
        let Some(bytes) = subject.allocate_constant(which) else { return Ok(None) };
        Self::checked(subject, bytes, layout).map(Some).map_err(|fault| fault.at("lent", layout))
    }

    /// What can be said of a block at once.
    fn checked(subject: &'k dyn Subject, bytes: NonNull<[u8]>, layout: Layout) -> Result<Self, Fault> {
        let (start, len) = (bytes.cast::<u8>(), bytes.len());
        let address = start.addr().get();
        if !address.is_multiple_of(layout.align()) {
            return Err(Fault::Misaligned { address });
        }
        if len < layout.size() {
            return Err(Fault::Short { len });
        }
        // No object is longer than half the address space, and the end of each has an address too.
        if len > isize::MAX as usize || address.checked_add(len).is_none() {
            return Err(Fault::Outside { address, len });
        }
        Ok(Self { subject, start, layout, len, seed: 0 })
    }

    /// A block taken apart by [`into_parts`](Self::into_parts).
    ///
    /// # Safety
    /// The parts came from there, and are put together once.
    pub(super) unsafe fn from_parts(subject: &'k dyn Subject, parts: Parts) -> Self {
        let Parts { start, layout, len, seed } = parts;
        Self { subject, start, layout, len, seed }
    }

    pub(super) fn into_parts(self) -> Parts {
        let Self { start, layout, len, seed, .. } = self;
        Parts { start, layout, len, seed }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    pub(super) fn address(&self) -> usize {
        self.start.addr().get()
    }

    /// The addresses of its bytes.
    pub(super) fn span(&self) -> Range<usize> {
        self.address()..self.address() + self.len
    }

    /// Says what it is to be filled with.
    pub(super) fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Fills all of it with what `seed` says.
    pub(super) fn fill(&mut self, seed: u64) {
        self.seed(seed);
        self.fill_from(0);
    }

    /// Fills what lies behind the first bytes, which are the kit's own.
    pub(super) fn fill_from(&mut self, first: usize) {
        // SAFETY: the block is lent to the kit, which reaches its bytes through this value alone.
        let bytes = unsafe { slice::from_raw_parts_mut(self.start.cast::<MaybeUninit<u8>>().as_ptr(), self.len) };
        pattern::write(self.seed, first.min(self.len)..self.len, |place, part| {
            bytes[place].write_copy_of_slice(part);
        });
    }

    /// Whether these bytes are what the last [`fill`](Self::fill) wrote, perhaps when the block lay elsewhere.
    pub(super) fn verify(&self, range: Range<usize>, at: &'static str) -> Result<(), Broken> {
        pattern::verify(self.written(range.clone()), self.seed, range).map_err(|fault| fault.at(at, self.layout))
    }

    /// Whether all that was asked for is what was written.
    pub(super) fn verify_all(&self, at: &'static str) -> Result<(), Broken> {
        self.verify(0..self.layout.size(), at)
    }

    /// Whether these bytes are zero, as the allocator promised when it lent them.
    pub(super) fn verify_zero(&self, range: Range<usize>, at: &'static str) -> Result<(), Broken> {
        pattern::verify_zero(self.written(range.clone()), range).map_err(|fault| fault.at(at, self.layout))
    }

    /// Some of its bytes. Properties name only those that the kit wrote or that the allocator says it wrote; the latter
    /// is what they check, so it has to be read.
    fn written(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the start of the range lies in the block, or at its end.
        let start = unsafe { self.start.add(range.start) };
        // SAFETY: these bytes of the block have a value, and nobody writes while this value is borrowed.
        unsafe { slice::from_raw_parts(start.as_ptr(), range.len()) }
    }

    /// Writes a value into it, for the kit's own stores.
    pub(super) fn put<T: Plain>(&mut self, offset: usize, value: T) {
        assert!(offset + size_of::<T>() <= self.len);
        // SAFETY: the place lies in the block.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: the block is lent to the kit, which reaches its bytes through this value alone.
        unsafe { place.cast::<T>().write_unaligned(value) };
    }

    /// Reads what [`put`](Self::put) wrote there, or whatever a broken allocator made of it.
    pub(super) fn get<T: Plain>(&self, offset: usize) -> T {
        assert!(offset + size_of::<T>() <= self.len);
        // SAFETY: the place lies in the block.
        let place = unsafe { self.start.add(offset) };
        // SAFETY: the bytes were written, and any bytes are a value of the type.
        unsafe { place.cast::<T>().read_unaligned() }
    }

    /// Asks for another layout; the block as it was comes back if the allocator refuses.
    pub(super) fn resize(self, layout: Layout, zeroed: bool) -> Result<Result<Self, Self>, Broken> {
        // SAFETY: the block is lent, and its layout fits it.
        match unsafe { self.subject.resize(self.start, self.layout, layout, zeroed) } {
            Some(bytes) => {
                let block = Self::checked(self.subject, bytes, layout).map_err(|fault| fault.at("resized", layout))?;
                Ok(Ok(Self { seed: self.seed, ..block }))
            }
            None => Ok(Err(self)),
        }
    }

    /// From now on it goes by another layout that fits it: the alignment is the same, the size any from what was asked
    /// for to what there is.
    pub(super) fn relabel(&mut self, size: usize) {
        assert!((self.layout.size()..=self.len).contains(&size));
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("the block lies in memory");
    }

    /// Gives it back.
    pub(super) fn free(self) {
        // SAFETY: the block is lent, and its layout fits it.
        unsafe { self.subject.deallocate(self.start, self.layout) };
    }

    /// Gives back a block of the constant layout of that number.
    pub(super) fn free_constant(self, which: usize) {
        assert_eq!(self.layout, constant::LAYOUTS[which]);
        // SAFETY: the block is lent with this layout.
        unsafe { self.subject.deallocate_constant(which, self.start) };
    }
}

/// Data of which any bytes are a value.
///
/// # Safety
/// They are.
pub(super) unsafe trait Plain: Copy {}

/// A block as data, for the kit's stores.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) start: NonNull<u8>,
    pub(super) layout: Layout,
    pub(super) len: usize,
    pub(super) seed: u64,
}
