//! Threads as CPUs.
//!
//! A thread gets a number when it first allocates and gives it back when it ends; the number is its CPU's. What the
//! fast path needs are words of thread-local storage without destructors: the number, and the CPU's two desks, which
//! say by [`Desk::CLAIMED`] that the allocator has claimed them. No other thread touches these words; a signal handler
//! may, and finds the claim if it interrupted the allocator.
//!
//! ```text
//!   word      the thread's number; CHANGING: it is being given another; STRANGER: it has none
//!   desks     what can be taken now; EMPTY for a thread that has no number
//!   homes     what lies on the desks when nobody has claimed the CPU
//! ```
//!
//! What lies on the desks belongs to the number: it goes before another thread can have the number, and is put aside
//! while the thread sits on another.
//!
//! Numbers below [`SEATS`] are handed out lowest first, so that few threads use few pools. A thread that finds them all
//! taken, or that allocates after its end has been announced, gets a number above all seats: no instance has a pool for
//! it, and its requests go to the trees.
#![allow(unsafe_code, reason = "the promises of Platform")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

use pagemill::{Config, Context, CpuId, Desk, Frames, Platform};

use crate::ending;
use crate::errno::keeping_errno;
use crate::here::{self, Here};
use crate::lock::HostedLock;
use crate::members::{self, Member};
use crate::numbers::{self, SEATS};

/// The thread has no number.
pub(crate) const STRANGER: u32 = u32::MAX;
/// The thread is being given a number, or another one. All numbers are below.
const CHANGING: u32 = u32::MAX - 1;

/// On both desks of a thread that has no number.
const NOTHING: [Desk; Desk::COUNT] = [Desk::EMPTY; Desk::COUNT];

impl Here {
    /// Whether the allocator has claimed a desk of this thread, or both.
    #[inline(always)]
    fn is_claimed(&self) -> bool {
        self.desks.iter().any(|desk| desk.load(Ordering::Relaxed) == Desk::CLAIMED.as_ptr())
    }

    /// Claims both desks.
    #[inline(always)]
    fn claim(&self) {
        self.desks.iter().for_each(|desk| desk.store(Desk::CLAIMED.as_ptr(), Ordering::Relaxed));
        compiler_fence(Ordering::SeqCst);
    }

    /// Ends that.
    #[inline(always)]
    fn release(&self) {
        compiler_fence(Ordering::SeqCst);
        for (desk, home) in self.desks.iter().zip(&self.homes) {
            desk.store(home.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Makes the thread, which has claimed nothing, CPU `number`, on whose desks lie `homes`. Answers what lay there.
    ///
    /// The thread must have both numbers to itself until this is done: a handler that interrupts it cannot enter by
    /// number, but may take either desk, old or new.
    fn change(&self, number: u32, homes: [Desk; Desk::COUNT]) -> [Desk; Desk::COUNT] {
        self.word.store(CHANGING, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: desks are all that is ever kept there, from the first on.
        let before = self.homes.each_ref().map(|home| unsafe { Desk::from_ptr(home.load(Ordering::Relaxed)) });
        for ((desk, home), next) in self.desks.iter().zip(&self.homes).zip(homes) {
            home.store(next.as_ptr(), Ordering::Relaxed);
            desk.store(next.as_ptr(), Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        self.word.store(number, Ordering::Relaxed);
        before
    }
}

/// The calling thread is to its signal handlers as if they had interrupted the allocator: they wait for no lock of it.
#[cfg(feature = "profile")]
pub(crate) struct Claimed {
    is_mine: bool,
}

/// For who holds a lock that the allocator waits for with its own in hand.
#[cfg(feature = "profile")]
pub(crate) fn claim() -> Claimed {
    let is_mine = here::with(|here| {
        !here.is_claimed() && {
            here.claim();
            true
        }
    });
    Claimed { is_mine }
}

#[cfg(feature = "profile")]
impl Drop for Claimed {
    fn drop(&mut self) {
        if self.is_mine {
            here::with(Here::release);
        }
    }
}

/// Whether what the calling thread has for itself is as it should be. In a library that is loaded with a program it is
/// not before the loader has linked all of them, though the loader may call functions of the program before that.
#[doc(hidden)]
pub fn thread_is_ready() -> bool {
    here::with(|here| !here.desks[0].load(Ordering::Relaxed).is_null())
}

/// A process as pagemill's core sees it.
///
/// **Desks.** A thread that calls [`Frames::settle`] finds that instance's pool by one word of its own, until it ends
/// or becomes another CPU; without, the instance finds it by the thread's number in the slow path, some nanoseconds
/// later.
///
/// **Signals.** A handler that interrupted ordinary code may allocate and free. One that interrupted the allocator
/// finds its CPU claimed: it gets frames only if no lock stands in the way, and its frees are left to the lock's
/// holder. Both hold if the handler says what it is by [`Hosted::in_signal_handler`].
#[derive(Clone, Copy, Debug)]
pub struct Hosted;

// SAFETY: code never changes its thread, and a thread's number is its own: seats are taken and given back by atomic
// exchange on one bit, numbers above them are never given twice. The desks are the thread's own, and what lies there
// goes before the number does; no handler changes the number. Only what interrupts the thread, a signal handler, can
// come between `enter` and `leave`, or between taking a desk and laying it back, or into the middle of one of them; it
// ends before the thread goes on, and has then laid back what it found. So each desk is either `CLAIMED` for it, or
// nobody else's meanwhile; and as `enter` looks at both before it claims the first and `leave` gives back one after the
// other, whoever interrupts these finds both free only where the thread has neither. The fences keep the compiler from
// moving work on the claimed state outside. The context is `Task` outside handlers, where a thread may wait.
unsafe impl Platform for Hosted {
    type Lock = HostedLock;

    #[inline(always)]
    fn enter() -> Option<CpuId> {
        here::with(|here| {
            let cpu = here.word.load(Ordering::Relaxed);
            if cpu >= CHANGING {
                return enter_anew(here);
            }
            if here.is_claimed() {
                return None;
            }
            here.claim();
            Some(CpuId::new(cpu))
        })
    }

    #[inline(always)]
    fn leave(_: CpuId) {
        here::with(Here::release);
    }

    #[inline(always)]
    fn prefetch(address: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            // SAFETY: a hint, which does nothing to memory and never faults.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::without_provenance(address)) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }

    const SLOW_INDEXES: bool = cfg!(target_arch = "x86_64");

    const HAS_DESKS: bool = true;

    // A thread is the same CPU before and after a handler.
    const DESKS_STAY: bool = true;

    #[inline(always)]
    fn claim_desk<const WHICH: usize>() {
        here::lay::<WHICH>(Desk::CLAIMED.as_ptr());
        compiler_fence(Ordering::SeqCst);
    }

    #[inline(always)]
    fn take_desk<const WHICH: usize>() -> Desk {
        let desk = Self::look_at_desk::<WHICH>();
        Self::claim_desk::<WHICH>();
        desk
    }

    #[inline(always)]
    fn look_at_desk<const WHICH: usize>() -> Desk {
        // SAFETY: desks are all that is ever laid there, from the first on.
        unsafe { Desk::from_ptr(here::desk::<WHICH>()) }
    }

    #[inline(always)]
    unsafe fn put_desk<const WHICH: usize>(desk: Desk) {
        compiler_fence(Ordering::SeqCst);
        here::lay::<WHICH>(desk.as_ptr());
    }

    unsafe fn set_desk<const WHICH: usize>(desk: Desk) {
        here::with(|here| here.homes[WHICH].store(desk.as_ptr(), Ordering::Relaxed));
    }

    fn context() -> Context {
        // Who asks has claimed nothing: a claim is that of somebody whom a handler has interrupted, and may never end
        // if the handler waits for it.
        let interrupts = here::with(|here| here.handlers.load(Ordering::Relaxed) != 0 || here.is_claimed());
        if interrupts { Context::Nmi } else { Context::Task }
    }
}

/// `enter` on a thread that has no number.
#[cold]
fn enter_anew(here: &Here) -> Option<CpuId> {
    // Whoever interrupted the change of a number tries without; so does a handler on a thread that has none, since
    // joining is not for handlers.
    if here.word.load(Ordering::Relaxed) != STRANGER || Hosted::context() != Context::Task {
        return None;
    }
    let mut number = STRANGER;
    // What the thread library asks for meanwhile is served without a claim, perhaps with a lock in hand: a handler
    // would see nothing of that, and might wait for who waits for this thread.
    without_signals(|| {
        here.word.store(CHANGING, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        number = join(here);
        here.word.store(number, Ordering::Relaxed);
        members::all().for_each(|instance| instance.settle());
    });
    here.claim();
    Some(CpuId::new(number))
}

/// A number for this thread, and the promise to give it back.
fn join(here: &Here) -> u32 {
    if here.ended.load(Ordering::Relaxed) {
        return numbers::without_seat();
    }
    let Some(number) = numbers::take_lowest() else { return numbers::without_seat() };
    if !members::prepare(number) || !ending::announce() {
        numbers::give(number);
        return numbers::without_seat();
    }
    here.own.store(number, Ordering::Relaxed);
    number
}

impl Here {
    /// Gives back what the thread's pools hold, and its number. It gets another one when it needs one.
    ///
    /// A thread that sits on another number, or that ends inside the allocator, keeps it for ever: it will be that CPU
    /// again, or nobody knows what state its pools are in.
    fn leave(&self) {
        let number = self.own.load(Ordering::Relaxed);
        if number == STRANGER || self.is_claimed() || self.word.load(Ordering::Relaxed) != number {
            return;
        }
        // A handler between the two would leave something in pools that nobody looks at any more.
        without_signals(|| {
            members::all().for_each(|instance| instance.give_back());
            self.own.store(STRANGER, Ordering::Relaxed);
            self.change(STRANGER, NOTHING);
        });
        numbers::give(number);
    }
}

/// Runs `work` with no signal handler in the middle of it.
pub(crate) fn without_signals(work: impl FnOnce()) {
    keeping_errno(|| {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the call writes the set it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: the first set is written, the second is; both outlive the call.
        let masked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        work();
        if masked == 0 {
            // SAFETY: written by the call above.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
        }
    });
}

/// The calling thread ends. What runs after this, destructors of other keys, does without pools: nobody would empty
/// them.
pub(crate) fn end() {
    here::with(|here| {
        here.ended.store(true, Ordering::Relaxed);
        here.leave();
    });
}

/// Gives the calling thread's number back, if it has one. It gets one again when it needs one.
pub(crate) fn give_up_number() {
    // What a handler interrupted may have the number in its registers.
    let in_handler = here::with(|here| here.handlers.load(Ordering::Relaxed) != 0);
    assert!(!in_handler, "a signal handler cannot become another CPU");
    here::with(Here::leave);
}

/// Whether the thread is in the middle of [`supplying`].
pub(crate) fn is_supplying() -> bool {
    here::with(|here| here.supplying.load(Ordering::Relaxed))
}

/// Says that the thread is in the middle of [`supplying`], as it were, or is not any more.
pub(crate) fn set_supplying(is_supplying: bool) {
    compiler_fence(Ordering::SeqCst);
    here::with(|here| here.supplying.store(is_supplying, Ordering::Relaxed));
    compiler_fence(Ordering::SeqCst);
}

/// The number that the thread gives back when it ends, or what is no number.
pub(crate) fn own_number() -> u32 {
    here::with(|here| here.own.load(Ordering::Relaxed))
}

/// Notes the CPU that the thread has claimed while it forks; answers the one that was noted.
pub(crate) fn set_forking(cpu: Option<CpuId>) -> Option<CpuId> {
    let number = cpu.map_or(STRANGER, |cpu| cpu.index() as u32);
    let before = here::with(|here| here.forking.swap(number, Ordering::Relaxed));
    (before != STRANGER).then(|| CpuId::new(before))
}

/// Runs `work`, which gets memory from the system; `None` if the thread is at that already, so that this is a signal
/// handler in the middle of it.
pub(crate) fn supplying<R>(work: impl FnOnce() -> R) -> Option<R> {
    here::with(|here| {
        if here.supplying.load(Ordering::Relaxed) {
            return None;
        }
        here.supplying.store(true, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        let result = work();
        compiler_fence(Ordering::SeqCst);
        here.supplying.store(false, Ordering::Relaxed);
        Some(result)
    })
}

impl Hosted {
    /// Makes threads that end give this instance the frames back that lie in their pools. Without it they stay there
    /// until another thread has the same number, and are its to lend.
    ///
    /// It happens after the destructors of the thread's locals: `JoinHandle::join` waits for that, the end of a
    /// `std::thread::scope` alone does not.
    pub fn announce<C: Config + Sync>(instance: &'static Frames<'static, Hosted, C>) {
        Box::leak(Box::new(Member::new(instance))).join();
    }

    /// The processor time that the calling thread has had, in nanoseconds.
    pub fn thread_ns() -> u64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes the structure it is given, which outlives it.
        let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        debug_assert_eq!(told, 0, "Linux has this clock");
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    /// Runs `work` as what it is: part of a signal handler, which may have interrupted anything. Requests inside never
    /// wait for a lock, and may use the reserve; a thread that has no number yet does without.
    pub fn in_signal_handler<R>(work: impl FnOnce() -> R) -> R {
        struct Done;
        impl Drop for Done {
            fn drop(&mut self) {
                here::with(|here| here.handlers.store(here.handlers.load(Ordering::Relaxed) - 1, Ordering::Relaxed));
            }
        }
        here::with(|here| here.handlers.store(here.handlers.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
        let _done = Done;
        work()
    }
}

/// The number of a CPU, kept for whoever sits on it; free for all threads again when dropped.
#[derive(Debug)]
pub struct Seat {
    number: u32,
    occupied: AtomicBool,
}

impl Seat {
    /// Keeps number `cpu`, or `None` if a thread has it.
    pub fn keep(cpu: CpuId) -> Option<Self> {
        let number = u32::try_from(cpu.index()).ok().filter(|&number| number < SEATS)?;
        numbers::take(number).then(|| Self { number, occupied: AtomicBool::new(false) })
    }

    /// Makes the calling thread this CPU until the answer is dropped, or `None` if a thread is, or if the calling one
    /// sits elsewhere. What lay in the CPU's pools when the last one got up is there for the next.
    ///
    /// The desks are empty at first, so a thread that wants an instance to be fastest calls [`Frames::settle`] when it
    /// sits. What lay there before comes back afterwards.
    ///
    /// # Panics
    /// Inside the allocator, and in a signal handler.
    pub fn sit(&self) -> Option<Sitting<'_>> {
        here::with(|here| {
            let before = here.word.load(Ordering::Relaxed);
            let inside = here.is_claimed() || before == CHANGING || Hosted::context() != Context::Task;
            assert!(!inside, "a thread inside the allocator cannot become another CPU");
            // One seat at a time: seats that are left in another order would leave a thread where another one sits.
            // Acquire: pairs with the Release in `Sitting::drop`; the pools are seen as the last one left them.
            if here.sitting.load(Ordering::Relaxed) || self.occupied.swap(true, Ordering::Acquire) {
                return None;
            }
            if !members::prepare(self.number) {
                self.occupied.store(false, Ordering::Release);
                return None;
            }
            here.sitting.store(true, Ordering::Relaxed);
            let homes = here.change(self.number, NOTHING);
            Some(Sitting { seat: self, before, homes, thread: PhantomData })
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Whoever forgot that they sit here does so for ever.
        if !*self.occupied.get_mut() {
            numbers::give(self.number);
        }
    }
}

/// The calling thread is a certain CPU.
#[derive(Debug)]
pub struct Sitting<'a> {
    seat: &'a Seat,
    /// What the thread was before: its own number, which it keeps meanwhile, or none.
    before: u32,
    /// What lay on its desks.
    homes: [Desk; Desk::COUNT],
    /// Not for another thread.
    thread: PhantomData<*mut ()>,
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        here::with(|here| {
            // Inside the allocator its pools are at work: nobody else may have them.
            if here.is_claimed() {
                return;
            }
            here.change(self.before, self.homes);
            here.sitting.store(false, Ordering::Relaxed);
            // Release: pairs with the Acquire in `Seat::sit`. What lay on the desks has gone before.
            self.seat.occupied.store(false, Ordering::Release);
        });
    }
}

#[cfg(test)]
mod tests;
