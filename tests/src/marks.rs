//! Which frames a scenario holds: a bit for each, so that a machine can be exhausted without a list of its frames.

use core::sync::atomic::{AtomicU64, Ordering};

use pagemill::{Config, FrameCount, FrameSpan, Frames, Pfn, Platform};

use crate::world::World;

/// The most stretches of frame numbers that are told apart.
const SPANS: usize = 16;
const BITS: usize = u64::BITS as usize;

/// A bit for every frame of some spans, each of which begins with a word of its own.
pub(crate) struct Marks<'a> {
    words: &'a [AtomicU64],
    spans: [Option<FrameSpan>; SPANS],
}

/// The words that the frames of a span take.
fn words_of(span: FrameSpan) -> usize {
    span.count().get().div_ceil(BITS)
}

impl Marks<'_> {
    /// Runs `work` with marks for all frames of `frames`.
    pub(crate) fn with<W: World, C: Config, R>(
        world: &W,
        frames: &Frames<'_, W::P, C>,
        work: impl FnOnce(&Marks<'_>) -> R,
    ) -> R {
        let mut spans = [None; SPANS];
        for (place, info) in frames.zone_infos().enumerate() {
            spans[place] = Some(info.spanned);
        }
        let count = spans.iter().flatten().map(|&span| words_of(span)).sum();
        let (mut work, mut result) = (Some(work), None);
        world.with_words(count, &mut |words| result = work.take().map(|work| work(&Marks { words, spans })));
        result.unwrap_or_else(|| panic!("no room for marks: {count} words"))
    }

    fn spans(&self) -> impl Iterator<Item = (usize, FrameSpan)> {
        self.spans.iter().flatten().scan(0, |word, &span| {
            let first = *word;
            *word += words_of(span);
            Some((first, span))
        })
    }

    /// Marks frames that were lent just now.
    ///
    /// # Panics
    /// If one of them is marked already, which means that it was lent twice, or lies in no zone.
    pub(crate) fn note(&self, start: Pfn, count: usize) {
        for pfn in (start.number()..start.number() + count).map(Pfn::new) {
            let found = self.spans().find(|(_, span)| span.contains(pfn));
            let Some((first, span)) = found else { panic!("{pfn:?} was lent and lies in no zone") };
            let bit = (pfn - span.start()).get();
            // Relaxed: the frame's way from its last owner was ordered by the allocator.
            let before = self.words[first + bit / BITS].fetch_or(1 << (bit % BITS), Ordering::Relaxed);
            assert_eq!(before >> (bit % BITS) & 1, 0, "{pfn:?} was lent twice");
        }
    }

    /// How many frames are marked.
    pub(crate) fn count(&self) -> usize {
        self.words.iter().map(|word| word.load(Ordering::Relaxed).count_ones() as usize).sum()
    }

    /// Hands out the marked frames whose word is `part` of every `parts`, as runs, and unmarks them.
    pub(crate) fn take(&self, part: usize, parts: usize, mut out: impl FnMut(Pfn, usize)) {
        for (first, span) in self.spans() {
            for place in 0..words_of(span) {
                if (first + place) % parts != part {
                    continue;
                }
                let mut mask = self.words[first + place].swap(0, Ordering::Relaxed);
                while mask != 0 {
                    let bit = mask.trailing_zeros() as usize;
                    let run = (mask >> bit).trailing_ones() as usize;
                    out(Pfn::new(span.start().number() + place * BITS + bit), run);
                    mask &= !((!0 >> (BITS - run)) << bit);
                }
            }
        }
    }

    /// Gives all marked frames back.
    pub(crate) fn free_all<P: Platform, C: Config>(&self, frames: &Frames<'_, P, C>) {
        self.free_part(frames, (0, 1), false);
    }

    /// Gives a part of the marked frames back, run by run or frame by frame.
    pub(crate) fn free_part<P: Platform, C: Config>(
        &self,
        frames: &Frames<'_, P, C>,
        (part, parts): (usize, usize),
        singly: bool,
    ) {
        self.take(part, parts, |start, run| {
            if !singly {
                return frames.free_raw(start, FrameCount::new(run)).unwrap();
            }
            for number in start.number()..start.number() + run {
                frames.free_raw(Pfn::new(number), FrameCount::new(1)).unwrap();
            }
        });
    }
}
