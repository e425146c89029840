//! What a property has at hand: the allocator under test, how much of it may be used, and who else is there.

use core::alloc::Layout;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::rng::Rng;
use crate::world::World;

use super::fault::{Broken, Fault};
use super::memory::{Block, Subject};
use super::store::Exchange;

/// How much a run asks of the allocator under test. Whatever keeps to these limits has to be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest block.
    pub largest: usize,
    /// The largest alignment, a power of two.
    pub align: usize,
    /// How many bytes are lent at a time, apart from the properties of exhaustion.
    pub held: usize,
    /// How many blocks are lent at a time.
    pub blocks: usize,
    /// How many steps of random work each thread does.
    pub rounds: usize,
    /// More bytes than the allocator can ever lend at a time. With `None` there is no end in sight, and the properties
    /// of exhaustion are left out.
    pub memory: Option<usize>,
}

impl Limits {
    /// For the allocator of a process, whose memory does not end.
    pub const HOSTED: Self =
        Self { largest: 4 << 20, align: 1 << 20, held: 64 << 20, blocks: 4096, rounds: 20_000, memory: None };

    /// For an allocator over that many bytes, 16 KiB at least, all of which will be used.
    pub const fn of_memory(bytes: usize) -> Self {
        assert!(bytes >= 16 << 10, "too little memory for the kit");
        let eighth = 1 << (bytes / 8).ilog2();
        Self {
            largest: if eighth < 4 << 20 { eighth } else { 4 << 20 },
            align: if eighth < 1 << 20 { eighth / 2 } else { 1 << 20 },
            held: bytes / 4,
            blocks: if bytes < 4 << 20 { bytes / 1024 } else { 4096 },
            rounds: 5_000,
            memory: Some(bytes),
        }
    }
}

/// Who does the work of the properties about threads.
pub trait Crew: Sync {
    /// How many there are.
    fn size(&self) -> usize;

    /// Lets each do `job` at the same time, with its number, and returns when all are done.
    fn on_all(&self, job: &(dyn Fn(usize) + Sync));
}

/// Nobody but the caller.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Crew for Alone {
    fn size(&self) -> usize {
        1
    }

    fn on_all(&self, job: &(dyn Fn(usize) + Sync)) {
        job(0);
    }
}

/// That many threads, new ones for each job: what ended threads leave behind is part of what is tested.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub usize);

#[cfg(feature = "std")]
impl Crew for Threads {
    fn size(&self) -> usize {
        self.0
    }

    fn on_all(&self, job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for number in 0..self.0 {
                scope.spawn(move || job(number));
            }
        });
    }
}

/// The CPUs of a [`World`].
#[derive(Clone, Copy, Debug)]
pub struct Cpus<'a, W>(pub &'a W);

impl<W: World> Crew for Cpus<'_, W> {
    fn size(&self) -> usize {
        self.0.cpus() as usize
    }

    fn on_all(&self, job: &(dyn Fn(usize) + Sync)) {
        self.0.on_all(&|cpu| job(cpu as usize));
    }
}

/// The most members of a crew that take part.
pub(super) const MAX_CREW: usize = 32;

/// What a property has at hand.
pub(super) struct Kit<'k> {
    subject: &'k dyn Subject,
    limits: Limits,
    crew: &'k dyn Crew,
    numbers: AtomicUsize,
}

impl<'k> Kit<'k> {
    pub(super) fn new(subject: &'k dyn Subject, limits: Limits, crew: &'k dyn Crew) -> Self {
        assert!(limits.align.is_power_of_two() && limits.largest >= 1024 && limits.blocks >= 4, "{limits:?}");
        Self { subject, limits, crew, numbers: AtomicUsize::new(0) }
    }

    pub(super) fn subject(&self) -> &'k dyn Subject {
        self.subject
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A number that nobody had before.
    pub(super) fn next_number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// How many members of the crew take part.
    pub(super) fn workers(&self) -> usize {
        self.crew.size().min(MAX_CREW)
    }

    /// Lets all of them work at once; the first fault that one of them reports is the answer.
    pub(super) fn on_all(&self, job: impl Fn(usize) -> Result<(), Broken> + Sync) -> Result<(), Broken> {
        let fault = Exchange::new(None);
        self.crew.on_all(&|number| {
            if number < self.workers()
                && let Err(broken) = job(number)
            {
                fault.swap(Some(broken));
            }
        });
        fault.swap(None).map_or(Ok(()), Err)
    }

    /// Asks for a block that is there.
    pub(super) fn lend(&self, layout: Layout) -> Result<Block<'k>, Broken> {
        Block::ask(self.subject, layout, false)?.ok_or(Fault::Refused.at("asked for", layout))
    }

    /// Asks for a zeroed block that is there, and finds it zeroed.
    pub(super) fn lend_zeroed(&self, layout: Layout) -> Result<Block<'k>, Broken> {
        let block = Block::ask(self.subject, layout, true)?.ok_or(Fault::Refused.at("asked for, zeroed", layout))?;
        block.verify_zero(0..block.len(), "lent as zeroed")?;
        Ok(block)
    }

    /// Resizes a block where there is memory for it; what it held is still there.
    pub(super) fn resize(&self, block: Block<'k>, layout: Layout) -> Result<Block<'k>, Broken> {
        let kept = block.layout().size().min(layout.size());
        let resized = block.resize(layout, false)?.map_err(|_| Fault::Refused.at("to be resized", layout))?;
        resized.verify(0..kept, "resized")?;
        Ok(resized)
    }

    /// Grows a block as zeroed, where there is memory for it.
    pub(super) fn resize_zeroed(&self, block: Block<'k>, layout: Layout) -> Result<Block<'k>, Broken> {
        let (kept, had) = (block.layout().size(), block.len());
        let resized = block.resize(layout, true)?.map_err(|_| Fault::Refused.at("to be grown, zeroed", layout))?;
        resized.verify(0..kept, "grown, zeroed")?;
        // Excess that the block had before may keep what was in it.
        resized.verify_zero(had.min(resized.len())..resized.len(), "grown, zeroed")?;
        Ok(resized)
    }

    /// Whether the limits allow such a block.
    pub(super) fn allows(&self, layout: Layout) -> bool {
        layout.size() <= self.limits.largest && layout.align() <= self.limits.align && self.count(layout) > 0
    }

    /// How many such blocks may be lent at a time. An allocator that knows no alignment needs the alignment's bytes on
    /// top of the block's.
    pub(super) fn count(&self, layout: Layout) -> usize {
        let over = if layout.align() > 16 { layout.align() } else { 0 };
        (self.limits.held / (layout.size() + over).max(16)).min(self.limits.blocks)
    }

    /// A layout by chance: most are small, a few as large as the limits allow, a few aligned beyond what is usual.
    pub(super) fn draw(&self, rng: &mut Rng) -> Layout {
        self.draw_within(rng, self.limits.largest)
    }

    /// As [`draw`](Self::draw), of at most so many bytes, or one.
    pub(super) fn draw_within(&self, rng: &mut Rng, room: usize) -> Layout {
        let limit = if rng.below(32) == 0 { self.limits.largest / 4 } else { 1024.min(self.limits.largest / 16) };
        let limit = limit.min(room).max(1);
        let bits = rng.below(limit.ilog2() as usize + 1);
        let size = (1 << bits) + rng.below(1 << bits);
        let align =
            if rng.below(16) == 0 { rng.below(self.limits.align.ilog2() as usize / 2 + 1) } else { rng.below(5) };
        layout(size.min(limit), 1 << align)
    }
}

impl fmt::Debug for Kit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit").field("limits", &self.limits).field("workers", &self.workers()).finish()
    }
}

/// A layout that the kit made up.
pub(super) fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("the kit's layouts fit into memory")
}

/// All powers of two up to `limit`.
pub(super) fn powers(limit: usize) -> impl Iterator<Item = usize> {
    (0..=limit.ilog2()).map(|bits| 1 << bits)
}

/// Sizes on both sides of every border that size classes are likely to have: all small ones, then eight borders a
/// doubling, then two.
pub(super) fn sizes(limit: usize) -> impl Iterator<Item = usize> {
    const ALL: usize = 128;
    const MANY: usize = 64 << 10;
    let borders = powers(limit).filter(|&power| power >= ALL).flat_map(|power| {
        let steps = if power < MANY { 8 } else { 2 };
        (0..steps).map(move |step| power + power / steps * step)
    });
    let around = borders.flat_map(|border| [border - 1, border, border + 1]);
    (1..ALL - 1).chain(around).chain([limit]).filter(move |&size| size <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_stand_on_both_sides_of_every_class() {
        let has = |wanted: usize| sizes(1 << 20).any(|size| size == wanted);
        for class in [8, 40, 64, 80, 1024, 1280, 28 << 10, 32 << 10] {
            assert!(has(class) && has(class + 1) && has(class - 1), "{class}");
        }
        assert!(has(1) && has(1 << 20) && !has(0) && !has((1 << 20) + 1));
    }

    #[test]
    fn small_memory_has_small_limits() {
        let limits = Limits::of_memory(64 << 10);
        assert_eq!((limits.largest, limits.align, limits.blocks), (8 << 10, 4 << 10, 64));
    }
}
