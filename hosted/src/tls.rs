//! Threads as CPUs.
//!
//! A thread gets a number when it first allocates and gives it back when it ends; the number is its CPU's. What the fast
//! path needs of it is one word of thread-local storage: the number, and a bit while the allocator has claimed the CPU.
//! No other thread touches that word; a signal handler may, and finds the bit set if it interrupted the allocator.
//!
//! ```text
//!   number            the thread is that CPU
//!   number | BUSY     and the allocator has claimed it
//!   JOINING, STRANGER ≥ BUSY: it has no number yet
//! ```
//!
//! Numbers below [`SEATS`] are handed out lowest first, so that few threads use few pools. A thread that finds them all
//! taken, or that allocates while it is being torn down, gets a number above all seats: no instance has a pool for it,
//! and its requests go to the trees.
#![allow(unsafe_code, reason = "the promises of Platform")]

use std::cell::Cell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence};
use std::sync::{PoisonError, RwLock};

use pagemill::{Config, Context, CpuId, Frames, Platform};

/// Set while the allocator has claimed the thread's CPU.
const BUSY: u32 = 1 << 31;
/// The thread has no number.
const STRANGER: u32 = u32::MAX;
/// The thread is being given a number.
const JOINING: u32 = u32::MAX - 1;
/// The numbers that can be those of CPUs with pools.
const SEATS: u32 = 4096;

thread_local! {
    static WORD: AtomicU32 = const { AtomicU32::new(STRANGER) };
    /// Signal handlers that are running on the thread and have said so.
    static HANDLERS: AtomicU32 = const { AtomicU32::new(0) };
    /// Apart from the word, because what has a destructor is looked at before each use.
    static LEAVER: Leaver = const { Leaver { number: Cell::new(None) } };
}

/// A process as pagemill's core sees it.
///
/// **Signals.** A handler that interrupted ordinary code may allocate and free. One that interrupted the allocator finds
/// its CPU claimed: it gets frames only if no lock stands in the way, and its frees are left to the lock's holder. Both
/// hold if the handler says what it is by [`Hosted::in_signal_handler`].
#[derive(Clone, Copy, Debug)]
pub struct Hosted;

// SAFETY: code never changes its thread, and a thread's number is its own: seats are taken and given back by atomic
// exchange on one bit, numbers above them are never given twice. The word is the thread's own. Only what interrupts the
// thread, a signal handler, can come between `enter` and `leave`; it ends before the thread goes on, so it either finds
// the bit set and gets `None`, or sets and clears it while nobody else has it. The fences keep the compiler from moving
// work on the claimed state outside. The context is `Task` outside handlers, where a thread may wait.
unsafe impl Platform for Hosted {
    type Lock = HostedLock;

    #[inline(always)]
    fn enter() -> Option<CpuId> {
        WORD.with(|word| {
            // Relaxed, here and below: the word is the thread's own, and a handler on it is no other thread.
            let cpu = word.load(Ordering::Relaxed);
            if cpu >= BUSY {
                return enter_anew(word);
            }
            word.store(cpu | BUSY, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            Some(CpuId::new(cpu))
        })
    }

    #[inline(always)]
    fn leave(cpu: CpuId) {
        compiler_fence(Ordering::SeqCst);
        WORD.with(|word| word.store(cpu.index() as u32, Ordering::Relaxed));
    }

    fn context() -> Context {
        if HANDLERS.with(|count| count.load(Ordering::Relaxed)) == 0 { Context::Task } else { Context::Nmi }
    }
}

/// The lock of hosted arenas: it spins for a while, since nobody holds it for long, and then lets other threads run,
/// since its holder may be waiting for a processor. A lock that sleeps in the kernel would pay a second atomic exchange
/// for every unlock.
pub type HostedLock = spin::mutex::SpinMutex<(), SpinThenYield>;

/// Spins, and lets other threads run now and then.
#[derive(Clone, Copy, Debug)]
pub struct SpinThenYield;

impl spin::RelaxStrategy for SpinThenYield {
    fn relax() {
        /// About a microsecond; the lock is held for less.
        const SPINS: u32 = 64;
        thread_local! {
            static ROUND: Cell<u32> = const { Cell::new(0) };
        }
        let round = ROUND.get().wrapping_add(1);
        ROUND.set(round);
        if round.is_multiple_of(SPINS) {
            std::thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

/// `enter` where the word names no idle CPU.
#[cold]
fn enter_anew(word: &AtomicU32) -> Option<CpuId> {
    // Whoever interrupted the allocator, or the giving of a number, tries without; so does a handler on a thread that
    // has none, since joining is not for handlers.
    if word.load(Ordering::Relaxed) != STRANGER || Hosted::context() != Context::Task {
        return None;
    }
    word.store(JOINING, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    let number = join();
    compiler_fence(Ordering::SeqCst);
    word.store(number | BUSY, Ordering::Relaxed);
    compiler_fence(Ordering::SeqCst);
    Some(CpuId::new(number))
}

/// A number for this thread, and the promise to give it back.
fn join() -> u32 {
    let Some(number) = take_lowest() else { return number_without_seat() };
    match LEAVER.try_with(|leaver| leaver.number.set(Some(number))) {
        Ok(()) => number,
        Err(_) => {
            // The thread is being torn down: nobody would give the number back.
            give(number);
            number_without_seat()
        }
    }
}

/// Gives a thread's number back when the thread ends.
struct Leaver {
    number: Cell<Option<u32>>,
}

impl Leaver {
    /// Gives back what the thread's pools hold, and the number; the thread goes on as `next`.
    fn leave(&self, next: impl FnOnce() -> u32) {
        let Some(number) = self.number.take() else { return };
        give_back_idle();
        WORD.with(|word| word.store(next(), Ordering::Relaxed));
        give(number);
    }
}

impl Drop for Leaver {
    fn drop(&mut self) {
        self.leave(number_without_seat);
    }
}

/// Gives the calling thread's number back, if it has one. It gets one again when it needs one.
pub(crate) fn give_up_number() {
    // A thread that is being torn down has none.
    let _ = LEAVER.try_with(|leaver| leaver.leave(|| STRANGER));
}

/// Bit n of word w: number 64·w + n is taken.
static TAKEN: [AtomicU64; (SEATS / u64::BITS) as usize] = [const { AtomicU64::new(0) }; (SEATS / u64::BITS) as usize];

/// Takes this number, if nobody has it.
fn take(number: u32) -> bool {
    let bit = 1 << (number % u64::BITS);
    // Acquire: pairs with the Release in `give`; the pools that the last owner left are seen as it left them.
    TAKEN[(number / u64::BITS) as usize].fetch_or(bit, Ordering::Acquire) & bit == 0
}

fn take_lowest() -> Option<u32> {
    for (place, word) in TAKEN.iter().enumerate() {
        loop {
            let free = (!word.load(Ordering::Relaxed)).trailing_zeros();
            if free == u64::BITS {
                break;
            }
            let number = place as u32 * u64::BITS + free;
            if take(number) {
                return Some(number);
            }
        }
    }
    None
}

fn give(number: u32) {
    let bit = 1 << (number % u64::BITS);
    // Release: pairs with the Acquire in `take`.
    TAKEN[(number / u64::BITS) as usize].fetch_and(!bit, Ordering::Release);
}

/// A number that no instance has a pool for, and that no other thread has.
fn number_without_seat() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(SEATS);
    // It stays below BUSY: a number that came round could be shared only after two thousand million threads.
    SEATS.max(NEXT.fetch_add(1, Ordering::Relaxed) & (BUSY / 2 - 1))
}

/// Something that keeps idle frames for a CPU.
trait Idle: Sync {
    fn give_back(&self);
}

impl<C: Config + Sync> Idle for Frames<'static, Hosted, C> {
    fn give_back(&self) {
        self.drain_cpu();
    }
}

static INSTANCES: RwLock<Vec<&'static dyn Idle>> = RwLock::new(Vec::new());

fn give_back_idle() {
    for instance in INSTANCES.read().unwrap_or_else(PoisonError::into_inner).iter() {
        instance.give_back();
    }
}

impl Hosted {
    /// Makes threads that end give this instance the frames back that lie in their pools. Without it they stay there
    /// until another thread has the same number, and are its to lend.
    ///
    /// It happens among the destructors of the thread's locals: `JoinHandle::join` waits for that, the end of a
    /// `std::thread::scope` alone does not.
    pub fn announce<C: Config + Sync>(instance: &'static Frames<'static, Hosted, C>) {
        INSTANCES.write().unwrap_or_else(PoisonError::into_inner).push(instance);
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
                HANDLERS.with(|count| count.store(count.load(Ordering::Relaxed) - 1, Ordering::Relaxed));
            }
        }
        HANDLERS.with(|count| count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed));
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
        take(number).then(|| Self { number, occupied: AtomicBool::new(false) })
    }

    /// Makes the calling thread this CPU until the answer is dropped, or `None` if another thread is. What lay in the
    /// CPU's pools when the last one got up is there for the next.
    ///
    /// # Panics
    /// Inside the allocator.
    pub fn sit(&self) -> Option<Sitting<'_>> {
        let before = WORD.with(|word| word.load(Ordering::Relaxed));
        assert!(before < BUSY || before == STRANGER, "a thread inside the allocator cannot become another CPU");
        // Acquire: pairs with the Release in `Sitting::drop`; the pools are seen as the last one left them.
        if self.occupied.swap(true, Ordering::Acquire) {
            return None;
        }
        WORD.with(|word| word.store(self.number, Ordering::Relaxed));
        Some(Sitting { seat: self, before, thread: PhantomData })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        give(self.number);
    }
}

/// The calling thread is a certain CPU.
#[derive(Debug)]
pub struct Sitting<'a> {
    seat: &'a Seat,
    /// What the thread was before.
    before: u32,
    /// Not for another thread.
    thread: PhantomData<*mut ()>,
}

impl Drop for Sitting<'_> {
    fn drop(&mut self) {
        WORD.with(|word| word.store(self.before, Ordering::Relaxed));
        // Release: pairs with the Acquire in `Seat::sit`.
        self.seat.occupied.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_cpu_is_claimed_once() {
        let pinned = Hosted::pin().unwrap();
        assert!(Hosted::pin().is_none());
        let cpu = pinned.cpu();
        drop(pinned);
        assert_eq!(Hosted::pin().map(|pinned| pinned.cpu()), Some(cpu));
    }

    #[test]
    fn threads_have_numbers_of_their_own_and_give_them_back() {
        let number = || Hosted::pin().unwrap().cpu();
        let here = number();
        let there = std::thread::spawn(number).join().unwrap();
        assert_ne!(here, there);
        // Tests run side by side, so the same number need not come again, but a free one must be had.
        for _ in 0..2 * SEATS {
            let seen = std::thread::spawn(number).join().unwrap();
            assert!(seen.index() < 64, "{seen:?}: numbers are given back");
        }
    }

    #[test]
    fn a_kept_number_is_nobody_elses() {
        let seat = Seat::keep(CpuId::new(SEATS - 1)).unwrap();
        assert!(Seat::keep(CpuId::new(SEATS - 1)).is_none());
        let before = Hosted::pin().unwrap().cpu();
        let sitting = seat.sit().unwrap();
        assert!(seat.sit().is_none());
        assert_eq!(Hosted::pin().unwrap().cpu().index(), SEATS as usize - 1);
        drop(sitting);
        assert_eq!(Hosted::pin().unwrap().cpu(), before);
        drop(seat);
        assert!(Seat::keep(CpuId::new(SEATS - 1)).is_some());
    }

    #[test]
    fn a_thread_that_ends_leaves_nothing_behind() {
        use pagemill::{AllocFlags, Order};
        let topology = crate::Topology::parse(&format!("cpus 0-{} 256M", 63)).unwrap();
        let machine = crate::MachineBuilder::new(topology).without_watermarks().build::<pagemill::Checked>().unwrap();
        let frames = machine.frames();
        let pooled = std::thread::spawn(move || {
            let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
            frames.free(block).unwrap();
            frames.census().pooled
        });
        assert!(pooled.join().unwrap() > 0);
        assert_eq!(frames.census().free, frames.census().present);
        frames.validate().unwrap();
    }

    #[test]
    fn threads_beyond_the_cpus_of_an_instance_do_without_pools() {
        use pagemill::{AllocFlags, Order};
        let topology = crate::Topology::parse("cpus 0 8M").unwrap();
        let machine = crate::MachineBuilder::new(topology).without_watermarks().build::<pagemill::Checked>().unwrap();
        let frames = machine.frames();
        let seat = Seat::keep(CpuId::new(SEATS - 2)).unwrap();
        let _sitting = seat.sit().unwrap();
        let block = frames.alloc(Order::ZERO, AllocFlags::empty()).unwrap();
        assert_eq!(frames.census().pooled, 0);
        frames.free(block).unwrap();
        assert_eq!(frames.census().free, 2048);
    }

    #[test]
    fn a_handler_says_what_it_is() {
        assert_eq!(Hosted::context(), Context::Task);
        let inside = Hosted::in_signal_handler(|| (Hosted::context(), Hosted::in_signal_handler(Hosted::context)));
        assert_eq!(inside, (Context::Nmi, Context::Nmi));
        assert_eq!(Hosted::context(), Context::Task);
        // A handler on a thread that has no number does without.
        let in_new_thread = std::thread::spawn(|| {
            let handler = Hosted::in_signal_handler(|| Hosted::pin().is_some());
            (handler, Hosted::pin().is_some())
        });
        assert_eq!(in_new_thread.join().unwrap(), (false, true));
    }
}
