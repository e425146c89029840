//! What each frame is for now: one word a frame.
//!
//! ```text
//!  31                    10   9    8     4 3    0
//! ┌────────────────────────┬──────┬───────┬──────┐
//! │ for the layers above   │ used │ order │ kind │
//! └────────────────────────┴──────┴───────┴──────┘
//! ```
//!
//! `order` belongs to the head of a block; the frames inside a block keep the word of a free frame, so a block of any
//! size is lent and freed with one store. A single frame is a block of order 0, and its word alone tells whether a free
//! of it is right. `used` says that the frame was lent at least once.
//!
//! **Who writes.** Only the frame's owner: whoever it is lent to, the CPU in whose pool it lies, the holder of the
//! arena's lock while it is in the tree. A word is written before the frame changes hands, and what changes hands is
//! ordered by what carries it (a lock, a caller's message), so the next owner reads what the last one wrote. A reader
//! that is not the owner learns nothing it may rely on.

use bitfield_struct::bitfield;

use crate::error::Place;
use crate::frame::FrameCount;
use crate::order::{AlignedBlocks, Order};
use crate::sync::{AtomicU32, Ordering, fence, mutant};

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    /// In its tree, or inside a block whose head says more.
    Free,
    /// Lent to the instance's user.
    Lent,
    /// In a CPU's magazine.
    Pooled,
    /// In a CPU's return buffer.
    Returning,
    /// In the pending map.
    Pending,
    /// Never the allocator's to lend.
    Reserved,
    /// Taken out of service.
    Offline,
    /// Cut into objects.
    Slab,
    /// The first frame of a large object.
    LargeHead,
    /// A further frame of a large object.
    LargeTail,
    /// The first frame of a large object that its user has freed and the heap keeps for the next.
    LargeKept,
    /// As that, and whoever changes this word has it: see [`large`](crate::large).
    LargeReady,
}

impl Kind {
    const fn into_bits(self) -> u8 {
        self as u8
    }

    const fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Free,
            1 => Self::Lent,
            2 => Self::Pooled,
            3 => Self::Returning,
            4 => Self::Pending,
            5 => Self::Reserved,
            6 => Self::Offline,
            7 => Self::Slab,
            8 => Self::LargeHead,
            9 => Self::LargeTail,
            10 => Self::LargeKept,
            _ => Self::LargeReady,
        }
    }
}

/// The word of one frame.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(crate) struct FrameWord {
    #[bits(4)]
    pub(crate) kind: Kind,
    #[bits(5)]
    order_bits: u8,
    pub(crate) used: bool,
    #[bits(22)]
    pub(crate) above: u32,
}

// Orders fit their field, and a new word is that of a free frame that was never lent: metadata may start as zeros.
const _: () = assert!(Order::MAX.index() < 1 << 5);
const _: () = assert!(FrameWord::new().into_bits() == 0);

impl FrameWord {
    /// The head of a lent block.
    pub(crate) const fn lent(order: Order) -> Self {
        Self::head(Kind::Lent, order)
    }

    /// The head of a block that a heap uses as `kind`.
    pub(crate) const fn held(kind: Kind, order: Order) -> Self {
        Self::head(kind, order)
    }

    /// The head of a block in a CPU's pool.
    pub(crate) const fn pooled(order: Order) -> Self {
        Self::head(Kind::Pooled, order)
    }

    /// A single frame in a return buffer.
    pub(crate) const RETURNING: Self = Self::head(Kind::Returning, Order::ZERO);
    /// The head of a block in the pending map.
    pub(crate) const fn pending(order: Order) -> Self {
        Self::head(Kind::Pending, order)
    }

    /// A frame in its tree that was lent before.
    pub(crate) const FREE_AGAIN: Self = Self::head(Kind::Free, Order::ZERO);
    /// A frame that is not the allocator's.
    pub(crate) const RESERVED: Self = Self::new().with_kind(Kind::Reserved);
    /// A frame out of service.
    pub(crate) const OFFLINE: Self = Self::new().with_kind(Kind::Offline);

    const fn head(kind: Kind, order: Order) -> Self {
        Self::new().with_kind(kind).with_order_bits(order.index() as u8).with_used(true)
    }

    /// As [`with_kind`](Self::with_kind), in line.
    #[inline(always)]
    const fn of_kind(self, kind: Kind) -> Self {
        Self::from_bits(self.into_bits() & !0xf | kind as u32)
    }

    /// As [`with_above`](Self::with_above) of what fits, in line.
    #[inline(always)]
    const fn of_above(self, above: u32) -> Self {
        Self::from_bits(self.into_bits() & ((1 << 10) - 1) | above << 10)
    }

    /// The order of the block that this word heads.
    pub(crate) fn order(self) -> Order {
        Order::new(u32::from(self.order_bits())).unwrap_or(Order::MAX)
    }

    /// Whether the frame is not the allocator's to lend now.
    pub(crate) const fn is_out_of_service(self) -> bool {
        matches!(self.kind(), Kind::Reserved | Kind::Offline)
    }

    /// Whether this is the head of a block that is outside the tree.
    const fn heads_a_block(self) -> bool {
        self.is_out() || matches!(self.kind(), Kind::Pooled | Kind::Returning | Kind::Pending)
    }

    /// Whether this is the head of a block that somebody uses.
    pub(crate) const fn is_out(self) -> bool {
        matches!(self.kind(), Kind::Lent) || self.is_held()
    }

    /// Whether this is the head of a block that a heap uses.
    pub(crate) const fn is_held(self) -> bool {
        matches!(self.kind(), Kind::Slab | Kind::LargeHead | Kind::LargeTail | Kind::LargeKept | Kind::LargeReady)
    }
}

/// Why the frames of a range are not all lent: the first that is not, and what its word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotLent {
    pub(crate) index: u32,
    pub(crate) word: FrameWord,
}

impl FrameWord {
    /// Where a frame with this word lies when it is not lent, as far as the word knows.
    pub(crate) fn place(self) -> Option<Place> {
        match self.kind() {
            Kind::Pooled => Some(Place::Pool),
            Kind::Returning => Some(Place::ReturnBuffer),
            Kind::Pending => Some(Place::Pending),
            _ => None,
        }
    }
}

/// How many frames a large object has, in the 22 bits that its head's word has for it: so many were asked for, and so
/// many more lie behind them, since it was given a block that was somewhat larger.
///
/// ```text
///  0 │ frames, none to spare        1 │ to spare (9) │ asked for (12)
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    pub(crate) asked: FrameCount,
    pub(crate) spare: FrameCount,
}

impl Counts {
    const HAS_SPARE: u32 = 1 << 21;
    const ASKED_BITS: u32 = 12;
    /// The most frames to spare.
    pub(crate) const MOST_SPARE: usize = (1 << 9) - 1;
    /// The most frames of an object that has any to spare.
    pub(crate) const MOST_WITH_SPARE: usize = (1 << Self::ASKED_BITS) - 1;

    /// Of an object that has none to spare.
    pub(crate) const fn exact(count: FrameCount) -> Self {
        Self { asked: count, spare: FrameCount::new(0) }
    }

    /// All of them.
    #[inline(always)]
    pub(crate) fn all(self) -> FrameCount {
        self.asked + self.spare
    }

    /// As a word has them; 0 if they have no room there.
    #[inline(always)]
    pub(crate) fn bits(self) -> u32 {
        let (asked, spare) = (self.asked.get(), self.spare.get());
        match spare {
            0 if asked < Self::HAS_SPARE as usize => asked as u32,
            1..=Self::MOST_SPARE if asked <= Self::MOST_WITH_SPARE => {
                Self::HAS_SPARE | (spare as u32) << Self::ASKED_BITS | asked as u32
            }
            _ => 0,
        }
    }

    /// What a word says; `None` if it has had no room.
    #[inline(always)]
    fn of(bits: u32) -> Option<Self> {
        let asked = if bits & Self::HAS_SPARE == 0 { bits } else { bits & ((1 << Self::ASKED_BITS) - 1) };
        let spare = if bits & Self::HAS_SPARE == 0 { 0 } else { (bits & !Self::HAS_SPARE) >> Self::ASKED_BITS };
        let [asked, spare] = [asked, spare].map(|count| FrameCount::new(count as usize));
        (bits != 0).then_some(Self { asked, spare })
    }
}

impl FrameWord {
    /// The frames of the large object or the freed block whose first this is, if it has room for their number.
    #[inline(always)]
    pub(crate) fn counts(self) -> Option<Counts> {
        Counts::of(self.above())
    }
}

/// One frame's word, for whoever owns the frame.
#[derive(Clone, Copy)]
pub(crate) struct Word<'m>(&'m AtomicU32);

impl Word<'_> {
    #[inline(always)]
    pub(crate) fn get(self) -> FrameWord {
        // Relaxed: see `FrameTable::get`.
        FrameWord::from_bits(self.0.load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub(crate) fn set(self, word: FrameWord) {
        // Release: see `FrameTable::set`.
        self.0.store(word.into_bits(), Ordering::Release);
    }
}

/// The words of the frames of one arena, by index inside the arena.
#[derive(Clone, Copy)]
pub(crate) struct FrameTable<'m> {
    words: &'m [AtomicU32],
    first: u32,
}

impl<'m> FrameTable<'m> {
    /// A table whose first word is that of index `first`.
    pub(crate) const fn new(words: &'m [AtomicU32], first: u32) -> Self {
        Self { words, first }
    }

    /// The word of the frame that is `place` after the first, if there is one.
    #[inline(always)]
    pub(crate) fn word(&self, place: usize) -> Option<Word<'m>> {
        self.words.get(place).map(Word)
    }

    pub(crate) fn get(&self, index: u32) -> FrameWord {
        let word = &self.words[(index - self.first) as usize];
        // Relaxed: for the owner's own frames the hand-over has ordered it; for others it is advice.
        FrameWord::from_bits(word.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, index: u32, word: FrameWord) {
        // Release: whoever finds the frame by its word sees what its owner did before.
        self.words[(index - self.first) as usize].store(word.into_bits(), Ordering::Release);
    }

    /// The block outside the tree that `index` belongs to: its head and the head's word.
    ///
    /// Looks at the frame itself and at each head that an enclosing block could have: O(orders).
    pub(crate) fn block_of(&self, index: u32) -> Option<(u32, FrameWord)> {
        let own = self.get(index);
        if own.heads_a_block() {
            return Some((index, own));
        }
        for order in 1..Order::COUNT {
            let head = index & !((1 << order) - 1);
            if head < self.first {
                return None;
            }
            if head == index {
                continue;
            }
            let word = self.get(head);
            if word.heads_a_block() {
                // Blocks do not overlap: the nearest head either reaches this frame or no block does.
                return (word.order().frames() > (index - head) as usize).then_some((head, word));
            }
        }
        None
    }

    /// Whether every frame of the range belongs to a lent block, whole or in part.
    pub(crate) fn check_lent(&self, start: u32, count: u32) -> Result<(), NotLent> {
        let end = start + count;
        let mut next = start;
        while next < end {
            match self.block_of(next) {
                Some((head, word)) if word.kind() == Kind::Lent => next = head + word.order().frames() as u32,
                Some((_, word)) => return Err(NotLent { index: next, word }),
                None => return Err(NotLent { index: next, word: self.get(next) }),
            }
        }
        Ok(())
    }

    /// As [`check_lent`](Self::check_lent) without the lock, for a range that the caller says is its own.
    ///
    /// Another owner of the same block may be cutting it just now, and the head be seen gone before the new one is
    /// seen: who finds nothing looks again. A cut at least halves the block, so there is an end to it.
    pub(crate) fn check_lent_unlocked(&self, start: u32, count: u32) -> Result<(), NotLent> {
        let mut checked = self.check_lent(start, count);
        for _ in 0..Order::COUNT {
            if checked.is_ok() || mutant("cut_unseen") {
                break;
            }
            // Pairs with the Release of the old head's last word: the new heads are seen now.
            fence(Ordering::Acquire);
            checked = self.check_lent(start, count);
        }
        checked
    }

    /// Moves the lent block at `head` to the pending map, unless somebody else has just done so.
    pub(crate) fn claim(&self, head: u32, order: Order) -> bool {
        let (lent, pending) = (FrameWord::lent(order), FrameWord::pending(order));
        if mutant("pending_without_claim") || mutant("twice_unguarded") {
            self.set(head, pending);
            return true;
        }
        let word = &self.words[(head - self.first) as usize];
        // Release as in `set`. A read-modify-write, because a wrong free of the same block may run at the same time:
        // the second must not overwrite what the next owner writes.
        word.compare_exchange(lent.into_bits(), pending.into_bits(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Changes a word, unless it is another by now.
    pub(crate) fn exchange(&self, index: u32, from: FrameWord, to: FrameWord) -> bool {
        let word = &self.words[(index - self.first) as usize];
        // Release as in `set`. A read-modify-write, because a wrong free may run at the same time.
        word.compare_exchange(from.into_bits(), to.into_bits(), Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Makes the large object at `head`, for which `asked` frames were asked if that is known, ready; answers its
    /// frames, and `None` if no such is lent there.
    ///
    /// `SeqCst`, as the look at the hint that follows: see [`ready`](crate::large). As a Release it lets the next owner
    /// see what the last one did.
    #[inline]
    pub(crate) fn make_ready(&self, head: u32, asked: Option<FrameCount>, most: usize) -> Option<FrameCount> {
        let place = &self.words[(head - self.first) as usize];
        let lent = FrameWord::from_bits(place.load(Ordering::Relaxed));
        let counts = lent.counts().filter(|_| lent.kind() == Kind::LargeHead)?;
        let all = counts.all();
        if asked.is_some_and(|asked| asked != counts.asked) || all.get() > most {
            return None;
        }
        let ready = lent.of_kind(Kind::LargeReady).of_above(all.get() as u32);
        let made = place.compare_exchange(lent.into_bits(), ready.into_bits(), Ordering::SeqCst, Ordering::Relaxed);
        made.is_ok().then_some(all)
    }

    /// Takes the block of `count` frames at `head`, if it is ready, and makes it one of `kind` that has so many.
    #[inline]
    pub(crate) fn take_ready(&self, head: u32, count: FrameCount, kind: Kind, counts: Counts) -> bool {
        let place = &self.words[(head - self.first) as usize];
        // SeqCst: follows the exchange of a hint, where one was exchanged.
        let word = FrameWord::from_bits(place.load(Ordering::SeqCst));
        if word.kind() != Kind::LargeReady || word.above() as usize != count.get() {
            return false;
        }
        let to = word.of_kind(kind).of_above(counts.bits());
        if mutant("ready_twice") {
            self.set(head, to);
            return true;
        }
        // Acquire: pairs with `make_ready`. Release as in `set`.
        place.compare_exchange(word.into_bits(), to.into_bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Marks every frame of a range that [`check_lent`](Self::check_lent) has passed as free. What is left of blocks
    /// that the range cuts becomes blocks of its own.
    pub(crate) fn free_lent(&self, start: u32, count: u32) {
        let end = start + count;
        let mut next = start;
        while next < end {
            let Some((head, word)) = self.block_of(next) else {
                debug_assert!(false, "checked to be lent");
                return;
            };
            let block_end = head + word.order().frames() as u32;
            // What is left may be somebody else's, who looks for his head without the lock: the new heads stand before
            // the old one goes.
            if block_end > end {
                self.lend(end, block_end - end);
            }
            let mut left = AlignedBlocks::new(head as usize, (next - head) as usize, Order::MAX);
            let shrunk = left.next().map_or(FrameWord::FREE_AGAIN, |(_, order)| FrameWord::lent(order));
            left.for_each(|(head, order)| self.set(head as u32, FrameWord::lent(order)));
            self.set(head, shrunk);
            next = block_end;
        }
    }

    /// Heads the frames of a range as lent blocks.
    pub(crate) fn lend(&self, start: u32, count: u32) {
        for (head, order) in AlignedBlocks::new(start as usize, count as usize, Order::MAX) {
            self.set(head as u32, FrameWord::lent(order));
        }
    }

    /// Gives every frame of a range the same word.
    pub(crate) fn fill(&self, start: u32, count: u32, word: FrameWord) {
        for index in start..start + count {
            self.set(index, word);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn order(log2: u32) -> Order {
        Order::new(log2).unwrap()
    }

    fn words<const N: usize>() -> [AtomicU32; N] {
        [const { AtomicU32::new(0) }; N]
    }

    #[test]
    fn counts_of_frames_come_back_as_they_went_or_not_at_all() {
        let counts = |asked, spare| Counts { asked: FrameCount::new(asked), spare: FrameCount::new(spare) };
        for (asked, spare) in [(1, 0), (9, 2), (2048, 511), (4095, 1), ((1 << 21) - 1, 0)] {
            let counts = counts(asked, spare);
            let word = FrameWord::held(Kind::LargeHead, order(3)).of_above(counts.bits());
            assert_eq!((word.counts(), word.order(), word.kind()), (Some(counts), order(3), Kind::LargeHead));
            assert_eq!(counts.all().get(), asked + spare);
        }
        for (asked, spare) in [(1 << 21, 0), (9, 512), (4096, 1)] {
            assert_eq!(Counts::of(counts(asked, spare).bits()), None);
        }
    }

    #[test]
    fn the_word_packs_kind_order_and_use() {
        let word = FrameWord::lent(order(18));
        assert_eq!((word.kind(), word.order(), word.used()), (Kind::Lent, Order::MAX, true));
        assert_eq!(FrameWord::from_bits(0).kind(), Kind::Free);
        assert!(!FrameWord::from_bits(0).used());
        for kind in 0..=11 {
            assert_eq!(Kind::from_bits(kind).into_bits(), kind);
        }
    }

    #[test]
    fn a_frame_inside_a_block_finds_its_head() {
        let words = words::<64>();
        let table = FrameTable::new(&words, 64);
        table.set(96, FrameWord::lent(order(4)));
        table.set(112, FrameWord::pooled(order(2)));
        assert_eq!(table.block_of(101), Some((96, FrameWord::lent(order(4)))));
        assert_eq!(table.block_of(114).unwrap().1.kind(), Kind::Pooled);
        assert_eq!(table.block_of(117), None);
        assert_eq!(table.block_of(95), None);
    }

    #[test]
    fn a_part_of_a_block_goes_and_the_rest_stays_lent() {
        for start in 0..16 {
            for count in 1..=16 - start {
                let words = words::<16>();
                let table = FrameTable::new(&words, 0);
                table.lend(0, 16);
                assert_eq!(table.check_lent(start, count), Ok(()));
                table.free_lent(start, count);
                for index in 0..16 {
                    let inside = (start..start + count).contains(&index);
                    assert_eq!(table.check_lent(index, 1).is_err(), inside, "{index} of {start}+{count}");
                }
            }
        }
    }

    #[test]
    fn the_first_frame_that_is_not_lent_is_named() {
        let words = words::<16>();
        let table = FrameTable::new(&words, 0);
        table.lend(0, 4);
        table.set(4, FrameWord::pooled(order(1)));
        table.lend(6, 10);
        let error = table.check_lent(2, 8).unwrap_err();
        assert_eq!((error.index, error.word.place()), (4, Some(Place::Pool)));
    }
}
