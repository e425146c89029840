//! What the system tells about the process, read without allocating: who asks may be the allocator.
//!
//! By the system's calls themselves: the C library's are where a thread that somebody cancels may end, which no
//! function of an allocator is.
#![allow(unsafe_code, reason = "system calls on files")]

use std::ffi::CStr;

use crate::errno::keeping_errno;

/// A file that is open for reading.
pub(crate) struct Source(libc::c_int);

impl Source {
    /// Opens a file, if it is there.
    pub(crate) fn open(path: &CStr) -> Option<Self> {
        let (from, flags) = (libc::AT_FDCWD, libc::O_RDONLY | libc::O_CLOEXEC);
        // SAFETY: the path is a string that ends with 0.
        let file = keeping_errno(|| unsafe { libc::syscall(libc::SYS_openat, from, path.as_ptr(), flags) });
        (file >= 0).then(|| Self(file as libc::c_int))
    }

    /// Reads the next bytes; answers how many, 0 if there are none or they cannot be read.
    pub(crate) fn read(&mut self, to: &mut [u8]) -> usize {
        // SAFETY: so many bytes are there to be written.
        let read = keeping_errno(|| unsafe { libc::syscall(libc::SYS_read, self.0, to.as_mut_ptr(), to.len()) });
        usize::try_from(read).unwrap_or(0)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, and nobody else knows it.
        let closed = keeping_errno(|| unsafe { libc::syscall(libc::SYS_close, self.0) });
        debug_assert_eq!(closed, 0);
    }
}

/// The lines of a file, one after another.
pub(crate) struct Lines {
    file: Source,
    bytes: [u8; 1024],
    /// What of the bytes is not yet told.
    start: usize,
    end: usize,
    /// Whether the rest of a line that is too long is skipped.
    skipping: bool,
}

impl Lines {
    /// Opens a file, if it is there.
    pub(crate) fn open(path: &CStr) -> Option<Self> {
        Some(Self { file: Source::open(path)?, bytes: [0; 1024], start: 0, end: 0, skipping: false })
    }

    /// The next line, without its end; of one that is too long only the beginning.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let there = &self.bytes[self.start..self.end];
            if let Some(len) = there.iter().position(|&byte| byte == b'\n') {
                let line = self.start..self.start + len;
                self.start += len + 1;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                return Some(&self.bytes[line]);
            }
            if there.len() == self.bytes.len() {
                (self.start, self.end) = (0, 0);
                if !std::mem::replace(&mut self.skipping, true) {
                    return Some(&self.bytes);
                }
                continue;
            }
            if !self.fill() {
                let line = self.start..self.end;
                self.start = self.end;
                return (!line.is_empty() && !self.skipping).then(|| &self.bytes[line]);
            }
        }
    }

    /// Reads more; `false` if there is none.
    fn fill(&mut self) -> bool {
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let read = self.file.read(&mut self.bytes[self.end..]);
        self.end += read;
        read > 0
    }
}

/// Page faults of the process so far.
pub(crate) fn faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call writes the structure it is given, which outlives it.
    let told = keeping_errno(|| unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) });
    if told != 0 {
        return 0;
    }
    // SAFETY: all zeros is one, and the call has written it.
    let usage = unsafe { usage.assume_init() };
    (usage.ru_minflt as u64).saturating_add(usage.ru_majflt as u64)
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_line_by_line() {
        let path = std::env::temp_dir().join(format!("pagemill-lines-{}", std::process::id()));
        let long = "x".repeat(3000);
        std::fs::write(&path, format!("one\n\n{long}\nlast")).unwrap();
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mut lines = Lines::open(&name).unwrap();
        assert_eq!(lines.next(), Some(&b"one"[..]));
        assert_eq!(lines.next(), Some(&b""[..]));
        assert_eq!(lines.next().map(<[u8]>::len), Some(1024));
        assert_eq!(lines.next(), Some(&b"last"[..]));
        assert_eq!(lines.next(), None);
        std::fs::remove_file(path).unwrap();
        assert!(Lines::open(&name).is_none());
    }

    #[test]
    fn faults_are_counted() {
        let before = faults();
        let block = vec![1u8; 4 << 20];
        assert!(faults() > before, "{}", block.len());
    }
}
