//! Samples: a few of the objects that are lent, of which somebody is told, so that he knows who has the memory.
//!
//! ```text
//!   refill   │ r │ r │ r* │ r │ r │    bytes of the batch are counted; the round in which a gap ends gets a mark
//!   request       … ──► r* ──────────► the long way: `lent`; another mark in the shadow
//!   free          r* ────────────────► its mark is not its class's: the long way, `freed`; onto the stack with a mark
//! ```
//!
//! A sample is taken wherever a *gap* ends: gaps are random numbers of bytes, exponentially distributed, so that each
//! byte is as likely as any other to be the last of one. An object of `s` bytes is a sample with the probability
//! `1 - exp(-s / mean)`.
//!
//! **The fast path counts nothing.** What a CPU takes from slabs and depots is counted as it comes into a stack, and
//! the rounds that are to be samples are marked there; a mark looks like the end of the stack, so the fast path goes
//! the long way round by itself. What has been freed into a stack and comes out again is not counted. Instead a sample
//! that is freed leaves its mark on what it becomes, so the next object in its place is a sample as well: by induction
//! each object that is lent is one with the same probability, whatever way it took. What leaves a stack for a depot
//! leaves its mark behind, and is counted again when it comes back. (At [`Hardened`](crate::Hardened) the mark goes to
//! what comes out of the quarantine; while that fills, some are lost.)
//!
//! So who asks for and frees one object over and over is asked for a sample each time, if it is marked. Whoever is told
//! of a free may therefore let the mark go, and gives the others more weight: the number that is handed on with it is
//! for that.

use super::Heap;
use crate::config::Config;
use crate::platform::{Context, Pinned, Platform};
use crate::pool::{Gap, ObjectPool};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU32, AtomicUsize, Ordering, Publish, const_fn};

/// An object that is to be a sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Where it is.
    pub address: usize,
    /// The bytes that were counted for it: those of its size class or of its frames.
    pub bytes: usize,
    /// What [`SampleHook::freed`] said when the sample before it was freed in its place, 0 if there was none.
    pub passed_on: u8,
}

/// Who is told of samples: see [`Heap::set_sample_hook`]. The functions are called with no lock and no pin held.
#[derive(Clone, Copy, Debug)]
pub struct SampleHook {
    /// An object is about to be lent to the caller; answers whether it becomes a sample. In [`Context::Task`] alone. It
    /// may use the heap, and must say no to what it asks for itself.
    pub lent: fn(Sample) -> bool,
    /// A sample that is no large object is being freed. In every context in which objects are freed. A number, below
    /// 64, if the next object in its place shall be a sample too.
    pub freed: fn(usize) -> Option<u8>,
    /// A large object is being freed, which may be a sample. As [`freed`](Self::freed).
    pub freed_large: fn(usize),
}

/// What a heap knows of samples.
pub(super) struct Sampling<'m> {
    hook: Publish<'m, SampleHook>,
    /// The mean gap in bytes, 0 if no samples are wanted.
    mean: AtomicUsize,
    /// How often that was set.
    wish: AtomicU32,
}

impl Sampling<'_> {
    const_fn! {
        pub(super) const fn new() -> Self {
            Self { hook: Publish::empty(), mean: AtomicUsize::new(0), wish: AtomicU32::new(0) }
        }
    }
}

/// An object that was taken for a request.
#[derive(Clone, Copy)]
pub(crate) struct Lent {
    address: usize,
    bytes: usize,
    kind: LentAs,
}

#[derive(Clone, Copy)]
enum LentAs {
    Plain,
    Marked(SizeClass, usize),
    Large,
}

impl Lent {
    /// One that was not marked.
    pub(super) fn plain(address: usize) -> Self {
        Self { address, bytes: 0, kind: LentAs::Plain }
    }

    /// One that was marked, with a token.
    pub(super) fn marked(address: usize, class: SizeClass, token: usize) -> Self {
        Self { address, bytes: class.bytes(), kind: LentAs::Marked(class, token) }
    }

    /// A large one, of which the bytes are yet to be counted.
    pub(crate) fn large(address: usize, bytes: usize) -> Self {
        Self { address, bytes, kind: LentAs::Large }
    }

    pub(super) fn address(self) -> usize {
        self.address
    }
}

/// What was taken off a lent object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    Plain,
    Sample,
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Whether small objects are sampled: where a free can tell.
    const SAMPLED: bool = C::SAMPLED && C::CHECKED;

    /// Has `hook` called with samples, where the [configuration](Config::SAMPLED) allows it. To be set once.
    pub fn set_sample_hook(&self, hook: &'m SampleHook) {
        self.sampling.hook.set(Some(hook));
    }

    /// Takes a sample for each so many bytes that are lent, on average; none if 0. What was a sample stays one until it
    /// is freed. CPUs follow as they next need more: what they have at hand by then is sampled as was wished before, so
    /// the hook may still be told of some after 0.
    ///
    /// Requests of [`Placed`](crate::Placed) handles on several nodes are not sampled, nor those of CPUs that have no
    /// pool.
    pub fn sample_every(&self, mean_bytes: usize) {
        // Relaxed: both are looked at by themselves, and no sample hangs on when.
        self.sampling.mean.store(mean_bytes, Ordering::Relaxed);
        self.sampling.wish.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the bytes that a refill has brought, and marks the rounds in which gaps end.
    pub(super) fn charge_refill(&self, pinned: &Pinned<P>, pool: &ObjectPool, class: SizeClass) {
        if !Self::SAMPLED {
            return;
        }
        let Some(mean) = self.wanted(pinned, &pool.gap) else { return };
        let mut left = pool.stacks.len(class);
        // Rounds, and marks among them, that are lent before the one that is looked at.
        let mut above = 0;
        loop {
            let gap = pool.gap.bytes.get();
            let before = gap / class.bytes();
            if before >= left {
                pool.gap.bytes.set(gap - left * class.bytes());
                return;
            }
            let marked = pool.stacks.mark(class, above + before, 0);
            above += before + 1 + usize::from(marked);
            left -= before + 1;
            pool.gap.draw(mean);
        }
    }

    /// Counts the bytes of a large object; answers whether a gap ends in it.
    #[inline]
    fn charge_large(&self, bytes: usize) -> bool {
        // Most are asked for where nobody wants samples.
        self.sampling.mean.load(Ordering::Relaxed) != 0 && self.charge_large_to_gap(bytes)
    }

    #[inline(never)]
    fn charge_large_to_gap(&self, bytes: usize) -> bool {
        let Some(pinned) = P::pin() else { return false };
        let Some(pool) = self.pools.mine(&pinned) else { return false };
        let Some(mean) = self.wanted(&pinned, &pool.gap) else { return false };
        let gap = pool.gap.bytes.get();
        if gap >= bytes {
            pool.gap.bytes.set(gap - bytes);
            return false;
        }
        pool.gap.draw(mean);
        true
    }

    /// The mean gap, if samples are wanted. A gap that was drawn for another mean is drawn anew.
    fn wanted(&self, pinned: &Pinned<P>, gap: &Gap) -> Option<usize> {
        let mean = self.sampling.mean.load(Ordering::Relaxed);
        if mean == 0 {
            return None;
        }
        let wish = self.sampling.wish.load(Ordering::Relaxed);
        // The first mean may be seen before its wish: there is no random number yet.
        if gap.wish.get() != wish || gap.random.get() == 0 {
            gap.wish.set(wish);
            // Never 0, and different on each CPU.
            gap.random
                .set((pinned.cpu().index() as u64 * 2 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(wish) << 1);
            gap.draw(mean);
        }
        Some(mean)
    }

    /// Tells of an object that was taken for a request, if it shall be a sample; answers its address. Nothing is held.
    #[inline]
    pub(crate) fn noticed(&self, lent: Lent) -> usize {
        let (address, bytes) = (lent.address, lent.bytes);
        if !C::SAMPLED {
            return address;
        }
        let tell = |token: usize| {
            let hook = self.sampling.hook.get().filter(|_| P::context() == Context::Task);
            hook.is_some_and(|hook| (hook.lent)(Sample { address, bytes, passed_on: token as u8 }))
        };
        match lent.kind {
            LentAs::Plain => {}
            LentAs::Marked(class, token) if tell(token) => self.mark_sample(class, address),
            LentAs::Marked(..) => {}
            LentAs::Large => {
                if self.charge_large(bytes) {
                    tell(0);
                }
            }
        }
        address
    }

    /// Takes back an object of the class if it is a sample.
    pub(super) fn free_sample(&self, class: SizeClass, address: usize) -> bool {
        if !Self::SAMPLED || !self.unmark_sample(class, address) {
            return false;
        }
        let token = self.forget(address, Mark::Sample);
        self.free_slow(class, address);
        self.pass_on(class, token);
        true
    }

    /// Takes the mark off a lent object by an exchange, also off a sample.
    pub(crate) fn unmark_any(&self, class: SizeClass, address: usize) -> Option<Mark> {
        if self.unmark_once(class, address) {
            return Some(Mark::Plain);
        }
        (Self::SAMPLED && self.unmark_sample(class, address)).then_some(Mark::Sample)
    }

    /// Puts the mark on again that was taken off.
    pub(crate) fn mark_again(&self, class: SizeClass, address: usize, mark: Mark) {
        match mark {
            Mark::Plain => self.mark(class, address),
            Mark::Sample => self.mark_sample(class, address),
        }
    }

    /// Tells of the free of an object that has had such a mark; answers what is to be passed on. Nobody has its address
    /// meanwhile.
    pub(crate) fn forget(&self, address: usize, mark: Mark) -> Option<u8> {
        if !Self::SAMPLED || mark == Mark::Plain {
            return None;
        }
        self.sampling.hook.get().and_then(|hook| (hook.freed)(address))
    }

    /// Whether somebody wants to know of frees.
    #[inline]
    pub(crate) fn tells_of_frees(&self) -> bool {
        C::SAMPLED && self.sampling.hook.get().is_some()
    }

    /// Tells of the free of a large object, which nobody has any more and nobody else has yet.
    pub(crate) fn forget_large(&self, address: usize) {
        if C::SAMPLED
            && let Some(hook) = self.sampling.hook.get()
        {
            (hook.freed_large)(address);
        }
    }

    /// Makes the next object of the class on this CPU a sample, if there is one at hand: after a free, what was freed.
    pub(crate) fn pass_on(&self, class: SizeClass, token: Option<u8>) {
        if !Self::SAMPLED {
            return;
        }
        let Some(token) = token.filter(|_| self.sampling.mean.load(Ordering::Relaxed) != 0) else { return };
        let Some(pinned) = P::pin() else { return };
        if let Some(pool) = self.pools.mine(&pinned) {
            pool.stacks.mark(class, 0, usize::from(token));
        }
    }
}

/// Digits behind the point of a logarithm.
const DIGITS: u32 = 20;
/// The natural logarithm of 2, with so many.
const LN_2: u64 = 726_817;

impl Gap {
    /// Sets how far it is to the next sample: an exponentially distributed number with this mean.
    fn draw(&self, mean: usize) {
        // Marsaglia's xorshift: never 0 if it was not.
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        // -ln(random / 2^64)
        let nats = (((u64::from(u64::BITS) << DIGITS) - log2(random)) * LN_2) >> DIGITS;
        self.bytes.set(usize::try_from((mean as u128 * u128::from(nats)) >> DIGITS).unwrap_or(usize::MAX));
    }
}

/// The logarithm of a number that is not 0, digit by digit: a number that is squared has twice the logarithm. There may
/// be no floats.
fn log2(number: u64) -> u64 {
    let whole = u64::from(number.ilog2());
    // From 1 to 2, with 63 digits.
    let mut rest = number << number.leading_zeros();
    let mut digits = 0;
    for _ in 0..DIGITS {
        let square = u128::from(rest) * u128::from(rest);
        let carry = (square >> 127) as u64;
        rest = (square >> (63 + carry)) as u64;
        digits = digits << 1 | carry;
    }
    whole << DIGITS | digits
}

#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) mod tests;
