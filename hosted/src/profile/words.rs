//! Words in a mapping of their own: what a profile is kept in, which must not come out of the heap that it is about.
#![allow(unsafe_code, reason = "memory of a mapping")]

use std::ops::{Deref, DerefMut};
use std::{ptr, slice};

use crate::errno::keeping_errno;
use crate::map::Mapping;

/// Words that are zero at first. Memory stands behind those that have been touched.
pub(super) struct Words {
    mapping: Option<Mapping>,
}

impl Words {
    pub(super) const fn new() -> Self {
        Self { mapping: None }
    }

    /// Zeros, or `None` if the system has no more memory.
    pub(super) fn zeros(count: usize) -> Option<Self> {
        let mapping = keeping_errno(|| Mapping::new(count.checked_mul(size_of::<u64>())?).ok())?;
        Some(Self { mapping: Some(mapping) })
    }

    /// Makes room for `count` words, keeping those that are there; `false` if the system has no more memory.
    pub(super) fn grow(&mut self, count: usize) -> bool {
        let Some(mut more) = Self::zeros(count) else { return false };
        more[..self.len()].copy_from_slice(self);
        *self = more;
        true
    }

    fn parts(&self) -> (*mut u64, usize) {
        let parts = |mapping: &Mapping| (mapping.start().as_ptr().cast(), mapping.len() / size_of::<u64>());
        self.mapping.as_ref().map_or((ptr::dangling_mut(), 0), parts)
    }
}

impl Deref for Words {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        let (start, count) = self.parts();
        // SAFETY: the mapping is this value's alone, has so many words, and is zero where nothing else was written.
        unsafe { slice::from_raw_parts(start, count) }
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [u64] {
        let (start, count) = self.parts();
        // SAFETY: as above, and reached through this value alone.
        unsafe { slice::from_raw_parts_mut(start, count) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // Who asks for a sample has not asked for what unmapping says.
        keeping_errno(|| self.mapping = None);
    }
}
