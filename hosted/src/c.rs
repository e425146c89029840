//! The same for C: options, accounts and numbers by name, as [`pagemill.h`] declares them.
//!
//! Functions for a C library or a program to export; [`export_c!`](crate::export_c) does it for all of them. None
//! allocates but who writes a profile or starts a thread, and none changes `errno`: each answers 0 or an error number.
//!
//! [`pagemill.h`]: https://github.com/pagemill/pagemill/blob/main/hosted/include/pagemill.h
#![allow(unsafe_code, reason = "strings and numbers of C programs")]

use std::ffi::{CStr, c_char, c_int};
use std::fmt::{self, Write};

use crate::ctl;
use crate::errno::keeping_errno;
use crate::options::{Format, OptionError, options};
use crate::print::Print;
use crate::report::write_report;
use crate::stats;

/// A buffer of a C program's, which ends with 0 whatever fits.
struct Buffer {
    start: *mut c_char,
    /// Bytes that are free, the 0 not counted.
    room: usize,
    is_cut: bool,
}

impl Write for Buffer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let count = text.len().min(self.room);
        self.is_cut |= count < text.len();
        // SAFETY: there is room for so many bytes and a 0 by the promise of whose buffer it is.
        unsafe { self.start.copy_from_nonoverlapping(text.as_ptr().cast(), count) };
        // SAFETY: as above.
        self.start = unsafe { self.start.add(count) };
        // SAFETY: as above.
        unsafe { self.start.write(0) };
        self.room -= count;
        Ok(())
    }
}

/// A string of C, if it is one that options can have.
///
/// # Safety
/// Null, or a string that ends with 0 and stays as it is for so long.
unsafe fn text<'a>(string: *const c_char) -> Option<&'a str> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_str().ok()
}

fn answer(result: Result<(), OptionError>) -> c_int {
    result.map_or_else(|error| error.errno(), |()| 0)
}

/// Copies the value of an option, as `PAGEMILL_CONF` would name it, with a 0 behind it: 0, `ENOENT` if there is no such
/// option, `ERANGE` if it was cut to fit, `EINVAL` for what is no string or no buffer.
///
/// # Safety
/// A string that ends with 0, and room for `bytes` bytes; each may be null.
pub unsafe fn get(name: *const c_char, value: *mut c_char, bytes: usize) -> c_int {
    // SAFETY: the caller's promise.
    let Some(name) = (unsafe { text(name) }) else { return libc::EINVAL };
    let Some(room) = bytes.checked_sub(1).filter(|_| !value.is_null()) else { return libc::EINVAL };
    let mut buffer = Buffer { start: value, room, is_cut: false };
    match answer(options().write(name, &mut buffer)) {
        0 if buffer.is_cut => libc::ERANGE,
        error => error,
    }
}

/// Changes an option: 0, `ENOENT` if there is no such option, `EINVAL` if the value is none for it, `EPERM` if it is
/// read once, `EBUSY` if more is in use than a limit, or what the system says.
///
/// # Safety
/// Two strings that end with 0; each may be null.
pub unsafe fn set(name: *const c_char, value: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { text(name) };
    // SAFETY: the caller's promise.
    let value = unsafe { text(value) };
    let Some((name, value)) = name.zip(value) else { return libc::EINVAL };
    keeping_errno(|| answer(options().set(name, value)))
}

/// Writes the account of every heap to a file descriptor, as text (0) or JSON (1): 0, `EINVAL` for another format,
/// `EIO` if the file does not take it.
pub fn report(file: c_int, format: c_int) -> c_int {
    let format = match format {
        0 => Format::Text,
        1 => Format::Json,
        _ => return libc::EINVAL,
    };
    let mut to = Print::to(file);
    if write_report(&mut to, format).is_ok() && to.flush() { 0 } else { libc::EIO }
}

/// A number of the account, summed over all heaps: 0, or `ENOENT` if there is none of this name or the system does not
/// tell.
///
/// # Safety
/// A string that ends with 0, and a place for the number; each may be null.
pub unsafe fn stat(name: *const c_char, value: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    let Some(name) = (unsafe { text(name) }) else { return libc::EINVAL };
    // SAFETY: the caller's promise.
    let Some(value) = (unsafe { value.as_mut() }) else { return libc::EINVAL };
    match stats::number(name) {
        Some(number) => *value = number,
        None => return libc::ENOENT,
    }
    0
}

/// Gives everything back to the system that is idle; the bytes that there were pages behind.
pub fn trim() -> usize {
    ctl::trim()
}

/// Writes a heap profile to a file of this path; with null, to one whose path begins with `prof_prefix`. 0, `ENOSYS`
/// without the feature `profile`, or what the system says.
///
/// # Safety
/// Null, or a string that ends with 0.
pub unsafe fn dump(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let path = (!path.is_null()).then(|| unsafe { CStr::from_ptr(path) });
    keeping_errno(|| write_profile(path))
}

#[cfg(feature = "profile")]
fn write_profile(path: Option<&CStr>) -> c_int {
    use std::os::unix::ffi::OsStrExt;
    let written = match path {
        Some(path) => crate::profile().dump(std::ffi::OsStr::from_bytes(path.to_bytes())),
        None => crate::profile::dump_on_call(),
    };
    written.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0)
}

#[cfg(not(feature = "profile"))]
fn write_profile(_: Option<&CStr>) -> c_int {
    libc::ENOSYS
}

/// Exports the functions that `pagemill.h` declares. Once in a program or library, at the top of a module.
///
/// ```
/// pagemill_hosted::export_c!();
/// ```
#[macro_export]
macro_rules! export_c {
    () => {
        /// The C interface to the heaps of the process.
        #[allow(unsafe_code, missing_docs, reason = "names and promises of C; the header documents them")]
        pub mod pagemill_c {
            use ::core::ffi::{c_char, c_int};
            use $crate::c;

            // SAFETY: nobody else has names of this kind.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn pagemill_get(name: *const c_char, value: *mut c_char, bytes: usize) -> c_int {
                // SAFETY: the caller's promise.
                unsafe { c::get(name, value, bytes) }
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn pagemill_set(name: *const c_char, value: *const c_char) -> c_int {
                // SAFETY: the caller's promise.
                unsafe { c::set(name, value) }
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub extern "C" fn pagemill_report(file: c_int, format: c_int) -> c_int {
                c::report(file, format)
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn pagemill_stat(name: *const c_char, value: *mut u64) -> c_int {
                // SAFETY: the caller's promise.
                unsafe { c::stat(name, value) }
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub extern "C" fn pagemill_trim() -> usize {
                c::trim()
            }

            // SAFETY: as above.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn pagemill_dump(path: *const c_char) -> c_int {
                // SAFETY: the caller's promise.
                unsafe { c::dump(path) }
            }
        }
    };
}
