//! Which frames nobody has had yet: where memory starts as zeros, they still read so.
//!
//! Each tree has a mark: no frame at or above it has ever come back to the tree, by whatever way. So whoever takes frames
//! straight from a tree and finds all of them above the mark is the first to have them. It is enough to look after they
//! are taken: what may come back meanwhile are other frames, which can only raise the mark.
//!
//! What passes through a CPU's pool tells the mark only when it gets to the tree. For frames from there it says nothing.

use super::Arena;
use crate::config::{Config, Geometry};
use crate::platform::Platform;
use crate::sync::Ordering;

impl<P: Platform, C: Config> Arena<'_, P, C> {
    /// Notes that frames come back to their trees. Only with the lock held, before they are free.
    #[inline]
    pub(crate) fn note_return(&self, start: u32, count: u32) {
        if !C::FRESH_FRAMES_ARE_ZERO {
            return;
        }
        for (tree, _, end) in self.in_trees(start, count) {
            if let Some(mark) = self.returned_below.get(tree)
                && mark.load(Ordering::Relaxed) < end
            {
                // Relaxed, and no read-modify-write: ordered by the lock, under which alone it is written.
                mark.store(end, Ordering::Relaxed);
            }
        }
    }

    /// Whether frames that the caller has taken straight from their trees were never anybody else's.
    pub(crate) fn are_fresh(&self, start: u32, count: u32) -> bool {
        C::FRESH_FRAMES_ARE_ZERO
            && self.in_trees(start, count).all(|(tree, start, _)| {
                // Relaxed: what came back before these frames were taken did so under the same lock.
                self.returned_below.get(tree).is_some_and(|mark| mark.load(Ordering::Relaxed) <= start)
            })
    }

    /// The trees that a range touches, as places among the marks, with the part of each: start and end inside the tree.
    fn in_trees(&self, start: u32, count: u32) -> impl Iterator<Item = (usize, u16, u16)> {
        let frames = Geometry::<C>::TREE_FRAMES as u32;
        let (first_tree, end) = (self.first_tree, start + count);
        (start / frames..end.div_ceil(frames)).map(move |tree| {
            let base = tree * frames;
            let (from, to) = (start.max(base) - base, end.min(base + frames) - base);
            ((tree - first_tree) as usize, from as u16, to as u16)
        })
    }
}
