//! System calls in the middle of other people's code, which must not find their error number changed.
#![allow(unsafe_code, reason = "the thread's error number")]

/// Runs `work` and leaves the thread's error number as it was: an allocation between a failed call and the look at why
/// it failed is nothing that its caller knows of.
pub(crate) fn keeping_errno<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: the place is the calling thread's own, for as long as it lives.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above, and nobody else writes it meanwhile.
    let before = unsafe { place.read() };
    let result = work();
    // SAFETY: as above.
    unsafe { place.write(before) };
    result
}
