//! Sets of an arena's trees.

/// The most trees an arena has.
const TREES: usize = 512;
const WORDS: usize = TREES / 64;

/// A set of trees by number, with the first and the last found in two steps.
#[derive(Clone)]
pub(crate) struct TreeSet {
    words: [u64; WORDS],
    /// Bit `i`: word `i` is not zero.
    used: u32,
}

impl TreeSet {
    pub(crate) const EMPTY: Self = Self { words: [0; WORDS], used: 0 };

    #[inline]
    pub(crate) fn contains(&self, tree: u32) -> bool {
        self.words[tree as usize / 64 % WORDS] >> (tree % 64) & 1 != 0
    }

    /// Puts `tree` in or out. Whether that began the set or emptied it.
    #[inline(always)]
    pub(crate) fn put(&mut self, tree: u32, present: bool) -> bool {
        let word = tree as usize / 64 % WORDS;
        let before = self.words[word];
        let bits = before & !(1 << (tree % 64)) | u64::from(present) << (tree % 64);
        self.words[word] = bits;
        if (before == 0) == (bits == 0) {
            return false;
        }
        let used = self.used;
        self.used = used ^ 1 << word;
        used == 0 || self.used == 0
    }

    #[inline]
    pub(crate) fn first(&self) -> Option<u32> {
        if self.used == 0 {
            return None;
        }
        let word = self.used.trailing_zeros();
        Some(word * 64 + self.words[word as usize % WORDS].trailing_zeros())
    }

    #[inline]
    pub(crate) fn last(&self) -> Option<u32> {
        if self.used == 0 {
            return None;
        }
        let word = self.used.ilog2();
        Some(word * 64 + 63 - self.words[word as usize % WORDS].leading_zeros())
    }

    /// The last at or below `tree`.
    pub(crate) fn last_to(&self, tree: u32) -> Option<u32> {
        let tree = tree.min(TREES as u32 - 1);
        let mut word = tree as usize / 64;
        let mut bits = self.words[word] & (!0 >> (63 - tree % 64));
        while bits == 0 {
            word = word.checked_sub(1)?;
            bits = self.words[word];
        }
        Some(word as u32 * 64 + 63 - bits.leading_zeros())
    }

    /// The first at or above `tree`.
    pub(crate) fn first_from(&self, tree: u32) -> Option<u32> {
        let mut word = tree as usize / 64;
        let mut bits = self.words.get(word)? & (!0 << (tree % 64));
        while bits == 0 {
            word += 1;
            bits = *self.words.get(word)?;
        }
        Some(word as u32 * 64 + bits.trailing_zeros())
    }

    /// The first at or above `tree` that is not in the set, or the number of trees there can be.
    pub(crate) fn first_gap_from(&self, tree: u32) -> u32 {
        let complement = Self { words: self.words.map(|word| !word), used: 0 };
        complement.first_from(tree).unwrap_or(TREES as u32)
    }

    /// The trees that begin a run of `count` trees of the set.
    pub(crate) fn runs(&self, count: u32) -> Self {
        let mut starts = self.clone();
        let mut length = 1;
        // A run of twice the length begins where one begins and ends where another begins; the last step overlaps.
        while length < count {
            let step = length.min(count - length);
            starts = starts.intersection(&starts.moved_down(step));
            length += step;
        }
        starts
    }

    /// The trees of the set that are multiples of `align`, a power of two.
    pub(crate) fn aligned(&self, align: u32) -> Self {
        let mut every = 1u64;
        let mut spacing = align;
        while spacing < 64 {
            every |= every << spacing;
            spacing *= 2;
        }
        Self::of(core::array::from_fn(|word| {
            if (word as u32 * 64).is_multiple_of(align) || align < 64 { self.words[word] & every } else { 0 }
        }))
    }

    fn of(words: [u64; WORDS]) -> Self {
        let used = words.iter().enumerate().fold(0, |used, (word, bits)| used | u32::from(*bits != 0) << word);
        Self { words, used }
    }

    fn intersection(&self, other: &Self) -> Self {
        Self::of(core::array::from_fn(|word| self.words[word] & other.words[word]))
    }

    /// Each tree's number lowered by `by`; those below it fall out.
    fn moved_down(&self, by: u32) -> Self {
        let (words, bits) = (by as usize / 64, by % 64);
        let word = |at: usize| self.words.get(at).copied().unwrap_or(0);
        Self::of(core::array::from_fn(|at| {
            // Shifted in two steps, since a shift by 64 is none.
            word(at + words) >> bits | word(at + words + 1) << 1 << (63 - bits)
        }))
    }

    /// Whether the mask of used words is right.
    pub(crate) fn is_consistent(&self) -> bool {
        Self::of(self.words).used == self.used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(trees: impl IntoIterator<Item = u32>) -> TreeSet {
        let mut set = TreeSet::EMPTY;
        for tree in trees {
            set.put(tree, true);
        }
        set
    }

    #[test]
    fn ends_are_found_across_words() {
        let trees = set([3, 70, 511]);
        assert_eq!((trees.first(), trees.last()), (Some(3), Some(511)));
        assert_eq!((trees.first_from(4), trees.first_from(71)), (Some(70), Some(511)));
        assert_eq!((trees.last_to(510), trees.last_to(69), trees.last_to(2)), (Some(70), Some(3), None));
        assert_eq!(TreeSet::EMPTY.first(), None);
        assert_eq!(set(0..512).first_gap_from(5), 512);
        assert_eq!(set(0..100).first_gap_from(5), 100);
    }

    #[test]
    fn what_is_put_in_and_out_leaves_nothing() {
        let mut trees = set([5, 64, 5]);
        assert!(!trees.put(5, false) && trees.put(64, false));
        assert!(trees.is_consistent() && trees.first().is_none());
        assert!(trees.put(5, true) && !trees.put(6, true));
    }

    #[test]
    fn runs_agree_with_looking_at_each_place() {
        let trees = set((0..512).filter(|tree| tree % 97 != 0 && tree % 61 != 1));
        for count in [1, 2, 3, 5, 8, 31, 60, 61, 64, 96, 97] {
            for align in [1, 2, 8, 64, 256] {
                let runs = trees.runs(count).aligned(align);
                assert!(runs.is_consistent());
                for start in 0..512 {
                    let all = (start..start + count).all(|tree| tree < 512 && trees.contains(tree));
                    assert_eq!(runs.contains(start), all && start % align == 0, "{count} from {start} by {align}");
                }
            }
        }
        assert!(set(0..512).runs(512).contains(0));
    }
}
