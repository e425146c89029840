//! The operators of C++, `new` and `delete` in all their forms, by the names that compilers give them.
//!
//! Where there is no memory, `new` calls the program's new-handler again and again, and throws `bad_alloc` if there is
//! none. Both are the C++ library's, which may not be there: then the process ends. An exception passes through these
//! functions, which no Rust function may stand in the way of; so they are a few instructions each, with what an
//! unwinder needs to know. The forms that throw nothing leave that case to the C++ library's own, which catch what a
//! handler throws.
#![allow(unsafe_code, reason = "C++ calls these, and names them")]

use std::arch::naked_asm;
use std::ffi::{CStr, c_void};
use std::ptr;

use crate::abi::{free, free_aligned_sized, free_sized, malloc};
use crate::heap;

/// The address of what another library has by this name; null if none has.
fn others(name: &CStr) -> *mut c_void {
    // SAFETY: a name that ends with a zero.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// What to call when there is no memory: the new-handler, or what throws. Ends the process if there is neither.
extern "C" fn way_out() -> *mut c_void {
    let getter = others(c"_ZSt15get_new_handlerv");
    if !getter.is_null() {
        // SAFETY: the C++ library's function of this name takes nothing and answers a function or null.
        let getter = unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> *mut c_void>(getter) };
        let handler = getter();
        if !handler.is_null() {
            return handler;
        }
    }
    let thrower = others(c"_ZSt17__throw_bad_allocv");
    if thrower.is_null() {
        std::process::abort();
    }
    thrower
}

/// An object at a multiple of `align`, null if there is none or that is no alignment.
extern "C" fn new_aligned(size: usize, align: usize) -> *mut c_void {
    match heap::layout(size, align) {
        Some(layout) => heap::alloc_as(layout).cast(),
        None => ptr::null_mut(),
    }
}

/// `new` that throws: by `$alloc`, and again after each call of the way out, which returns if it is a handler that
/// hopes to have made room.
macro_rules! throwing {
    ($($name:ident by $alloc:ident),*) => { $(
        /// `operator new`, which throws.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(size: usize, align: usize) -> *mut c_void {
            naked_asm!(
                ".cfi_startproc",
                "push rsi",
                ".cfi_adjust_cfa_offset 8",
                "push rdi",
                ".cfi_adjust_cfa_offset 8",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 8",
                "2:",
                "call {alloc}",
                "test rax, rax",
                "jz 3f",
                "add rsp, 24",
                ".cfi_remember_state",
                ".cfi_adjust_cfa_offset -24",
                "ret",
                ".cfi_restore_state",
                "3:",
                "call {way_out}",
                "call rax",
                "mov rdi, [rsp + 8]",
                "mov rsi, [rsp + 16]",
                "jmp 2b",
                ".cfi_endproc",
                alloc = sym $alloc,
                way_out = sym way_out,
            )
        }
    )* };
}
throwing!(_Znwm by malloc, _Znam by malloc, _ZnwmSt11align_val_t by new_aligned, _ZnamSt11align_val_t by new_aligned);

/// A form that throws nothing: by the C++ library's own if there is no memory.
macro_rules! nothrow {
    ($($name:ident($($argument:ident),*) = $alloc:expr;)*) => { $(
        /// `operator new`, which answers null if there is no memory.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: usize,)* nothrow: *const c_void) -> *mut c_void {
            let object = $alloc;
            if !object.is_null() {
                return object;
            }
            const NAME: &[u8] = concat!(stringify!($name), "\0").as_bytes();
            // SAFETY: a name that ends with a zero.
            let next = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr().cast()) };
            if next.is_null() {
                return next;
            }
            type Form = extern "C" fn($(nothrow!(@word $argument),)* *const c_void) -> *mut c_void;
            // SAFETY: the C++ library's function of this name, which has these arguments.
            let next = unsafe { std::mem::transmute::<*mut c_void, Form>(next) };
            next($($argument,)* nothrow)
        }
    )* };
    (@word $argument:ident) => { usize };
}
nothrow! {
    _ZnwmRKSt9nothrow_t(size) = malloc(size);
    _ZnamRKSt9nothrow_t(size) = malloc(size);
    _ZnwmSt11align_val_tRKSt9nothrow_t(size, align) = new_aligned(size, align);
    _ZnamSt11align_val_tRKSt9nothrow_t(size, align) = new_aligned(size, align);
}

/// `delete` in its forms: what each says of the object, and the function of C that looks at it.
macro_rules! delete {
    ($($name:ident($($argument:ident: $type:ty),*) = $free:ident($($given:ident),*);)*) => { $(
        /// `operator delete`.
        ///
        /// # Safety
        /// As [`free`].
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(object: *mut c_void, $($argument: $type),*) {
            // SAFETY: the caller's promise.
            unsafe { $free(object, $($given),*) };
        }
    )* };
}
delete! {
    _ZdlPv() = free();
    _ZdaPv() = free();
    _ZdlPvRKSt9nothrow_t(_nothrow: *const c_void) = free();
    _ZdaPvRKSt9nothrow_t(_nothrow: *const c_void) = free();
    _ZdlPvm(size: usize) = free_sized(size);
    _ZdaPvm(size: usize) = free_sized(size);
    _ZdlPvSt11align_val_t(_align: usize) = free();
    _ZdaPvSt11align_val_t(_align: usize) = free();
    _ZdlPvSt11align_val_tRKSt9nothrow_t(_align: usize, _nothrow: *const c_void) = free();
    _ZdaPvSt11align_val_tRKSt9nothrow_t(_align: usize, _nothrow: *const c_void) = free();
    _ZdlPvmSt11align_val_t(size: usize, align: usize) = free_aligned_sized(align, size);
    _ZdaPvmSt11align_val_t(size: usize, align: usize) = free_aligned_sized(align, size);
}
