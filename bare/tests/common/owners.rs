//! Whose frame is whose: a bit for every frame that somebody holds, so that a frame with two owners is found at once.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use pagemill::{Block, FrameCount, FrameRange, FrameSpan, Order, Pfn};

/// Frames below 4.5 GiB.
const FRAMES: usize = 0x12_0000;

/// A bit a frame.
pub(crate) static OWNED: [AtomicU64; FRAMES / 64] = [const { AtomicU64::new(0) }; FRAMES / 64];

/// Makes somebody the owner of frames that were lent just now.
pub(crate) fn own(span: FrameSpan) {
    for pfn in span.start().number()..span.end().number() {
        let before = OWNED[pfn / 64].fetch_or(1 << (pfn % 64), Relaxed);
        assert_eq!(before >> (pfn % 64) & 1, 0, "frame {pfn:#x} has two owners");
    }
}

/// Takes them away again, before they are freed.
pub(crate) fn disown(span: FrameSpan) {
    for pfn in span.start().number()..span.end().number() {
        let before = OWNED[pfn / 64].fetch_and(!(1 << (pfn % 64)), Relaxed);
        assert_eq!(before >> (pfn % 64) & 1, 1, "frame {pfn:#x} has no owner");
    }
}

/// Lent frames, as one word that CPUs can exchange.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    pfn: usize,
    count: usize,
    is_block: bool,
}

impl Lent {
    pub(crate) fn block(block: Block) -> Self {
        let (head, order) = block.into_raw();
        Self { pfn: head.number(), count: order.frames(), is_block: true }
    }

    pub(crate) fn range(range: FrameRange) -> Self {
        let span = range.into_raw();
        Self { pfn: span.start().number(), count: span.count().get(), is_block: false }
    }

    pub(crate) fn span(self) -> FrameSpan {
        FrameSpan::new(Pfn::new(self.pfn), FrameCount::new(self.count)).expect("frames")
    }

    /// The block it was, or the range.
    pub(crate) fn into_right(self) -> Result<Block, FrameRange> {
        let order = Order::holding(FrameCount::new(self.count)).filter(|_| self.is_block);
        let block = order.and_then(|order| Block::from_raw(Pfn::new(self.pfn), order));
        block.ok_or_else(|| FrameRange::from_raw(self.span()))
    }

    fn into_word(self) -> u64 {
        (self.pfn as u64) << 32 | (self.count as u64) << 1 | u64::from(self.is_block)
    }

    fn from_word(word: u64) -> Option<Self> {
        let count = (word as u32 >> 1) as usize;
        (word != 0).then_some(Self { pfn: (word >> 32) as usize, count, is_block: word & 1 == 1 })
    }
}

/// Places through which CPUs hand lent frames to one another.
pub(crate) struct Exchange<const N: usize>([AtomicU64; N]);

impl<const N: usize> Exchange<N> {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    /// Leaves `lent` at a place, and answers what lay there.
    pub(crate) fn swap(&self, place: usize, lent: Option<Lent>) -> Option<Lent> {
        let word = lent.map_or(0, Lent::into_word);
        // What the frames' last owner did comes before what the next one does.
        Lent::from_word(self.0[place].swap(word, core::sync::atomic::Ordering::AcqRel))
    }
}

/// What many add to, and nobody orders anything by.
pub(crate) struct Counter(AtomicUsize);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count, Relaxed);
    }

    pub(crate) fn take(&self) -> usize {
        self.0.swap(0, Relaxed)
    }
}
