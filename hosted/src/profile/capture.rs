//! The stack of the caller, by the tables that the compiler writes for unwinding: no frame pointers are needed.
//!
//! On x86-64 by what is [known](super::rules) of each place. Elsewhere, and where that is not enough, by the unwinder
//! that every program with Rust's standard library has, and most with C++. It allocates nothing where the C library
//! finds the tables by itself (glibc 2.35, musl); elsewhere it may take the lock of the loader.
#![allow(unsafe_code, reason = "functions of the unwinder, and words of the stack")]

use std::ffi::{c_int, c_void};
#[cfg(target_arch = "x86_64")]
use std::sync::atomic::Ordering;

#[cfg(target_arch = "x86_64")]
use super::rules::{self, Rule};
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
    #[inline(never)]
    pub(super) fn here() -> Self {
        let mut stack = Self { frames: [0; MOST_FRAMES], len: 0 };
        #[cfg(target_arch = "x86_64")]
        if !super::LOADER_IS_LOST.load(Ordering::Relaxed) && stack.walk() {
            return stack;
        }
        stack.unwind();
        stack
    }

    /// By the unwinder.
    #[inline(never)]
    fn unwind(&mut self) {
        self.len = 0;
        // SAFETY: the function is called with a context and with this stack, before this returns.
        unsafe { _Unwind_Backtrace(each, (&raw mut *self).cast()) };
    }

    /// By what is known of each place; `false` if that does not lead to the end.
    #[cfg(target_arch = "x86_64")]
    #[inline(never)]
    fn walk(&mut self) -> bool {
        let (mut address, mut end, mut frame): (usize, usize, usize);
        // SAFETY: three registers are read, and nothing is touched.
        unsafe {
            std::arch::asm!(
                "lea {0}, [rip]",
                "mov {1}, rsp",
                "mov {2}, rbp",
                out(reg) address,
                out(reg) end,
                out(reg) frame,
                options(nomem, nostack, preserves_flags),
            );
        }
        rules::forget_what_has_gone();
        while self.len < MOST_FRAMES {
            self.frames[self.len] = address;
            self.len += 1;
            let (from_frame_pointer, bytes, saved) = match rules::at(address) {
                Rule::Step { from_frame_pointer, bytes, saved } => (from_frame_pointer, bytes, saved),
                Rule::Outermost => return true,
                Rule::Complicated => return false,
            };
            let next = (if from_frame_pointer { frame } else { end }).wrapping_add(bytes);
            // Frames lie one above the other.
            if next <= end || next - end > MOST_BYTES || next % size_of::<usize>() != 0 {
                return false;
            }
            // SAFETY: words of a frame of this thread's stack, which goes from `end` to `next`, as the tables of its
            // code have it.
            let word = |below: usize| unsafe { std::ptr::without_provenance::<usize>(next - below).read() };
            if saved != 0 {
                frame = word(saved);
            }
            end = next;
            address = match word(size_of::<usize>()) {
                0 => return true,
                // A frame returns behind its call, which may be the last of its function, and in another line.
                after => after - 1,
            };
        }
        true
    }

    pub(super) fn frames(&self) -> &[usize] {
        &self.frames[..self.len]
    }
}

/// No frame is larger.
#[cfg(target_arch = "x86_64")]
const MOST_BYTES: usize = 1 << 20;

extern "C" fn each(context: *mut c_void, stack: *mut c_void) -> c_int {
    // SAFETY: what `unwind` has handed on, which nobody else uses meanwhile.
    let stack = unsafe { &mut *stack.cast::<Stack>() };
    let mut before = 0;
    // SAFETY: the context that the unwinder gives, and a place for the answer.
    let address = unsafe { _Unwind_GetIPInfo(context, &mut before) };
    // What a handler has interrupted is at an instruction that is yet to come, perhaps in the middle of an epilogue, of
    // which the tables are not exact: the stack of a handler ends at the handler.
    let is_called = address != 0 && before == 0;
    let Some(place) = stack.frames.get_mut(stack.len).filter(|_| is_called) else { return ENOUGH };
    // A frame returns behind its call, which may be the last of its function, and in another line.
    *place = address - 1;
    stack.len += 1;
    GO_ON
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

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

    static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

    extern "C" fn count_frames(_: c_int) {
        let mut stack = Stack { frames: [0; MOST_FRAMES], len: 0 };
        stack.unwind();
        IN_HANDLER.store(stack.len, Ordering::Relaxed);
    }

    #[inline(never)]
    fn interrupted(depth: usize) -> usize {
        if depth == 0 {
            // SAFETY: a signal to this thread, whose handler is set below.
            assert_eq!(unsafe { libc::raise(libc::SIGURG) }, 0);
            return IN_HANDLER.load(Ordering::Relaxed);
        }
        std::hint::black_box(interrupted(depth - 1))
    }

    #[test]
    fn the_stack_of_a_handler_ends_at_the_handler() {
        // SAFETY: zeros are an action with no flags and no mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = count_frames as extern "C" fn(c_int) as usize;
        // SAFETY: the handler only reads, and writes a word.
        assert_eq!(unsafe { libc::sigaction(libc::SIGURG, &action, std::ptr::null_mut()) }, 0);
        let lens = [0, 7].map(interrupted);
        assert!(lens[0] >= 2 && lens[0] == lens[1], "{lens:?}");
    }

    #[cfg(target_arch = "x86_64")]
    fn same_both_ways() -> usize {
        let mut stacks = [const { Stack { frames: [0; MOST_FRAMES], len: 0 } }; 2];
        assert!(stacks[0].walk(), "nothing here is complicated");
        stacks[1].unwind();
        // Without the walker itself, and the place in here that called it.
        let walked = stacks[0].frames()[2..].to_vec();
        let unwound = stacks[1].frames();
        assert!(unwound.windows(walked.len()).any(|part| part == walked), "{walked:x?} {unwound:x?}");
        walked.len()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_ways_lead_to_the_same_callers() {
        assert!(same_both_ways() > 5);
        // Through the C library, which has its own habits.
        let mut numbers = [3, 1, 2];
        extern "C" fn compare(one: *const c_void, other: *const c_void) -> c_int {
            assert!(same_both_ways() > 7);
            // SAFETY: numbers of the array below.
            let [one, other] = [one, other].map(|number| unsafe { number.cast::<i32>().read() });
            one - other
        }
        // SAFETY: three numbers, which the function compares.
        unsafe { libc::qsort(numbers.as_mut_ptr().cast(), 3, 4, Some(compare)) };
        assert_eq!(numbers, [1, 2, 3]);
    }
}
