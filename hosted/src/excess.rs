//! Memory that a process has and does not use: how much of it there may be, and how what is more goes back.
//!
//! Free frames that somebody has had are *dirty*: there are pages behind them. There may be as many as a share of what
//! is in use, an eighth unless `dirty_share` says otherwise, or [`LEAST_BYTES`]; that is looked at whenever frames of a
//! slab or a large block become free, so a process that frees and then sleeps has given back by then. Huge frames that
//! are free as a whole go first: they are cheap to give and to get back, and are not split.
//!
//! Each page that is used again costs a fault, so sustained giving back is held to [`TOKENS_PER_MS`] by a bucket of
//! tokens, which is full at first, and what was given back and is soon wanted again costs [`REGRET`] times as much. So
//! a process that frees once what it will not need has given it back at once; one that goes up and down keeps more, and
//! what is left goes at the next occasion.
//!
//! No peak is made of what is idle: before more is touched than ever was, kept blocks are taken apart and dirty frames
//! go back. That is outside of the bucket, and all that ever goes back so is a share of the peak, and with time as much
//! as the peak: where it comes and goes, and clean frames are lent rather than dirty ones, it would go on for ever.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use pagemill::{Config, FrameCount, FrameSpan, Frames, Order};

use crate::errno::keeping_errno;
use crate::options::options;
use crate::reserve::{PAGE, Reservation, system_page};
use crate::tls::Hosted;

/// What may always be dirty.
const LEAST_BYTES: usize = 8 << 20;
/// How much more than the excess goes with it: each look for some is a walk through all trees, and each piece a call.
const AT_ONCE_BYTES: usize = LEAST_BYTES / 8;
/// What may be idle at a peak, and how much more is touched before it is looked again.
const LEAST_IDLE_BYTES: usize = 1 << 20;
const LOOK_BYTES: usize = 256 << 10;
/// What goes back for the sake of the peak: a share of it, and so much more each millisecond, some 1 % of one core.
const SPARED_SHARE: usize = 4;
const SPARED_PER_MS: usize = 25_000;
/// Who lets more be dirty than is usual wants it at a peak, too.
const USUAL_PER_MILLE: usize = 125;
/// Bytes that may be given back for each millisecond that goes by: a page that comes and goes takes about 1.4 us, so
/// this is some 3 % of one core.
const TOKENS_PER_MS: i64 = 100_000;
/// The most that may be saved up, and the most that may be owed.
const MOST_TOKENS: i64 = 1 << 30;
/// Tokens that each byte costs that is in use again before so many milliseconds are over.
const REGRET: i64 = 32;
const SOON_MS: i64 = 2000;
/// The blocks that are given back: huge frames first, then what is next best. Smaller ones than the last are used again
/// soon, and each costs a call.
const ORDERS: [u32; 3] = [9, 6, 3];

/// What is known of the excess of one heap.
pub(crate) struct Excess {
    /// Whether somebody is giving back.
    busy: AtomicBool,
    tokens: AtomicI64,
    /// When tokens were last counted.
    counted_ms: AtomicU64,
    /// Nothing is tried before: the system has refused.
    not_before_ms: AtomicU64,
    /// Bytes given back since the start.
    given_back: AtomicUsize,
    /// Bytes that were given back lately and are not in use again, and those that had pages behind them the last time.
    recent: AtomicUsize,
    touched: AtomicUsize,
    /// Bytes that there may be pages behind before it is looked whether some of them are idle.
    peak: AtomicUsize,
    /// Bytes given back for the sake of the peak, and the first time that some might have been.
    spared: AtomicUsize,
    rising_ms: AtomicU64,
    /// Whether nothing is given back.
    forbidden: AtomicBool,
    /// Whether a thread that forks is who seems to be giving back.
    seized: AtomicBool,
}

impl Excess {
    pub(crate) const fn new() -> Self {
        Self {
            busy: AtomicBool::new(false),
            tokens: AtomicI64::new(MOST_TOKENS),
            counted_ms: AtomicU64::new(0),
            not_before_ms: AtomicU64::new(0),
            given_back: AtomicUsize::new(0),
            recent: AtomicUsize::new(0),
            touched: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            spared: AtomicUsize::new(0),
            rising_ms: AtomicU64::new(0),
            forbidden: AtomicBool::new(false),
            seized: AtomicBool::new(false),
        }
    }

    /// Nothing goes back from now on.
    pub(crate) fn forbid(&self) {
        self.forbidden.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_forbidden(&self) -> bool {
        self.forbidden.load(Ordering::Relaxed)
    }

    /// Keeps everybody from giving back while the process is copied, so that the copy misses nothing. For a moment
    /// only: who is at it may be what this has interrupted.
    pub(crate) fn before_fork(&self) {
        let seized = self.seize();
        self.seized.store(seized, Ordering::Relaxed);
    }

    /// Becomes who is giving back; `false` if somebody else is and does not end.
    fn seize(&self) -> bool {
        (0..1000).any(|_| {
            let was_busy = self.busy.swap(true, Ordering::Acquire);
            if was_busy {
                doze();
            }
            !was_busy
        })
    }

    /// Ends that, in the original or in the copy, where nobody else is at it any more.
    pub(crate) fn after_fork(&self, copied: bool) {
        if self.seized.swap(false, Ordering::Relaxed) || copied {
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Bytes given back since the start.
    pub(crate) fn given_back(&self) -> usize {
        self.given_back.load(Ordering::Relaxed)
    }

    /// Gives back what is more than there may be of `memory` bytes that the heap has, as far as there are tokens.
    /// Nothing is held by the caller.
    #[inline]
    pub(crate) fn relieve<C: Config>(
        &self,
        frames: &Frames<'static, Hosted, C>,
        reservation: impl FnOnce() -> Option<Reservation>,
        memory: usize,
    ) {
        let excess = self.excess(frames, memory);
        if excess != 0
            && let Some(reservation) = reservation()
        {
            // Again, since others leave what they free meanwhile to who is at it.
            while self.give_back(frames, reservation, self.excess(frames, memory), memory) {}
        }
    }

    /// Bytes that are dirty and should not be.
    #[inline]
    fn excess<C: Config>(&self, frames: &Frames<'static, Hosted, C>, memory: usize) -> usize {
        let dirty = frames.dirty_frames().get() * PAGE;
        if dirty <= LEAST_BYTES || self.is_forbidden() {
            return 0;
        }
        let live = memory.saturating_sub(frames.free_frames().get() * PAGE);
        dirty.saturating_sub(LEAST_BYTES.max(live / 1000 * options().dirty_per_mille()))
    }

    /// Bytes that there may be pages behind, of `memory`.
    fn touched<C: Config>(frames: &Frames<'static, Hosted, C>, memory: usize) -> usize {
        let clean = frames.free_frames().get().saturating_sub(frames.dirty_frames().get());
        memory.saturating_sub(clean * PAGE)
    }

    /// Answers whether any has been given back.
    #[cold]
    fn give_back<C: Config>(
        &self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Reservation,
        excess: usize,
        memory: usize,
    ) -> bool {
        // Who finds it taken leaves it to the one who has it. Acquire and Release: the tokens are counted by one at a
        // time.
        if excess == 0 || self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        let mut given = 0;
        let now = now_ms();
        if now >= self.not_before_ms.load(Ordering::Relaxed) {
            let tokens = self.count_tokens(now, Self::touched(frames, memory));
            let wanted = (excess + AT_ONCE_BYTES).min(tokens.max(0) as usize);
            for order in ORDERS {
                if wanted > given {
                    given += self.report(frames, reservation, order, (wanted - given) / PAGE);
                }
            }
            self.tokens.store(tokens - given as i64, Ordering::Relaxed);
            self.recent.store(self.recent.load(Ordering::Relaxed) + given, Ordering::Relaxed);
            self.touched.store(Self::touched(frames, memory), Ordering::Relaxed);
        }
        // By an exchange, so that the next look at the excess comes after it: it sees what those had freed who found
        // this taken, or they find it free.
        self.busy.swap(false, Ordering::AcqRel);
        given != 0
    }

    /// Frames are lent, and perhaps more is touched than ever was: then what is idle goes instead. `kept` tells how
    /// many bytes of lent blocks nobody has, and `take_apart` makes them dirty. Nothing is held by the caller.
    #[inline]
    pub(crate) fn rise<C: Config>(
        &self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Reservation,
        memory: usize,
        kept: impl FnOnce() -> usize,
        take_apart: impl FnOnce(),
    ) {
        let touched = Self::touched(frames, memory);
        // Relaxed: who sees an old one looks once more, or later.
        if touched > self.peak.load(Ordering::Relaxed) {
            let dirty = frames.dirty_frames().get() * PAGE;
            self.rise_above(frames, reservation, [touched, memory], dirty, kept(), take_apart);
        }
    }

    #[cold]
    fn rise_above<C: Config>(
        &self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Reservation,
        [touched, memory]: [usize; 2],
        dirty: usize,
        kept: usize,
        take_apart: impl FnOnce(),
    ) {
        let peak = self.peak.load(Ordering::Relaxed);
        let is_idle = dirty + kept >= LEAST_IDLE_BYTES && options().dirty_per_mille() <= USUAL_PER_MILLE;
        let spared = self.spared.load(Ordering::Relaxed);
        let now = now_ms();
        let may_go = now >= self.not_before_ms.load(Ordering::Relaxed) && !self.is_forbidden();
        if !is_idle || !may_go || spared >= self.to_spare(peak, now) {
            self.peak.fetch_max(touched + LOOK_BYTES, Ordering::Relaxed);
            return;
        }
        // As in `give_back`.
        if self.busy.swap(true, Ordering::Acquire) {
            return;
        }
        if kept != 0 {
            take_apart();
        }
        let wanted = touched.saturating_sub(peak) + AT_ONCE_BYTES;
        let mut given = 0;
        for order in ORDERS {
            if wanted > given {
                given += self.report(frames, reservation, order, (wanted - given) / PAGE);
            }
        }
        self.spared.store(spared + given, Ordering::Relaxed);
        if given < wanted {
            // The rest is in small pieces: not again at each slab.
            self.peak.fetch_max(Self::touched(frames, memory) + LOOK_BYTES, Ordering::Relaxed);
        }
        self.busy.swap(false, Ordering::AcqRel);
        // What others have freed meanwhile, as in `relieve`.
        while self.give_back(frames, reservation, self.excess(frames, memory), memory) {}
    }

    /// Bytes that may have gone by `now` for the sake of the peak, of which nothing is spared where it is the first.
    fn to_spare(&self, peak: usize, now: u64) -> usize {
        let first = match self.rising_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => now,
            Err(first) => first,
        };
        let passed = now.saturating_sub(first) as usize;
        (peak / SPARED_SHARE).saturating_add(passed.saturating_mul(SPARED_PER_MS)).min(peak)
    }

    /// Gives everything back that is free, without counting.
    pub(crate) fn give_all<C: Config>(&self, frames: &Frames<'static, Hosted, C>, reservation: Reservation) -> usize {
        if self.is_forbidden() || !self.seize() {
            return 0;
        }
        let given = self.report(frames, reservation, 0, usize::MAX);
        self.busy.store(false, Ordering::Release);
        given
    }

    #[allow(unsafe_code, reason = "the promise that what was discarded is zero")]
    fn report<C: Config>(
        &self,
        frames: &Frames<'static, Hosted, C>,
        reservation: Reservation,
        order: u32,
        most: usize,
    ) -> usize {
        // The system takes whole pages.
        let of_a_page = (system_page() / PAGE).ilog2();
        let [unit, least] = [of_a_page, order.max(of_a_page)].map(|order| Order::new(order).unwrap_or(Order::ZERO));
        let mut refused = false;
        let reporter = |span: FrameSpan| {
            let taken = reservation.discard(span.start().number() * PAGE..span.end().number() * PAGE);
            refused |= !taken;
            taken
        };
        // SAFETY: frame n is the page n pages after the reservation's start, and what the system has taken reads as
        // zeros.
        let reported = unsafe { frames.report_units(unit, least, FrameCount::new(most), reporter) };
        if refused {
            self.not_before_ms.store(now_ms() + 1000, Ordering::Relaxed);
        }
        let bytes = reported.get() * PAGE;
        self.given_back.fetch_add(bytes, Ordering::Relaxed);
        bytes
    }

    /// The tokens that there are now, less the price of what was given back too soon. For whoever is giving back.
    fn count_tokens(&self, now: u64, touched: usize) -> i64 {
        let passed = now.saturating_sub(self.counted_ms.swap(now, Ordering::Relaxed)) as i64;
        let new = passed.saturating_mul(TOKENS_PER_MS);
        let mut tokens = self.tokens.load(Ordering::Relaxed).saturating_add(new);
        let recent = if passed < SOON_MS { self.recent.load(Ordering::Relaxed) } else { 0 };
        let again = touched.saturating_sub(self.touched.load(Ordering::Relaxed)).min(recent);
        self.recent.store(recent - again, Ordering::Relaxed);
        tokens = tokens.saturating_sub(REGRET * again as i64);
        tokens.clamp(-MOST_TOKENS, MOST_TOKENS)
    }
}

/// Sleeps for a moment. The C library's functions for it are where a thread that somebody cancels may end.
#[allow(unsafe_code, reason = "a system call")]
fn doze() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
    let left = std::ptr::null_mut::<libc::timespec>();
    // SAFETY: the kernel reads the time, which outlives the call.
    keeping_errno(|| unsafe { libc::syscall(libc::SYS_nanosleep, std::ptr::from_ref(&time), left) });
}

/// Milliseconds of a clock that is read without a call to the system, and that is a few of them late.
#[allow(unsafe_code, reason = "a call of the C library")]
pub(crate) fn now_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the structure it is given, which outlives it.
    let told = keeping_errno(|| unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) });
    debug_assert_eq!(told, 0, "Linux has this clock");
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_the_sake_of_a_peak_as_much_may_go_with_time_as_it_has() {
        let (excess, peak) = (Excess::new(), 8 << 20);
        assert_eq!(excess.to_spare(0, 1000), 0, "nothing of the first");
        assert_eq!(excess.to_spare(peak, 1000), peak / SPARED_SHARE);
        assert_eq!(excess.to_spare(peak, 1010), peak / SPARED_SHARE + 10 * SPARED_PER_MS);
        assert_eq!(excess.to_spare(peak, 9000), peak);
        assert_eq!(excess.to_spare(peak, 500), peak / SPARED_SHARE, "a clock that is late");
    }
}
