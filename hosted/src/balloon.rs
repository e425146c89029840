//! A hard limit on memory: what the process has and shall not use is taken out of the heap, in as few pieces as it lies
//! in.
//!
//! Nothing else needs to know of a limit: a request that finds no frames has its limit found, whichever way it came.

use std::fmt;

use pagemill::{Config, FrameCount, FrameRange, FrameSpan, Frames, Pfn, Request};

use crate::reserve::{PAGE, Reservation};
use crate::tls::Hosted;

/// Frames that are tried together.
const HUGE_FRAMES: usize = (2 << 20) / PAGE;
/// Pieces that may be taken out.
const MOST_PIECES: usize = 256;

/// A limit that cannot be kept, since more than that is in use. Nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitError {
    /// The limit.
    pub limit_bytes: usize,
    /// What is in use, and what cannot be taken out since it lies in too many pieces.
    pub used_bytes: usize,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit_bytes, used_bytes } = self;
        write!(f, "{used_bytes} bytes are in use, more than a limit of {limit_bytes}")
    }
}

impl std::error::Error for LimitError {}

/// Frames that nobody may have.
pub(crate) struct Balloon {
    pieces: [Option<FrameSpan>; MOST_PIECES],
    len: usize,
    frames: usize,
}

impl Balloon {
    pub(crate) const fn new() -> Self {
        Self { pieces: [None; MOST_PIECES], len: 0, frames: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.frames * PAGE
    }

    /// Takes free frames out of the first `memory` until there are `wanted`, and gives what is behind them in
    /// `reservation` back to the system; `false` if there are too few, or in too many pieces. From the end, so that
    /// what is left lies together.
    pub(crate) fn grow<C: Config>(
        &mut self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Option<Reservation>,
        memory: usize,
        wanted: usize,
    ) -> bool {
        let mut end = memory;
        while self.frames < wanted && end > 0 {
            let count = HUGE_FRAMES.min(end).min(wanted - self.frames);
            let range = span(end - count, count).and_then(|span| frames.alloc_at(span).ok());
            end -= if range.is_some() { count } else { end - (end - 1) / HUGE_FRAMES * HUGE_FRAMES };
            if range.is_some_and(|range| !self.note(frames, reservation, range)) {
                return false;
            }
        }
        // What is left is in pieces.
        let mut piece = HUGE_FRAMES / 2;
        while self.frames < wanted {
            piece = piece.min(wanted - self.frames);
            match frames.alloc_range(&Request::frames(FrameCount::new(piece))) {
                Ok(range) => {
                    if !self.note(frames, reservation, range) {
                        return false;
                    }
                }
                Err(_) if piece > 1 => piece /= 2,
                Err(_) => return false,
            }
        }
        true
    }

    /// Notes frames that were taken out; `false` if there is no place for that.
    fn note<C: Config>(
        &mut self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Option<Reservation>,
        range: FrameRange,
    ) -> bool {
        let span = range.span();
        let last = self.len.checked_sub(1).and_then(|last| self.pieces[last]);
        if let Some(joined) = last.filter(|last| span.end() == last.start()).and_then(|last| join(span, last)) {
            self.pieces[self.len - 1] = Some(joined);
        } else if self.len < MOST_PIECES {
            self.pieces[self.len] = Some(span);
            self.len += 1;
        } else {
            let freed = frames.free_range(range);
            debug_assert!(freed.is_ok(), "just taken");
            return false;
        }
        self.frames += range.into_raw().count().get();
        // What is refused is resident, and nobody's.
        if let Some(reservation) = reservation {
            let _ = reservation.discard(span.start().number() * PAGE..span.end().number() * PAGE);
        }
        true
    }

    /// Gives frames back until there are no more than `wanted`.
    pub(crate) fn shrink<C: Config>(&mut self, frames: &Frames<'static, Hosted, C>, wanted: usize) {
        while self.frames > wanted {
            let Some(last) = self.len.checked_sub(1) else { return };
            let Some(span) = self.pieces[last] else { return };
            let left = span.count().get().saturating_sub(self.frames - wanted);
            // The upper part stays, so that what serves again lies together.
            let count = span.count().get() - left;
            let start = span.start().number();
            if let Some(given) = self::span(start, count) {
                let freed = frames.free_range(FrameRange::from_raw(given));
                debug_assert!(freed.is_ok(), "they were taken out and are nobody's");
            }
            self.pieces[last] = self::span(start + count, left);
            self.len = if left > 0 { self.len } else { last };
            self.frames -= count;
        }
    }
}

/// Frames, if there are any.
fn span(start: usize, count: usize) -> Option<FrameSpan> {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).ok().filter(|_| count > 0)
}

/// Frames and those that follow them.
fn join(lower: FrameSpan, upper: FrameSpan) -> Option<FrameSpan> {
    span(lower.start().number(), lower.count().get() + upper.count().get())
}
