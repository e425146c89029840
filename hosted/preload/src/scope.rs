//! Plug-ins that are loaded with a scope of their own, `RTLD_DEEPBIND`.
//!
//! Such a one looks for its names in its own libraries first, the C library among them, so its `malloc` and `free` would
//! be the C library's, while the rest of the program has these. What one side has got and the other frees is a crash:
//! PHP's extensions do so at start, with any allocator that is not the C library's. So the flag is taken away, and they
//! find the functions that all others find.
//!
//! The loader tells by the return address who calls `dlopen`, and in which directories that one's libraries are looked
//! for. So the call is handed on by a jump, which leaves that address where it is.
#![allow(unsafe_code, reason = "C calls this, and names it")]

use std::arch::naked_asm;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// The C library's `dlopen`, when it has been looked for.
static NEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// Loads a library, which has the names that all have: without `RTLD_DEEPBIND`, which is 8, as the C library has it else.
///
/// # Safety
/// As the C library's.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "and esi, 0xfffffff7",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "jne 2f",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {find}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "2:",
        "jmp rax",
        next = sym NEXT,
        find = sym find,
    )
}

/// Loads a library, which has the names that all have: without `RTLD_DEEPBIND`, which is 8, as the C library has it else.
///
/// # Safety
/// As the C library's.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dlopen(file: *const c_char, mode: c_int) -> *mut c_void {
    naked_asm!(
        "and w1, w1, #0xfffffff7",
        "adrp x16, {next}",
        "add x16, x16, :lo12:{next}",
        "ldar x16, [x16]",
        "cbnz x16, 2f",
        "stp x29, x30, [sp, #-32]!",
        "stp x0, x1, [sp, #16]",
        "bl {find}",
        "mov x16, x0",
        "ldp x0, x1, [sp, #16]",
        "ldp x29, x30, [sp], #32",
        "2:",
        "br x16",
        next = sym NEXT,
        find = sym find,
    )
}

/// Looks for the C library's `dlopen`, and notes it.
extern "C" fn find() -> *mut c_void {
    // SAFETY: the name ends with a zero, and "next" is after this library, which asks.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"dlopen".as_ptr()) };
    // A C library that loads nothing has none.
    let next = if found.is_null() { nothing as *mut c_void } else { found };
    // Release, beside the loads above: there is nothing behind the address that was not there before.
    NEXT.store(next, Ordering::Release);
    next
}

/// What loads nothing.
extern "C" fn nothing(_: *const c_char, _: c_int) -> *mut c_void {
    ptr::null_mut()
}
