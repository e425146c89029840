//! Anonymous mappings: address space that costs nothing until it is touched.
#![allow(unsafe_code, reason = "system calls on memory")]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::{self, NonNull};

use pagemill::{Config, FrameSpan, Heap, Metadata, SetupError};

use crate::tls::Hosted;

/// Fresh zeroed memory of the process, committed by the kernel page by page as it is touched, unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
    /// Nobody has been given the bytes yet, so they are zero.
    fresh: bool,
    /// What `munmap` gets: the mapping may begin before `start`, for alignment.
    mapped: (NonNull<u8>, usize),
}

// SAFETY: a mapping is the process's, not a thread's, and shared references to it give out no bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `bytes` of memory at any page.
    ///
    /// # Errors
    /// [`MapError`] if the system refuses.
    pub fn new(bytes: usize) -> Result<Self, MapError> {
        Self::aligned(bytes, 1)
    }

    /// `bytes` of memory whose address is a multiple of `align`, a power of two.
    ///
    /// # Errors
    /// [`MapError`] if the system refuses; more address space than `bytes` is asked for, to align it.
    pub fn aligned(bytes: usize, align: usize) -> Result<Self, MapError> {
        let slack = align.saturating_sub(PAGE);
        let Some(asked) = bytes.checked_add(slack).filter(|_| bytes != 0 && align.is_power_of_two()) else {
            return Err(MapError { bytes, errno: libc::EINVAL, limit: None });
        };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping wherever the kernel wants touches nothing that exists.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), asked, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(MapError::last(asked));
        }
        let Some(first) = NonNull::new(mapped.cast::<u8>()) else {
            return Err(MapError { bytes: asked, errno: libc::ENOMEM, limit: None });
        };
        let skip = first.as_ptr().addr().wrapping_neg() & (align - 1);
        // SAFETY: `skip` is below `align` and a multiple of the page size, so at most `slack`, inside the mapping.
        let start = unsafe { first.add(skip) };
        Ok(Self { start, bytes, fresh: true, mapped: (first, asked) })
    }

    /// Its first byte, to do with what its owner decides.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has none, which no mapping is.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The byte at `offset`, or `None` past the end.
    pub fn at(&self, offset: usize) -> Option<NonNull<u8>> {
        if offset >= self.bytes {
            return None;
        }
        // SAFETY: the offset lies inside the mapping.
        Some(unsafe { self.start.add(offset) })
    }

    /// Wishes for memory of the system's node `number` behind these bytes, which nobody has touched yet; `false` if the
    /// system does not take it.
    pub(crate) fn prefer_node(&self, bytes: Range<usize>, number: u32) -> bool {
        let Some(start) = self.at(bytes.start).filter(|_| bytes.end <= self.len() && number < 1024) else {
            return false;
        };
        let mut mask = [0u64; 1024 / 64];
        mask[number as usize / 64] = 1 << (number % 64);
        let (preferred, most) = (libc::MPOL_PREFERRED, 1024usize + 1);
        // SAFETY: a wish about pages of this mapping; the mask is read during the call.
        unsafe { libc::syscall(libc::SYS_mbind, start.as_ptr(), bytes.len(), preferred, mask.as_ptr(), most, 0) == 0 }
    }

    /// Makes `heap` the heap of this memory, whose frames are numbered from its beginning.
    pub(crate) fn open_heap<C: Config>(
        &'static self,
        heap: &Heap<'static, Hosted, C>,
        span: FrameSpan,
        cpus: usize,
        nodes: usize,
        metadata: Metadata<'static>,
    ) -> Result<(), SetupError> {
        // SAFETY: frame n lies n frames after the start of the mapping; it stays mapped, and the heap's instance
        // lends its frames to one at a time. Signal handlers are told apart by `Hosted::in_signal_handler`, at
        // configurations that allow for them.
        unsafe { heap.init(self.start().as_ptr(), span, cpus, nodes, metadata) }
    }

    /// Lends the bytes as metadata; the first time as bytes that are known to be zero, so that what starts at zero is
    /// not touched.
    pub fn metadata(&mut self) -> Metadata<'_> {
        let fresh = std::mem::replace(&mut self.fresh, false);
        // SAFETY: the bytes are mapped, and borrowed as long as the mapping is borrowed mutably.
        let bytes = unsafe { NonNull::slice_from_raw_parts(self.start.cast::<MaybeUninit<u8>>(), self.bytes).as_mut() };
        if !fresh {
            return Metadata::new(bytes);
        }
        // SAFETY: anonymous memory is zero, and nobody has had these bytes before.
        unsafe { Metadata::zeroed(bytes) }
    }

    /// Gives the bytes away as metadata for as long as the process lives.
    pub fn into_metadata(self) -> Metadata<'static> {
        Box::leak(Box::new(self)).metadata()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let (first, bytes) = self.mapped;
        // SAFETY: this is the mapping that `mmap` gave, whole, and whoever borrowed its bytes is gone. A pointer from
        // `start` or `at` is its owner's to forget.
        let unmapped = unsafe { libc::munmap(first.as_ptr().cast(), bytes) };
        debug_assert_eq!(unmapped, 0);
    }
}

/// The smallest page there is; alignments above it need room to align.
const PAGE: usize = 4096;

/// Why memory could not be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapError {
    /// The bytes that were asked for.
    pub bytes: usize,
    /// What the system said.
    pub errno: i32,
    /// The limit on address space (`ulimit -v`), if there is one, in bytes.
    pub limit: Option<usize>,
}

impl MapError {
    fn last(bytes: usize) -> Self {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the call writes the structure it is given, which outlives it.
        let told = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
        let limited = told && limit.rlim_cur != libc::RLIM_INFINITY;
        Self { bytes, errno, limit: limited.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)) }
    }
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot map {} bytes: {}", self.bytes, io::Error::from_raw_os_error(self.errno))?;
        match self.limit {
            Some(limit) => write!(f, " (the process is limited to {limit} bytes of address space, see `ulimit -v`)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for MapError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_aligned_zero_and_bounded() {
        let mapping = Mapping::aligned(10_000, 1 << 21).unwrap();
        assert_eq!(mapping.start().addr().get() % (1 << 21), 0);
        assert_eq!((mapping.len(), mapping.at(9_999).is_some(), mapping.at(10_000)), (10_000, true, None));
        // SAFETY: the byte is mapped and nobody else's.
        assert_eq!(unsafe { mapping.at(9_999).unwrap().read() }, 0);
    }

    #[test]
    fn terabytes_cost_nothing_until_they_are_touched() {
        let mut mapping = Mapping::new(1 << 40).unwrap();
        assert_eq!(mapping.metadata().len(), 1 << 40);
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        for (bytes, align) in [(0, 1), (usize::MAX, 1 << 30), (1 << 20, 3)] {
            let error = Mapping::aligned(bytes, align).unwrap_err();
            assert_eq!(error.errno, libc::EINVAL);
        }
        let error = Mapping::new(1 << 60).unwrap_err();
        assert_eq!((error.bytes, error.errno), (1 << 60, libc::ENOMEM));
        assert!(error.to_string().contains("cannot map"), "{error}");
    }
}
