//! The stack of the caller, by the tables that the compiler writes for unwinding: no frame pointers are needed.
//!
//! By the unwinder that every program with Rust's standard library has, and most with C++. It allocates nothing where the
//! C library finds the tables by itself (glibc 2.35, musl); elsewhere it may take the lock of the loader.
#![allow(unsafe_code, reason = "functions of the unwinder")]

use std::ffi::{c_int, c_void};

use super::stacks::MOST_FRAMES;

/// Addresses of calls, the innermost first.
pub(super) struct Stack {
    frames: [usize; MOST_FRAMES],
    len: usize,
}

/// `_URC_NO_REASON`: go on. Anything else ends the walk.
const GO_ON: c_int = 0;
const ENOUGH: c_int = 5;

unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut c_void, *mut c_void) -> c_int, data: *mut c_void) -> c_int;
    fn _Unwind_GetIPInfo(context: *mut c_void, before: *mut c_int) -> usize;
}

impl Stack {
    /// The caller's.
    pub(super) fn here() -> Self {
        let mut stack = Self { frames: [0; MOST_FRAMES], len: 0 };
        // SAFETY: the function is called with a context and with this stack, before this returns.
        unsafe { _Unwind_Backtrace(each, (&raw mut stack).cast()) };
        stack
    }

    pub(super) fn frames(&self) -> &[usize] {
        &self.frames[..self.len]
    }
}

extern "C" fn each(context: *mut c_void, stack: *mut c_void) -> c_int {
    // SAFETY: what `here` has handed on, which nobody else uses meanwhile.
    let stack = unsafe { &mut *stack.cast::<Stack>() };
    let mut before = 0;
    // SAFETY: the context that the unwinder gives, and a place for the answer.
    let address = unsafe { _Unwind_GetIPInfo(context, &mut before) };
    let Some(place) = stack.frames.get_mut(stack.len).filter(|_| address != 0) else { return ENOUGH };
    // A frame returns behind its call, which may be the last of its function, and in another line.
    *place = if before == 0 { address - 1 } else { address };
    stack.len += 1;
    GO_ON
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn called(depth: usize) -> Stack {
        let stack = if depth == 0 { Stack::here() } else { called(depth - 1) };
        std::hint::black_box(stack)
    }

    #[test]
    fn a_stack_has_a_frame_for_each_call() {
        let len = |depth| called(depth).frames().len();
        assert_eq!(len(9), len(5) + 4);
        assert_eq!(len(2 * MOST_FRAMES), MOST_FRAMES);
    }
}
