//! Which heap serves: one of three, by the level that the process chose before its first request.
//!
//! ```text
//!   malloc ──► Checked? Fast? ──► what the thread has at hand: here nearly every request ends
//!                └─ no, or nothing at hand ──► the whole way, by level
//!                     └─ not chosen yet: read the options, make the first request
//!                          └─ too early for that: a few pages of the library
//! ```
//!
//! All three may be interrupted by signal handlers. The level is a word of the library, which is looked at before
//! anything of the thread's: until it is chosen there may be no such thing. One comparison tells it; `Fast` has
//! functions of its own, so that what is executed of each is a few lines of the instruction cache in a row.
#![allow(unsafe_code, reason = "objects by their pointers")]

use std::alloc::Layout;
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use pagemill::{BadFree, BadFreeKind, Heap, SizeClass};
use pagemill_hosted::{Checked, ChosenLevel, Fast, Hosted, HostedLevel, Level, Pagemill, WithHandlers, options};

use crate::{early, errno};

/// What every object is a multiple of, as the C ABI of 64-bit machines has it.
pub(crate) const LEAST_ALIGN: usize = 16;
/// The largest object from a slab.
const MOST_SMALL_BYTES: usize = 32 << 10;
/// The most that may be asked for: the difference of two pointers.
const MOST_BYTES: usize = isize::MAX as usize;
/// The bytes of a frame.
const PAGE: usize = 4096;

// In this order: one comparison tells those that have objects at hand from each other and from the others.
const NOT_CHOSEN: u32 = 0;
const HARDENED: u32 = 1;
pub(crate) const CHECKED: u32 = 2;
pub(crate) const FAST: u32 = 3;

/// The level that the process runs at. Relaxed everywhere: it changes once, from `NOT_CHOSEN`, and always to the same.
static LEVEL: AtomicU32 = AtomicU32::new(NOT_CHOSEN);

/// Runs the same work on the heap of the level.
macro_rules! by_level {
    ($level:ident => $work:expr) => {
        match $crate::heap::level() {
            $crate::heap::CHECKED => {
                type $level = ::pagemill_hosted::WithHandlers<::pagemill_hosted::Checked>;
                $work
            }
            $crate::heap::FAST => {
                type $level = ::pagemill_hosted::WithHandlers<::pagemill_hosted::Fast>;
                $work
            }
            _ => {
                type $level = ::pagemill_hosted::WithHandlers<::pagemill_hosted::Hardened>;
                $work
            }
        }
    };
}
pub(crate) use by_level;

/// The heap of a level.
#[inline(always)]
fn heap<L: Level>() -> &'static Heap<'static, Hosted, HostedLevel<L>> {
    Pagemill::<L>::new().heap()
}

/// The level, which the first call chooses.
#[inline(always)]
pub(crate) fn level() -> u32 {
    match LEVEL.load(Ordering::Relaxed) {
        NOT_CHOSEN => choose(),
        level => level,
    }
}

#[cold]
#[inline(never)]
fn choose() -> u32 {
    let level = match options().level() {
        ChosenLevel::Checked => CHECKED,
        ChosenLevel::Fast => FAST,
        ChosenLevel::Hardened => HARDENED,
    };
    LEVEL.store(level, Ordering::Relaxed);
    by_level!(L => begin::<L>());
    level
}

/// Chooses the level and has the heap's handlers of `fork` registered before anybody else's can be: so they are the
/// last to run before a fork and the first after it, and the handlers of others may allocate.
extern "C" fn before_others() {
    level();
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_OTHERS: extern "C" fn() = before_others;

/// Whether the program is still being linked, so that the heap does not find what it has for the thread.
fn is_early() -> bool {
    LEVEL.load(Ordering::Relaxed) == NOT_CHOSEN && !pagemill_hosted::thread_is_ready()
}

/// Sets the heap up, so that even a free that comes first is judged.
fn begin<L: Level>() {
    let layout = Layout::new::<u8>();
    if let Ok(object) = heap::<L>().alloc(layout) {
        // SAFETY: lent just now, and nobody uses it.
        let freed = unsafe { heap::<L>().free(object, layout) };
        debug_assert_eq!(freed, Ok(()));
    }
}

/// The layout of any object; `None` if nothing is so large.
pub(crate) fn layout(size: usize, align: usize) -> Option<Layout> {
    if size > MOST_BYTES {
        return None;
    }
    Layout::from_size_align(size.max(1), align.max(LEAST_ALIGN)).ok()
}

/// What the thread has at hand for a small object. No bytes at all are served as one: each object has an address of its
/// own.
#[inline(always)]
fn at_hand<L>(size: usize) -> Option<NonNull<u8>>
where
    WithHandlers<L>: Level,
{
    heap::<WithHandlers<L>>().alloc_at_hand(SizeClass::of_size(size)?)
}

/// An object of `size` bytes; null, and the error number says so, if there is none.
#[inline(always)]
pub(crate) fn alloc(size: usize) -> *mut c_void {
    let level = LEVEL.load(Ordering::Relaxed);
    if level > CHECKED {
        return alloc_fast(size);
    }
    if level == CHECKED {
        apart();
        if let Some(object) = at_hand::<Checked>(size) {
            return object.as_ptr().cast();
        }
    }
    apart();
    alloc_rest(size)
}

/// As [`alloc`], at `Fast`.
#[inline(never)]
#[unsafe(link_section = ".text.alloc_fast")]
fn alloc_fast(size: usize) -> *mut c_void {
    if let Some(object) = at_hand::<Fast>(size) {
        return object.as_ptr().cast();
    }
    apart();
    alloc_rest(size)
}

#[cold]
#[inline(never)]
fn alloc_rest(size: usize) -> *mut c_void {
    errno::or_no_memory(layout(size, LEAST_ALIGN).map_or(ptr::null_mut(), alloc_as))
}

/// An object for `layout`, null if there is none.
#[inline(never)]
pub(crate) fn alloc_as(layout: Layout) -> *mut u8 {
    if is_early() {
        return early::alloc(layout);
    }
    by_level!(L => heap::<L>().alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr))
}

/// An object of `size` bytes that are zero; null, and the error number says so, if there is none.
#[inline(always)]
pub(crate) fn alloc_zeroed(size: usize) -> *mut c_void {
    let object = match LEVEL.load(Ordering::Relaxed) {
        CHECKED => at_hand::<Checked>(size),
        FAST => at_hand::<Fast>(size),
        _ => None,
    };
    match object {
        Some(object) => {
            // SAFETY: the object was just lent and has so many bytes.
            unsafe { object.write_bytes(0, size) };
            object.as_ptr().cast()
        }
        None => zeroed_rest(size),
    }
}

#[cold]
#[inline(never)]
fn zeroed_rest(size: usize) -> *mut c_void {
    let zeroed = |layout| match is_early() {
        true => early::alloc(layout),
        false => by_level!(L => heap::<L>().alloc_zeroed(layout).map_or(ptr::null_mut(), NonNull::as_ptr)),
    };
    errno::or_no_memory(layout(size, LEAST_ALIGN).map_or(ptr::null_mut(), zeroed))
}

/// Takes an object back; nothing is no object.
///
/// # Safety
/// The object, if it is one, is the caller's, and nobody uses it any more.
#[inline(always)]
pub(crate) unsafe fn free(object: *mut u8) {
    let level = LEVEL.load(Ordering::Relaxed);
    if level > CHECKED {
        // SAFETY: the caller's promise.
        return unsafe { free_fast(object) };
    }
    // SAFETY: as above.
    if level == CHECKED && unsafe { heap::<WithHandlers<Checked>>().free_at_hand(object) } {
        return;
    }
    apart();
    // SAFETY: as above.
    unsafe { free_rest(object) };
}

/// As [`free`], at `Fast`.
///
/// # Safety
/// As [`free`].
#[inline(never)]
#[unsafe(link_section = ".text.free_fast")]
unsafe fn free_fast(object: *mut u8) {
    // SAFETY: the caller's promise.
    if unsafe { heap::<WithHandlers<Fast>>().free_at_hand(object) } {
        return;
    }
    apart();
    // SAFETY: as above.
    unsafe { free_rest(object) };
}

/// What follows has a place of its own: so two conditions are not made one, and such as lead to what is rarely done are
/// two bytes long, where those that lead to another function are six.
#[inline(always)]
fn apart() {
    // SAFETY: no instructions at all.
    unsafe { std::arch::asm!("/* */", options(nomem, nostack, preserves_flags)) };
}

/// # Safety
/// As [`free`].
#[cold]
#[inline(never)]
unsafe fn free_rest(object: *mut u8) {
    let Some(object) = NonNull::new(object) else { return };
    if early::size(object).is_some() {
        return;
    }
    // SAFETY: the caller's promise. A wrong one has been told to the heap's fault hook, which ends the process unless
    // it was asked to go on.
    let _ = by_level!(L => unsafe { heap::<L>().free_unsized(object) });
}

/// As [`free`], for an object that was asked for with so many bytes and this alignment, which is looked at.
///
/// # Safety
/// As [`free`].
#[inline(always)]
pub(crate) unsafe fn free_sized(object: *mut u8, size: usize, align: usize) {
    let Some(object) = NonNull::new(object) else { return };
    if LEVEL.load(Ordering::Relaxed) == CHECKED
        && align <= LEAST_ALIGN
        && let Some(class) = SizeClass::of_size(size)
    {
        // SAFETY: the caller's promise.
        let freed = unsafe { heap::<WithHandlers<Checked>>().free_at_hand_as(object, class) };
        if freed {
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { free_sized_otherwise(object, size, align) };
}

/// # Safety
/// As [`free`].
#[inline(never)]
unsafe fn free_sized_otherwise(object: NonNull<u8>, size: usize, align: usize) {
    if early::size(object).is_some() {
        return;
    }
    let usable = usable_size(object);
    // What is no object at all is refused below.
    if usable != 0 && level() != FAST && !could_be(usable, size, align) {
        let address = object.addr().get();
        let fault = BadFree { kind: BadFreeKind::WrongSize, address, object_bytes: usable, block: 0 };
        pagemill_hosted::refuse(fault);
        return;
    }
    // SAFETY: the caller's promise.
    unsafe { free(object.as_ptr()) };
}

/// Whether an object that was asked for with `size` bytes, or was last changed to so many, can have `usable` bytes.
fn could_be(usable: usize, size: usize, align: usize) -> bool {
    let size = size.max(1);
    if level() == HARDENED {
        // There every object knows its size.
        return usable == size;
    }
    if size > usable {
        return false;
    }
    // What has shrunk stays where it is while it fills half of it. Else it is as large as a new one would be: rounded
    // up to its alignment, or to whole pages if that is larger than slots are, and to an eighth.
    let padded = size.checked_next_multiple_of(align.max(LEAST_ALIGN)).filter(|&padded| padded <= MOST_SMALL_BYTES);
    let least = padded.unwrap_or(size.next_multiple_of(PAGE));
    usable / 2 < size || usable <= least + least / 8
}

/// An object of `size` bytes with what another holds, which is gone then; null if there is none, and then it stays.
///
/// # Safety
/// As [`free`], if the answer is not null.
pub(crate) unsafe fn realloc(object: NonNull<u8>, size: usize) -> *mut u8 {
    let Some(layout) = layout(size, LEAST_ALIGN) else { return ptr::null_mut() };
    if let Some(old_size) = early::size(object) {
        let new = alloc_as(layout);
        if !new.is_null() {
            // SAFETY: two objects, of which each has so many bytes.
            unsafe { new.copy_from_nonoverlapping(object.as_ptr(), old_size.min(size)) };
        }
        return new;
    }
    // SAFETY: the caller's promise.
    let changed = by_level!(L => unsafe { heap::<L>().realloc_unsized(object, layout) });
    changed.map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// The bytes that the user of an object may use; 0 if there is no such object.
pub(crate) fn usable_size(object: NonNull<u8>) -> usize {
    if let Some(size) = early::size(object) {
        return size;
    }
    by_level!(L => heap::<L>().usable_size(object)).unwrap_or(0)
}

/// Gives everything back to the system that is idle; answers how many bytes.
pub(crate) fn trim() -> usize {
    by_level!(L => Pagemill::<L>::new().trim())
}
