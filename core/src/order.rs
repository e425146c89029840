//! Orders and the blocks they size.

use core::fmt;

use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};

/// The base-two logarithm of a block's frames: order 0 is one frame, order 9 is 512.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Order(u8);

impl Order {
    /// One frame.
    pub const ZERO: Self = Self(0);
    /// The largest order that any instance serves as one block: 2^18 frames, 1 GiB of 4 KiB frames.
    pub const MAX: Self = Self(18);
    /// How many orders there are, for arrays indexed by order.
    pub const COUNT: usize = Self::MAX.0 as usize + 1;

    /// The order `log2_frames`, or `None` above [`Order::MAX`].
    #[inline]
    pub const fn new(log2_frames: u32) -> Option<Self> {
        if log2_frames <= Self::MAX.0 as u32 { Some(Self(log2_frames as u8)) } else { None }
    }

    /// The smallest order whose block holds `count` frames, or `None` if none does.
    pub const fn holding(count: FrameCount) -> Option<Self> {
        if count.get() > Self::MAX.frames() {
            return None;
        }
        Self::new(count.get().next_power_of_two().trailing_zeros())
    }

    /// The order as a number, fit to index an array of [`Order::COUNT`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The frames of one block.
    #[inline]
    pub const fn frames(self) -> usize {
        1 << self.0
    }

    /// The frames of one block, as a count.
    #[inline]
    pub const fn count(self) -> FrameCount {
        FrameCount::new(1 << self.0)
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "order {}", self.0)
    }
}

/// The right to use 2^order frames whose first number is a multiple of 2^order.
///
/// Given out by an allocator, given back by value; neither `Copy` nor `Clone`. Dropping it leaks the frames.
#[must_use = "dropping a Block leaks its frames; give it back with `free`"]
#[derive(PartialEq, Eq)]
pub struct Block {
    head: Pfn,
    order: Order,
}

impl Block {
    /// Claims the right to a block, for embedders that keep bare numbers; see [`FrameRange::from_raw`].
    ///
    /// `None` if `head` is no multiple of the order's frames.
    #[inline]
    pub const fn from_raw(head: Pfn, order: Order) -> Option<Self> {
        if head.number() & (order.frames() - 1) == 0 { Some(Self { head, order }) } else { None }
    }

    /// A block whose alignment the caller has by construction.
    #[inline]
    pub(crate) const fn new(head: Pfn, order: Order) -> Self {
        debug_assert!(head.number() & (order.frames() - 1) == 0);
        Self { head, order }
    }

    /// Gives up the right for the bare numbers.
    #[inline]
    pub const fn into_raw(self) -> (Pfn, Order) {
        (self.head, self.order)
    }

    /// Its first frame.
    #[inline]
    pub const fn head(&self) -> Pfn {
        self.head
    }

    /// Its order.
    #[inline]
    pub const fn order(&self) -> Order {
        self.order
    }

    /// Divides a block into its two buddies, lower first; gives an order-0 block back.
    pub const fn split(self) -> Result<(Self, Self), Self> {
        let Some(lower) = self.order.0.checked_sub(1) else {
            return Err(self);
        };
        let order = Order(lower);
        let upper = Pfn::new(self.head.number() + order.frames());
        Ok((Self { head: self.head, order }, Self { head: upper, order }))
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({:?}, {:?})", self.head, self.order)
    }
}

impl From<Block> for FrameRange {
    fn from(block: Block) -> Self {
        match FrameSpan::new(block.head, block.order.count()) {
            Ok(span) => FrameRange::from_raw(span),
            // A block was cut from a span, so its end is a frame number.
            Err(_) => unreachable!(),
        }
    }
}

/// Cuts `count` frames from `start` into the fewest naturally aligned blocks, lowest address first.
#[derive(Clone, Debug)]
pub(crate) struct AlignedBlocks {
    next: usize,
    end: usize,
    largest: usize,
}

impl AlignedBlocks {
    /// Blocks of at most order `largest`.
    pub(crate) const fn new(start: usize, count: usize, largest: Order) -> Self {
        Self { next: start, end: start + count, largest: largest.index() }
    }
}

impl Iterator for AlignedBlocks {
    type Item = (usize, Order);

    fn next(&mut self) -> Option<Self::Item> {
        let left = self.end - self.next;
        if left == 0 {
            return None;
        }
        let fits = left.ilog2() as usize;
        let aligned = (self.next.trailing_zeros() as usize).min(usize::BITS as usize - 1);
        let order = Order(fits.min(aligned).min(self.largest) as u8);
        let head = self.next;
        self.next += order.frames();
        Some((head, order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_end_at_the_arena() {
        assert_eq!(Order::new(18), Some(Order::MAX));
        assert_eq!(Order::new(19), None);
        assert_eq!(Order::holding(FrameCount::new(5)), Order::new(3));
        assert_eq!(Order::holding(FrameCount::new((1 << 18) + 1)), None);
    }

    #[test]
    fn a_block_is_aligned_and_splits_into_buddies() {
        assert!(Block::from_raw(Pfn::new(6), Order::new(2).unwrap()).is_none());
        let block = Block::from_raw(Pfn::new(8), Order::new(2).unwrap()).unwrap();
        let (lower, upper) = block.split().unwrap();
        assert_eq!((lower.head(), upper.head()), (Pfn::new(8), Pfn::new(10)));
        assert_eq!(upper.split().unwrap().1.split().unwrap_err().head(), Pfn::new(11));
    }

    #[test]
    fn a_span_is_cut_into_aligned_blocks_that_tile_it() {
        for start in 0..70usize {
            for count in 1..70usize {
                let mut next = start;
                for (head, order) in AlignedBlocks::new(start, count, Order(4)) {
                    assert_eq!(head, next);
                    assert_eq!(head % order.frames(), 0);
                    assert!(order <= Order(4));
                    next += order.frames();
                }
                assert_eq!(next, start + count);
            }
        }
    }
}
