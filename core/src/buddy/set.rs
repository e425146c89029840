//! Sets of an arena's trees, to look for runs in.

/// The most trees an arena has.
const TREES: usize = 512;
const WORDS: usize = TREES / 64;

/// A set of trees by number.
#[derive(Clone)]
pub(super) struct TreeSet([u64; WORDS]);

impl TreeSet {
    pub(super) fn of(words: [u64; WORDS]) -> Self {
        Self(words)
    }

    /// The last at or below `tree`.
    pub(super) fn last_to(&self, tree: u32) -> Option<u32> {
        let tree = tree.min(TREES as u32 - 1);
        let mut word = tree as usize / 64;
        let mut bits = self.0[word] & (!0 >> (63 - tree % 64));
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.0[word];
        }
        Some(word as u32 * 64 + 63 - bits.leading_zeros())
    }

    /// The first at or above `tree`.
    pub(super) fn first_from(&self, tree: u32) -> Option<u32> {
        let mut word = tree as usize / 64;
        let mut bits = self.0.get(word)? & (!0 << (tree % 64));
        while bits == 0 {
            word += 1;
            bits = *self.0.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }

    /// The first at or above `tree` that is not in the set, or the number of trees there can be.
    pub(super) fn first_gap_from(&self, tree: u32) -> u32 {
        Self(self.0.map(|word| !word)).first_from(tree).unwrap_or(TREES as u32)
    }

    /// The trees that begin a run of `count` trees of the set.
    pub(super) fn runs(&self, count: u32) -> Self {
        let mut starts = self.clone();
        let mut length = 1;
        // A run of twice the length begins where one begins and ends where another begins; the last step overlaps.
        while length < count {
            let step = length.min(count - length);
            let moved = starts.moved_down(step);
            starts = Self(core::array::from_fn(|word| starts.0[word] & moved.0[word]));
            length += step;
        }
        starts
    }

    /// The trees of the set that are multiples of `align`, a power of two.
    pub(super) fn aligned(&self, align: u32) -> Self {
        let mut every = 1u64;
        let mut spacing = align;
        while spacing < 64 {
            every |= every << spacing;
            spacing *= 2;
        }
        Self(core::array::from_fn(|word| {
            if (word as u32 * 64).is_multiple_of(align) || align < 64 { self.0[word] & every } else { 0 }
        }))
    }

    /// Each tree's number lowered by `by`; those below it fall out.
    fn moved_down(&self, by: u32) -> Self {
        let (words, bits) = (by as usize / 64, by % 64);
        let word = |at: usize| self.0.get(at).copied().unwrap_or(0);
        Self(core::array::from_fn(|at| {
            // Shifted in two steps, since a shift by 64 is none.
            word(at + words) >> bits | word(at + words + 1) << 1 << (63 - bits)
        }))
    }
}

// Plain data and no unsafe code: Miri has nothing to find here that a faster run does not.
#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn set(trees: impl IntoIterator<Item = u32>) -> TreeSet {
        let mut words = [0; WORDS];
        trees.into_iter().for_each(|tree| words[tree as usize / 64] |= 1 << (tree % 64));
        TreeSet::of(words)
    }

    #[test]
    fn neighbours_are_found_across_words() {
        let trees = set([3, 70, 511]);
        assert_eq!((trees.first_from(0), trees.last_to(511), trees.last_to(1000)), (Some(3), Some(511), Some(511)));
        assert_eq!((trees.first_from(4), trees.first_from(71), trees.first_from(512)), (Some(70), Some(511), None));
        assert_eq!((trees.last_to(510), trees.last_to(69), trees.last_to(2)), (Some(70), Some(3), None));
        assert_eq!(set(0..512).first_gap_from(5), 512);
        assert_eq!(set(0..100).first_gap_from(5), 100);
    }

    #[test]
    fn runs_agree_with_looking_at_each_place() {
        let all = set((0..512).filter(|tree| tree % 97 != 0 && tree % 61 != 1));
        let has = |trees: &TreeSet, tree: u32| tree < 512 && trees.first_from(tree) == Some(tree);
        for count in [1, 2, 3, 5, 8, 31, 60, 61, 64, 96, 97] {
            for align in [1, 2, 8, 64, 256] {
                let runs = all.runs(count).aligned(align);
                for start in 0..512 {
                    let expected = start % align == 0 && (start..start + count).all(|tree| has(&all, tree));
                    assert_eq!(has(&runs, start), expected, "{count} from {start} by {align}");
                }
            }
        }
        assert!(has(&set(0..512).runs(512), 0));
    }
}
