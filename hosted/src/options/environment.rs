//! The variable, wherever it can be had: in the environment as the C library keeps it, or, before there is a C library
//! that knows it, as the system does.
#![allow(unsafe_code, reason = "the environment of a process")]

use std::ffi::{CStr, c_char};

use crate::errno::keeping_errno;
use crate::proc::Source;

const NAME: &[u8] = b"PAGEMILL_CONF=";

/// What is read of it where the C library does not know it.
const BYTES: usize = 4096;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Calls `work` with the variable's value; with nothing if there is none, or if it is not to be followed.
pub(super) fn with<R>(work: impl FnOnce(&[u8]) -> R) -> R {
    // SAFETY: a look at what the system told the process when it began.
    if keeping_errno(|| unsafe { libc::getauxval(libc::AT_SECURE) }) != 0 {
        // Who started it must not have more say than the program's owner gives him.
        return work(b"");
    }
    // SAFETY: a word of the C library's, which nobody changes while the first request is served: whoever changes the
    // environment is alone by its rules.
    let entries = unsafe { environ };
    if entries.is_null() { with_that_of_system(work) } else { work(of_library(entries).unwrap_or(b"")) }
}

/// Apart, since the pages of the stack that this takes are rarely wanted.
#[cold]
#[inline(never)]
fn with_that_of_system<R>(work: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0; BYTES];
    work(of_system(&mut buffer).unwrap_or(b""))
}

fn of_library(entries: *const *const c_char) -> Option<&'static [u8]> {
    for place in 0.. {
        // SAFETY: the list ends with null, which was not there before this place.
        let entry = unsafe { entries.add(place) };
        // SAFETY: as above.
        let entry = unsafe { entry.read() };
        if entry.is_null() {
            break;
        }
        // SAFETY: entries are strings that end with 0, and stay while nobody changes the environment.
        let entry = unsafe { CStr::from_ptr(entry) };
        if let Some(value) = entry.to_bytes().strip_prefix(NAME) {
            return Some(value);
        }
    }
    None
}

/// Before the C library has begun its work.
fn of_system(buffer: &mut [u8; BYTES]) -> Option<&[u8]> {
    let mut file = Source::open(c"/proc/self/environ")?;
    let mut value = Entry { buffer, len: 0, matched: Some(0), is_over: false };
    let mut bytes = [0u8; 512];
    while !value.is_over {
        let read = file.read(&mut bytes);
        if read == 0 {
            break;
        }
        bytes[..read].iter().for_each(|&byte| value.next(byte));
    }
    value.end()
}

/// An environment, byte by byte.
struct Entry<'a> {
    buffer: &'a mut [u8; BYTES],
    /// Bytes of the value so far.
    len: usize,
    /// Bytes of the name that this entry began with, while it may be the one.
    matched: Option<usize>,
    /// Whether the value has ended.
    is_over: bool,
}

impl<'a> Entry<'a> {
    fn next(&mut self, byte: u8) {
        if self.is_over {
            return;
        }
        match self.matched {
            Some(matched) if matched == NAME.len() => {
                self.is_over = byte == 0 || self.len == BYTES;
                if !self.is_over {
                    self.buffer[self.len] = byte;
                    self.len += 1;
                }
            }
            _ if byte == 0 => self.matched = Some(0),
            Some(matched) if NAME[matched] == byte => self.matched = Some(matched + 1),
            _ => self.matched = None,
        }
    }

    /// The value; without its last item if it was too long.
    fn end(self) -> Option<&'a [u8]> {
        let value = &self.buffer[..self.len];
        let whole = if self.len < BYTES { self.len } else { value.iter().rposition(|&byte| byte == b',').unwrap_or(0) };
        (self.matched == Some(NAME.len())).then_some(&value[..whole])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(environment: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = [0; BYTES];
        let mut entry = Entry { buffer: &mut buffer, len: 0, matched: Some(0), is_over: false };
        environment.iter().for_each(|&byte| entry.next(byte));
        entry.end().map(<[u8]>::to_vec)
    }

    #[test]
    fn a_variable_is_found_byte_by_byte() {
        assert_eq!(value(b"HOME=/root\0PAGEMILL_CONF=thp:never\0X=1\0"), Some(b"thp:never".to_vec()));
        assert_eq!(value(b"PAGEMILL_CONF=\0"), Some(Vec::new()));
        assert_eq!(value(b"NO_PAGEMILL_CONF=a\0PAGEMILL_CONFI=b\0PAGEMILL_CON=c\0"), None);
        assert_eq!(value(b""), None);
        let long = [&b"PAGEMILL_CONF="[..], &b"abort:true,".repeat(1000), b"\0"].concat();
        let found = value(&long).expect("the beginning");
        assert!(found.len() < BYTES && found.ends_with(b"abort:true"), "{}", found.len());
    }

    #[cfg(not(miri))]
    #[test]
    fn the_system_tells_what_the_library_does() {
        // Nobody has set it since the process began.
        let by_library = with(<[u8]>::to_vec);
        assert_eq!(by_library, with_that_of_system(<[u8]>::to_vec));
    }
}
