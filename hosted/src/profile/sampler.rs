//! Who is told of samples, and what he makes of it.
//!
//! A sample stands for as many objects of its size as it takes for one to be a sample: `1 / (1 - exp(-size / mean))`.
//! What takes its place when it is freed is a sample too, so whoever asks for and frees one object over and over, and
//! meets a mark, would be asked for his stack each time. That is as it should be on average, since he is seldom met,
//! and no comfort to him. So marks that are passed on too fast are let go, by chance, and those that are left have as
//! much more weight: nothing of what the numbers tell changes in the mean.

use lock_api::Mutex;
use pagemill::{Sample, SampleHook};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};

use super::capture::Stack;
use super::samples::{Live, Samples};
use super::stacks::Stacks;
use crate::excess::now_ms;
use crate::here;
use crate::lock::HostedLock;
use crate::tls;

/// Marks that may be passed on in a second, with gaps of [`USUAL_MEAN`], and at once.
const PASSED_A_SECOND: f64 = 4000.0;
const PASSED_AT_ONCE: f64 = 500.0;
/// The mean gap that is meant for long runs.
const USUAL_MEAN: usize = 512 << 10;
/// Of so many marks that are too many, one is passed on, for all: as a power of 2.
const ROULETTE_LOG2: u8 = 3;
/// The most that one mark may stand for.
const MOST_SHIFT: u8 = 30;

/// What is known of samples.
pub(super) struct State {
    samples: Samples,
    pub(super) stacks: Stacks,
    /// The mean gap, 0 if no more samples are wanted, and the last that was none.
    pub(super) mean: usize,
    pub(super) period: usize,
    /// Samples that there was no memory to note.
    pub(super) lost: u64,
    /// Marks that may be passed on now, and when that was last seen to.
    credit: f64,
    seen_ms: u64,
    random: u64,
}

static STATE: Mutex<HostedLock, State> = Mutex::new(State {
    samples: Samples::new(),
    stacks: Stacks::new(),
    mean: 0,
    period: 0,
    lost: 0,
    credit: 0.0,
    seen_ms: 0,
    random: 0x9e37_79b9_7f4a_7c15,
});

/// Frees in the middle of the profiler, in a signal handler: they wait here for the next who has the lock. 0 is none.
static LATE: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
static ANY_LATE: AtomicBool = AtomicBool::new(false);

/// Samples of large objects: with none, a free of one looks no further.
static LARGE: AtomicUsize = AtomicUsize::new(0);
/// What is larger than slots are.
const MOST_SMALL_BYTES: usize = 32 << 10;

pub(super) static HOOK: SampleHook = SampleHook { lent, freed, freed_large };

/// The calling thread is inside the profiler, and is not profiled meanwhile.
pub(super) struct Inside {
    was: bool,
}

impl Inside {
    pub(super) fn enter() -> Self {
        let was = here::with(|here| here.profiling.swap(true, Ordering::Relaxed));
        compiler_fence(Ordering::SeqCst);
        Self { was }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        here::with(|here| here.profiling.store(self.was, Ordering::Relaxed));
    }
}

/// Runs `work` on what is known.
///
/// Whoever has the lock, here and below, has his CPU claimed. Others wait for the lock with those of the heap in hand;
/// if a handler of his waited for one of these, nobody would go on.
pub(super) fn with<R>(work: impl FnOnce(&mut State) -> R) -> R {
    let _inside = Inside::enter();
    let _claimed = tls::claim();
    let mut state = STATE.lock();
    state.take_late();
    work(&mut state)
}

/// Runs `work` on what is known if the calling thread is not in the middle of that already.
fn with_unless_inside<R>(work: impl FnOnce(&mut State) -> R) -> Option<R> {
    let inside = Inside::enter();
    let _claimed = tls::claim();
    if !inside.was {
        let mut state = STATE.lock();
        state.take_late();
        return Some(work(&mut state));
    }
    // It may hold the lock itself.
    let mut state = STATE.try_lock()?;
    Some(work(&mut state))
}

fn lent(sample: Sample) -> bool {
    let inside = Inside::enter();
    if inside.was {
        return false;
    }
    let stack = Stack::here();
    let _claimed = tls::claim();
    let mut state = STATE.lock();
    state.take_late();
    let noted = state.note(sample, &stack);
    // Before the object can be freed.
    if noted && sample.bytes > MOST_SMALL_BYTES {
        LARGE.fetch_add(1, Ordering::Relaxed);
    }
    noted
}

fn freed(address: usize) -> Option<u8> {
    match with_unless_inside(|state| state.forget(address).and_then(|live| state.pass_on(live))) {
        Some(passed_on) => passed_on,
        None => {
            be_late(address);
            None
        }
    }
}

fn freed_large(address: usize) {
    if LARGE.load(Ordering::Relaxed) == 0 {
        return;
    }
    match with_unless_inside(|state| state.forget(address).is_some()) {
        Some(true) => {
            LARGE.fetch_sub(1, Ordering::Relaxed);
        }
        Some(false) => {}
        // Whether it was one is not known; then looking goes on for ever.
        None => be_late(address),
    }
}

/// Leaves a free for later. Where there is no room the sample stays, until another one has its address.
fn be_late(address: usize) {
    // Release, here and there: who sees the flag finds the address, or the one who takes it sets the flag again.
    let free = |place: &&AtomicUsize| place.compare_exchange(0, address, Ordering::Release, Ordering::Relaxed).is_ok();
    if LATE.iter().find(free).is_some() {
        ANY_LATE.store(true, Ordering::Release);
    }
}

impl State {
    fn take_late(&mut self) {
        if !ANY_LATE.load(Ordering::Acquire) {
            return;
        }
        ANY_LATE.store(false, Ordering::Release);
        for place in &LATE {
            let address = place.swap(0, Ordering::Acquire);
            if address != 0 {
                self.forget(address);
            }
        }
    }

    fn note(&mut self, sample: Sample, stack: &Stack) -> bool {
        if self.mean == 0 {
            return false;
        }
        let bytes = sample.bytes as f64;
        let likelihood = likelihood(bytes / self.mean as f64);
        let objects = f64::from(1u32 << sample.passed_on.min(MOST_SHIFT)) / likelihood;
        let live =
            Live { stack: self.stacks.find(stack.frames()), shift: sample.passed_on, objects, bytes: objects * bytes };
        let noted = if live.stack == 0 { Err(()) } else { self.samples.insert(sample.address, live) };
        let Ok(before) = noted else {
            self.lost += 1;
            return false;
        };
        if let Some(before) = before {
            self.stacks.freed(before.stack, before.objects, before.bytes);
        }
        self.stacks.lent(live.stack, live.objects, live.bytes);
        true
    }

    fn forget(&mut self, address: usize) -> Option<Live> {
        let live = self.samples.remove(address)?;
        self.stacks.freed(live.stack, live.objects, live.bytes);
        Some(live)
    }

    /// What the next object in the place of this one should weigh, if it shall be a sample.
    fn pass_on(&mut self, live: Live) -> Option<u8> {
        if self.mean == 0 {
            return None;
        }
        self.earn();
        if self.credit >= 1.0 {
            self.credit -= 1.0;
            return Some(live.shift);
        }
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let wins = self.random >> (u64::BITS - u32::from(ROULETTE_LOG2)) == 0;
        (wins && live.shift + ROULETTE_LOG2 <= MOST_SHIFT).then_some(live.shift + ROULETTE_LOG2)
    }

    /// Adds what may be passed on by now.
    fn earn(&mut self) {
        let now = now_ms();
        let seconds = now.saturating_sub(self.seen_ms) as f64 / 1000.0;
        self.seen_ms = now;
        // Who wants more samples wants them at their price.
        let price = (USUAL_MEAN as f64 / self.mean as f64).max(1.0).powi(2);
        self.credit = (self.credit + seconds * price * PASSED_A_SECOND).min(price * PASSED_AT_ONCE);
    }

    /// How many samples are lent.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}

/// How likely an object so many means long is a sample: `1 - e^-means`.
///
/// The library's `expm1` would be the only function of `libm` in most programs, which is a third of a MiB to have.
fn likelihood(means: f64) -> f64 {
    // 64 are as good as all there are. Halved until the series is short, and then doubled as often.
    let (mut part, mut halvings) = (means.min(64.0), 0);
    while part > 0.25 {
        part /= 2.0;
        halvings += 1;
    }
    let series = (2..=12).rev().fold(1.0, |rest, n| 1.0 - part / f64::from(n) * rest);
    (0..halvings).fold(part * series, |once, _| once * (2.0 - once))
}

/// Whether the calling thread's fork has the lock, and whether it was inside before.
static FORKING: AtomicBool = AtomicBool::new(false);
static WAS_INSIDE: AtomicBool = AtomicBool::new(false);

/// Takes the lock before the process is copied, unless the caller is a handler that interrupted who has it on its
/// thread.
pub(crate) fn before_fork() {
    // It stays inside until after the fork: a handler between must not wait for the lock.
    let inside = Inside::enter();
    let held = if inside.was { STATE.try_lock() } else { Some(STATE.lock()) };
    if held.map(std::mem::forget).is_some() {
        WAS_INSIDE.store(inside.was, Ordering::Relaxed);
        FORKING.store(true, Ordering::Relaxed);
        std::mem::forget(inside);
    }
}

/// Gives it back, in the original or in the copy. Called once after each [`before_fork`].
#[allow(unsafe_code, reason = "a lock that is held from one call to another")]
pub(crate) fn after_fork() {
    if FORKING.swap(false, Ordering::Relaxed) {
        // SAFETY: locked by `before_fork` on this thread, and given back once.
        unsafe { STATE.force_unlock() };
        drop(Inside { was: WAS_INSIDE.load(Ordering::Relaxed) });
    }
}

#[cfg(test)]
mod tests {
    use super::likelihood;

    #[test]
    fn likelihoods_are_those_of_the_library() {
        for means in [1e-9, 3e-5, 0.01, 0.25, 0.2500001, 0.5, 1.0, 2.7, 10.0, 40.0, 1e6] {
            let (found, expected) = (likelihood(means), -(-means).exp_m1());
            assert!((found - expected).abs() <= 1e-12 * expected, "{means}: {found}, {expected}");
        }
    }
}
