//! The door to the machine: who am I, may I be interrupted here, how do I wait.

use core::marker::PhantomData;
use core::ptr::NonNull;

use crate::id::CpuId;
use crate::sync::OwnCell;

/// What kind of code is asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    /// Ordinary code: may wait for a lock, run shrinkers, reclaim.
    Task,
    /// An interrupt handler: may use the reserve, never waits for others.
    Atomic,
    /// A non-maskable interrupt, a debug exception, a signal handler: it may have interrupted anything, and only tries.
    Nmi,
}

/// The machine an instance runs on: a kernel, a process, a simulation.
///
/// # Safety
/// Whoever implements this promises, for the type as a whole:
///
/// * between a `Some` of [`enter`](Platform::enter) and its [`leave`](Platform::leave) the calling code stays on that
///   CPU, and every other `enter` for the same CPU answers `None`. A kernel keeps one plain `busy` byte a CPU, which
///   needs no atomic and no masked interrupts as long as what interrupts ends before what it interrupted goes on; a
///   preemptive kernel also holds off preemption;
/// * CPU numbers are dense from 0, and a number is one CPU at a time;
/// * [`context`](Platform::context) says [`Context::Task`] only where waiting for another CPU's lock is allowed. It is
///   asked by whoever has not claimed the CPU: so a claim tells that something was interrupted.
///
/// Cost: `enter` and `leave` stand on the fast path of every request; three plain instructions and one are possible.
#[allow(unsafe_code, reason = "declaring the promise is not breaking it")]
pub unsafe trait Platform: Sized + 'static {
    /// The lock around each arena. A kernel that allocates in interrupt handlers gives one that masks interrupts.
    type Lock: lock_api::RawMutex + Send + Sync;

    /// Claims this CPU's own state, or `None` if the code that was interrupted here has claimed it, or the CPU is not
    /// known yet.
    fn enter() -> Option<CpuId>;

    /// Gives the claim back. Called exactly once for each `Some` of [`enter`](Platform::enter), on the same CPU.
    fn leave(cpu: CpuId);

    /// What kind of code is asking, now.
    fn context() -> Context;

    /// Whether each CPU has *desks*: words of its own on each of which lies the pool of an instance, so that the fast
    /// path finds both the pool and the claim in one move. `WHICH` says which of them is meant: [`Desk::FRAMES`], where
    /// the pool of a [`Frames`](crate::Frames) lies, or [`Desk::OBJECTS`], where that of a heap lies; there are
    /// [`Desk::COUNT`]. A platform with desks promises more, for each CPU by itself:
    ///
    /// * [`take_desk`](Platform::take_desk) answers what lies on a desk and leaves [`Desk::CLAIMED`] there;
    ///   [`put_desk`](Platform::put_desk) lays back what was taken. In between the CPU counts as claimed: `enter`
    ///   answers `None`. The other desk stays as it is, and may be taken and put back meanwhile. Whoever takes
    ///   `CLAIMED` has claimed nothing, and lays `CLAIMED` back;
    /// * `enter` answers `None` while any desk is claimed. From its `Some` to `leave` `CLAIMED` lies on all of them,
    ///   and `leave` lays on each what [`set_desk`](Platform::set_desk) was last given for it on this CPU, at first
    ///   [`Desk::EMPTY`];
    /// * what is laid on a desk of one CPU comes to light on that CPU only, and only on the same desk.
    ///
    /// So a pool on one desk is reached by one claim at a time, either to that desk or to the whole CPU, while claims
    /// to the two desks stand side by side: whoever has taken the objects' desk finds the frames' one where it was.
    /// What interrupts between the moves of an `enter` or a `leave` may find one desk claimed and the other one not; as
    /// it ends before what it interrupted goes on, it may take the other one.
    const HAS_DESKS: bool = false;

    /// Whether code changes its CPU only by its own doing, and whatever interrupts it leaves a pool that lay on a desk
    /// there again: then to look at a desk and claim it after that is as good as to take it, and what is no use is not
    /// claimed.
    const DESKS_STAY: bool = false;

    /// Makes one of this CPU's desks claimed, on which the caller has just seen a pool, and which he lays back as one
    /// that he has taken. Only called if [desks stay](Self::DESKS_STAY).
    #[inline(always)]
    fn claim_desk<const WHICH: usize>() {
        Self::take_desk::<WHICH>();
    }

    /// Takes what lies on one of this CPU's desks. Only called if there are desks.
    fn take_desk<const WHICH: usize>() -> Desk {
        Desk::CLAIMED
    }

    /// What lies on one of this CPU's desks, and stays there: for instances whose requests [are never
    /// interrupted](crate::Config::INTERRUPTIBLE) by others. While the CPU is claimed it is [`Desk::CLAIMED`].
    #[inline(always)]
    fn look_at_desk<const WHICH: usize>() -> Desk {
        Desk::CLAIMED
    }

    /// Lays back what was taken from that desk.
    ///
    /// # Safety
    /// `desk` is what the caller has taken from this desk of this CPU, and has not laid back since.
    unsafe fn put_desk<const WHICH: usize>(desk: Desk) {
        let _ = desk;
    }

    /// Says what lies on that desk when the caller, who has claimed the CPU by `enter`, has left.
    ///
    /// # Safety
    /// `desk` is [`Desk::EMPTY`], or leads to a pool that is this CPU's and lies on no other desk.
    unsafe fn set_desk<const WHICH: usize>(desk: Desk) {
        let _ = desk;
    }

    /// Asks every CPU to call `poll` of its instances soon: an interrupt to the others in a kernel. Doing nothing is
    /// allowed; idle frames then stay where they are until their CPU next runs a slow path.
    fn kick() {}

    /// Whether CPUs may be slow to load again what was stored by an index a moment ago, so that a stack is best reached
    /// by a register of its own, for an instruction more.
    const SLOW_INDEXES: bool = false;

    /// Tells the CPU that the memory at `address` is soon to be written, as the next object to be lent is. Nothing
    /// lends it yet, and there may be no such memory at all. Worth it where objects mostly lie in no cache: an
    /// allocator whose free lists are in the objects does as much by the way.
    #[inline(always)]
    fn prefetch(address: usize) {
        let _ = address;
    }

    /// Pins the caller to its CPU.
    #[inline(always)]
    fn pin() -> Option<Pinned<Self>> {
        match Self::enter() {
            Some(cpu) => Some(Pinned { claim: Claim::Cpu(cpu), platform: PhantomData }),
            None => None,
        }
    }
}

/// The head of a CPU's pool: whose it is.
pub(crate) struct Head {
    /// The address of the table that the pool belongs to; 0 is nobody's. Only its own CPU reads and writes it, so it
    /// need not be an atomic, and a comparison with it need not be a load and a comparison.
    pub(crate) owner: OwnCell,
}

/// The head of no pool.
#[doc(hidden)]
#[repr(transparent)]
pub struct EmptyDesk(Head);

/// What can lie on a CPU's desk: a pool, or word that there is none to be had. Not for other threads: the pool is one
/// CPU's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Desk(NonNull<()>);

/// What [`Desk::EMPTY`] leads to, by a name: for a platform whose words are set down in assembly, where a constant has
/// none.
#[doc(hidden)]
pub static EMPTY_DESK: EmptyDesk = EmptyDesk(Head { owner: OwnCell::new(0) });
static CLAIMED: Head = Head { owner: OwnCell::new(0) };

impl Desk {
    /// The desk on which the pool of a [`Frames`](crate::Frames) lies.
    pub const FRAMES: usize = 0;
    /// The desk on which the pool of a heap lies.
    pub const OBJECTS: usize = 1;
    /// How many desks a CPU has.
    pub const COUNT: usize = 2;

    /// No pool: nobody has settled on this desk of the CPU, as by [`Frames::settle`](crate::Frames::settle).
    pub const EMPTY: Self = Self(NonNull::from_ref(&EMPTY_DESK).cast());
    /// The desk is claimed, by itself or with the whole CPU.
    pub const CLAIMED: Self = Self(NonNull::from_ref(&CLAIMED).cast());

    /// The desk as the word that a platform keeps.
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut () {
        self.0.as_ptr()
    }

    /// The desk that a platform has kept as a word.
    ///
    /// # Safety
    /// `word` came from [`as_ptr`](Self::as_ptr), and of a desk on the CPU that asks, unless it was
    /// [`EMPTY`](Self::EMPTY) or [`CLAIMED`](Self::CLAIMED).
    #[inline(always)]
    #[allow(unsafe_code, reason = "as `Platform`, the promise is the caller's")]
    pub const unsafe fn from_ptr(word: *mut ()) -> Self {
        // SAFETY: by the caller's promise it was a `NonNull` before.
        Self(unsafe { NonNull::new_unchecked(word) })
    }

    /// The desk on which a pool lies that begins with a [`Head`].
    pub(crate) fn of<T>(pool: &'static T) -> Self {
        Self(NonNull::from_ref(pool).cast())
    }

    #[inline(always)]
    pub(crate) fn place(self) -> NonNull<()> {
        self.0
    }
}

/// How a CPU was claimed.
enum Claim {
    /// By number, with all desks.
    Cpu(CpuId),
    /// By the frames' desk, which this goes back to.
    Frames(Desk),
    /// By the objects' desk.
    Objects(Desk),
    /// Not at all: nobody else is there who could claim it meanwhile.
    Nothing,
}

impl Claim {
    /// Decided when the caller is compiled, as long as the claim stays in sight.
    #[inline(always)]
    fn of_desk<const WHICH: usize>(desk: Desk) -> Self {
        const { assert!(WHICH < Desk::COUNT) };
        if WHICH == Desk::FRAMES { Self::Frames(desk) } else { Self::Objects(desk) }
    }
}

/// The witness of being alone with this CPU's pools, or with the one on a desk, and of staying here.
///
/// Made for others only by [`Platform::pin`]; neither `Copy` nor `Clone` nor `Send`. What a CPU owns takes `&mut
/// Pinned`, a lock takes `&Pinned`, so neither can be reached without it.
pub struct Pinned<P: Platform> {
    claim: Claim,
    platform: PhantomData<(P, *mut ())>,
}

impl<P: Platform> Pinned<P> {
    /// Takes one of the CPU's desks. What lies on it may be nobody's; then this is no claim, and must not be shown to
    /// anybody. Otherwise it is a claim to what lies there, and to nothing else.
    #[inline(always)]
    pub(crate) fn take_desk<const WHICH: usize>() -> (Desk, Self) {
        let desk = P::take_desk::<WHICH>();
        (desk, Self { claim: Claim::of_desk::<WHICH>(desk), platform: PhantomData })
    }

    /// Looks at one of the CPU's desks. What lies on it may be nobody's; then this is no claim, and must not be shown
    /// to anybody. Otherwise it is as good as one as long as nothing interrupts the caller that would claim it: the
    /// caller's promise.
    #[inline(always)]
    pub(crate) fn look_at_desk<const WHICH: usize>() -> (Desk, Self) {
        (P::look_at_desk::<WHICH>(), Self { claim: Claim::Nothing, platform: PhantomData })
    }

    /// Makes a claim of a look at a desk, on which a pool lies, where [desks stay](Platform::DESKS_STAY).
    #[inline(always)]
    pub(crate) fn claim_desk<const WHICH: usize>(&mut self, desk: Desk) {
        P::claim_desk::<WHICH>();
        self.claim = Claim::of_desk::<WHICH>(desk);
    }

    /// The CPU the caller is on, until it lets go.
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        match self.claim {
            Claim::Cpu(cpu) => cpu,
            // Only the core claims by the desk, and it has the pool then: no table is as long as this.
            Claim::Frames(_) | Claim::Objects(_) | Claim::Nothing => CpuId::new(u32::MAX),
        }
    }
}

impl<P: Platform> Drop for Pinned<P> {
    #[inline(always)]
    #[allow(unsafe_code, reason = "a claim keeps what it has taken, so it keeps the promise too")]
    fn drop(&mut self) {
        match self.claim {
            Claim::Cpu(cpu) => P::leave(cpu),
            // SAFETY: only `take_desk` makes such a claim, of what it has taken, and a claim is dropped once, where it
            // was made.
            Claim::Frames(desk) => unsafe { P::put_desk::<{ Desk::FRAMES }>(desk) },
            // SAFETY: as above.
            Claim::Objects(desk) => unsafe { P::put_desk::<{ Desk::OBJECTS }>(desk) },
            Claim::Nothing => {}
        }
    }
}
