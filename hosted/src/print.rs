//! Text to a file descriptor, put together without allocating: whoever writes may be the allocator.
//!
//! By the system's call itself: the C library's `write` is where a thread that somebody cancels may end, and `free` is
//! not.
#![allow(unsafe_code, reason = "a system call on a file")]

use std::fmt::{self, Write};

use crate::errno::keeping_errno;

/// A text on its way to a file. What is left is written when it is dropped.
pub(crate) struct Print {
    file: libc::c_int,
    bytes: [u8; 1024],
    len: usize,
    /// Whether the file takes no more.
    is_broken: bool,
}

impl Print {
    pub(crate) fn to(file: libc::c_int) -> Self {
        Self { file, bytes: [0; 1024], len: 0, is_broken: false }
    }

    pub(crate) fn to_errors() -> Self {
        Self::to(libc::STDERR_FILENO)
    }

    /// Adds a text and the end of a line, and writes what is there: in one call, if it was empty and the text is no
    /// longer than its room.
    pub(crate) fn line(&mut self, text: fmt::Arguments<'_>) {
        // Nothing can be said of a file that takes no more.
        let _ = self.write_fmt(text);
        let _ = self.write_char('\n');
        self.flush();
    }

    /// Writes what is there; `false` if the file does not take it.
    pub(crate) fn flush(&mut self) -> bool {
        let mut done = 0;
        while done < self.len && !self.is_broken {
            let rest = &self.bytes[done..self.len];
            let wrote = keeping_errno(|| {
                // SAFETY: the bytes are this text's.
                let wrote = unsafe { libc::syscall(libc::SYS_write, self.file, rest.as_ptr(), rest.len()) };
                if wrote < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) { 0 } else { wrote }
            });
            self.is_broken = wrote < 0;
            done += usize::try_from(wrote).unwrap_or(0);
        }
        self.len = 0;
        !self.is_broken
    }
}

impl Write for Print {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.len == self.bytes.len() && !self.flush() {
                return Err(fmt::Error);
            }
            let count = rest.len().min(self.bytes.len() - self.len);
            self.bytes[self.len..self.len + count].copy_from_slice(&rest[..count]);
            self.len += count;
            rest = &rest[count..];
        }
        Ok(())
    }
}

impl Drop for Print {
    fn drop(&mut self) {
        self.flush();
    }
}
