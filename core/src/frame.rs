//! Frames by number, by count and by right.
//!
//! A number may be copied, a count may be added, a right may only be moved: mixing them up does not compile.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};

/// The number of a page frame: which one, never how many.
///
/// A frame is the unit of the instance that manages it, 4 KiB in a kernel, but any size elsewhere. The number says
/// nothing of whether the frame exists or who holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Pfn(usize);

impl Pfn {
    /// Names frame `number`.
    #[inline]
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// The number itself.
    #[inline]
    pub const fn number(self) -> usize {
        self.0
    }

    /// The frame that is `count` further, or `None` past the end of all numbers.
    #[inline]
    pub const fn checked_add(self, count: FrameCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The nearest frame at or below this one whose number is a multiple of `frames`, a power of two.
    #[inline]
    pub const fn align_down(self, frames: usize) -> Self {
        Self(self.0 & !(frames - 1))
    }
}

impl fmt::Debug for Pfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}", self.0)
    }
}

impl Add<FrameCount> for Pfn {
    type Output = Self;
    #[inline]
    fn add(self, count: FrameCount) -> Self {
        Self(self.0 + count.0)
    }
}

impl Sub<Pfn> for Pfn {
    type Output = FrameCount;
    #[inline]
    fn sub(self, earlier: Pfn) -> FrameCount {
        FrameCount(self.0 - earlier.0)
    }
}

/// How many frames: a count, never a place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FrameCount(usize);

impl FrameCount {
    /// No frame at all.
    pub const ZERO: Self = Self(0);

    /// Counts `frames`.
    #[inline]
    pub const fn new(frames: usize) -> Self {
        Self(frames)
    }

    /// The count as a number.
    #[inline]
    pub const fn get(self) -> usize {
        self.0
    }
}

impl fmt::Debug for FrameCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} frames", self.0)
    }
}

impl fmt::Display for FrameCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Add for FrameCount {
    type Output = Self;
    #[inline]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for FrameCount {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sub for FrameCount {
    type Output = Self;
    #[inline]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

/// Why a span of frames or bytes cannot be named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanError {
    /// It holds no frame.
    Empty,
    /// Its end lies past the largest frame number or address.
    Wraps,
    /// Its start or its length is no multiple of the frame size.
    Unaligned,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the range is empty",
            Self::Wraps => "the range wraps past the end of the address space",
            Self::Unaligned => "the range is not a whole number of aligned frames",
        })
    }
}

/// A non-empty run of frame numbers. It *names* frames, as a memory map does, and gives no right to them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameSpan {
    start: Pfn,
    count: FrameCount,
}

impl FrameSpan {
    /// Names `count` frames from `start` on.
    ///
    /// # Errors
    /// [`SpanError::Empty`] for no frames, [`SpanError::Wraps`] if the end is past the largest number.
    pub const fn new(start: Pfn, count: FrameCount) -> Result<Self, SpanError> {
        if count.0 == 0 {
            return Err(SpanError::Empty);
        }
        match start.0.checked_add(count.0) {
            Some(_) => Ok(Self { start, count }),
            None => Err(SpanError::Wraps),
        }
    }

    /// Names the frames of `bytes` bytes at address `start`, which must be exactly whole frames of `frame_bytes`.
    ///
    /// # Errors
    /// As [`FrameSpan::new`], and [`SpanError::Unaligned`] if start or length is no multiple of `frame_bytes`.
    pub const fn from_bytes(start: usize, bytes: usize, frame_bytes: usize) -> Result<Self, SpanError> {
        if start.checked_add(bytes).is_none() {
            return Err(SpanError::Wraps);
        }
        if !start.is_multiple_of(frame_bytes) || !bytes.is_multiple_of(frame_bytes) {
            return Err(SpanError::Unaligned);
        }
        Self::new(Pfn(start / frame_bytes), FrameCount(bytes / frame_bytes))
    }

    /// Names the frames that lie wholly inside `bytes` bytes at address `start`: what a firmware map entry is good for.
    ///
    /// # Errors
    /// [`SpanError::Empty`] if no whole frame fits, [`SpanError::Wraps`] if the bytes do.
    pub const fn inside_bytes(start: usize, bytes: usize, frame_bytes: usize) -> Result<Self, SpanError> {
        let Some(end) = start.checked_add(bytes) else {
            return Err(SpanError::Wraps);
        };
        let (first, last) = (start.div_ceil(frame_bytes), end / frame_bytes);
        if first >= last {
            return Err(SpanError::Empty);
        }
        Self::new(Pfn(first), FrameCount(last - first))
    }

    /// Names the frames that `bytes` bytes at address `start` touch: what a reservation must cover.
    ///
    /// # Errors
    /// [`SpanError::Empty`] for no bytes, [`SpanError::Wraps`] if the bytes do.
    pub const fn around_bytes(start: usize, bytes: usize, frame_bytes: usize) -> Result<Self, SpanError> {
        if bytes == 0 {
            return Err(SpanError::Empty);
        }
        let Some(end) = start.checked_add(bytes) else {
            return Err(SpanError::Wraps);
        };
        let first = start / frame_bytes;
        Self::new(Pfn(first), FrameCount(end.div_ceil(frame_bytes) - first))
    }

    /// The first frame.
    #[inline]
    pub const fn start(self) -> Pfn {
        self.start
    }

    /// The frame after the last one.
    #[inline]
    pub const fn end(self) -> Pfn {
        Pfn(self.start.0 + self.count.0)
    }

    /// How many frames it names; never zero.
    #[inline]
    pub const fn count(self) -> FrameCount {
        self.count
    }

    /// Whether `pfn` is one of its frames.
    #[inline]
    pub const fn contains(self, pfn: Pfn) -> bool {
        pfn.0.wrapping_sub(self.start.0) < self.count.0
    }

    /// Whether every frame of `other` is one of its frames.
    pub const fn covers(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end().0 <= self.end().0
    }

    /// The frames that both name, if any.
    pub const fn intersection(self, other: Self) -> Option<Self> {
        let start = if self.start.0 > other.start.0 { self.start.0 } else { other.start.0 };
        let end = if self.end().0 < other.end().0 { self.end().0 } else { other.end().0 };
        if start < end { Some(Self { start: Pfn(start), count: FrameCount(end - start) }) } else { None }
    }
}

impl fmt::Debug for FrameSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pfn {:#x}..{:#x}", self.start.0, self.end().0)
    }
}

/// The right to use a run of frames, given out by an allocator and given back by value.
///
/// Neither `Copy` nor `Clone`: a second free of the same range does not compile. Dropping it leaks the frames.
#[must_use = "dropping a FrameRange leaks its frames; give it back with `free_range`"]
#[derive(PartialEq, Eq)]
pub struct FrameRange(FrameSpan);

impl FrameRange {
    /// Claims the right to `span`, for embedders that keep bare numbers and come back with them.
    ///
    /// Nothing is unsafe about it by itself: a free of frames that were not lent is found out and refused as far as
    /// [`FreeError`](crate::FreeError) says. Freeing frames lent to *somebody else* cannot be seen by any allocator
    /// that keeps no owners, so keep the value you were given where you can.
    #[inline]
    pub const fn from_raw(span: FrameSpan) -> Self {
        Self(span)
    }

    /// Gives up the right for the bare numbers.
    #[inline]
    pub const fn into_raw(self) -> FrameSpan {
        self.0
    }

    /// The frames it is the right to.
    #[inline]
    pub const fn span(&self) -> FrameSpan {
        self.0
    }

    /// Divides the right in two: the first `count` frames and the rest.
    ///
    /// # Errors
    /// Gives itself back if either part would be empty.
    pub const fn split_at(self, count: FrameCount) -> Result<(Self, Self), Self> {
        if count.0 == 0 || count.0 >= self.0.count.0 {
            return Err(self);
        }
        let first = FrameSpan { start: self.0.start, count };
        let rest = FrameSpan { start: Pfn(self.0.start.0 + count.0), count: FrameCount(self.0.count.0 - count.0) };
        Ok((Self(first), Self(rest)))
    }
}

impl fmt::Debug for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameRange({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_never_empty_and_never_wraps() {
        assert_eq!(FrameSpan::new(Pfn::new(3), FrameCount::ZERO), Err(SpanError::Empty));
        assert_eq!(FrameSpan::new(Pfn::new(usize::MAX), FrameCount::new(1)), Err(SpanError::Wraps));
        assert_eq!(FrameSpan::from_bytes(usize::MAX - 4095, 8192, 4096), Err(SpanError::Wraps));
        assert_eq!(FrameSpan::from_bytes(4096, 100, 4096), Err(SpanError::Unaligned));
        assert_eq!(FrameSpan::from_bytes(100, 4096, 4096), Err(SpanError::Unaligned));
    }

    #[test]
    fn bytes_round_inwards_for_memory_and_outwards_for_reservations() {
        let inside = FrameSpan::inside_bytes(0x1800, 0x3000, 0x1000).unwrap();
        assert_eq!((inside.start(), inside.end()), (Pfn::new(2), Pfn::new(4)));
        let around = FrameSpan::around_bytes(0x1800, 0x3000, 0x1000).unwrap();
        assert_eq!((around.start(), around.end()), (Pfn::new(1), Pfn::new(5)));
        assert_eq!(FrameSpan::inside_bytes(0x1001, 0xfff, 0x1000), Err(SpanError::Empty));
    }

    #[test]
    fn intersections_and_cover() {
        let span = |start, count| FrameSpan::new(Pfn::new(start), FrameCount::new(count)).unwrap();
        assert_eq!(span(0, 10).intersection(span(5, 10)), Some(span(5, 5)));
        assert_eq!(span(0, 5).intersection(span(5, 5)), None);
        assert!(span(0, 10).covers(span(9, 1)));
        assert!(!span(0, 10).covers(span(9, 2)));
    }

    #[test]
    fn a_right_splits_into_two() {
        let range = FrameRange::from_raw(FrameSpan::new(Pfn::new(8), FrameCount::new(3)).unwrap());
        let (first, rest) = range.split_at(FrameCount::new(1)).unwrap();
        assert_eq!((first.span().count().get(), rest.span().start()), (1, Pfn::new(9)));
        assert!(rest.split_at(FrameCount::new(2)).is_err());
    }
}
