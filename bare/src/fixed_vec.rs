//! A list that needs no allocator: there is none yet when the firmware's tables are read.

use core::fmt;
use core::ops::{Deref, DerefMut};

/// Up to `N` items in place.
#[derive(Clone, Copy)]
pub struct FixedVec<T, const N: usize> {
    items: [T; N],
    len: usize,
}

/// The list was full; the item was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl<T: Copy + Default, const N: usize> FixedVec<T, N> {
    /// An empty list.
    pub fn new() -> Self {
        Self { items: [T::default(); N], len: 0 }
    }

    /// Adds `item` at the end.
    pub fn push(&mut self, item: T) -> Result<(), Full> {
        let place = self.items.get_mut(self.len).ok_or(Full)?;
        *place = item;
        self.len += 1;
        Ok(())
    }

    /// Forgets all items.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl<T: Copy + Default, const N: usize> Default for FixedVec<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for FixedVec<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.len]
    }
}

impl<T, const N: usize> DerefMut for FixedVec<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items[..self.len]
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a FixedVec<T, N> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for FixedVec<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_fit() {
        let mut list = FixedVec::<u8, 2>::new();
        assert_eq!(list.push(1), Ok(()));
        assert_eq!(list.push(2), Ok(()));
        assert_eq!(list.push(3), Err(Full));
        assert_eq!(&list[..], &[1, 2]);
        list.clear();
        assert!(list.is_empty());
    }
}
