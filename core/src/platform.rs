//! The door to the machine: who am I, may I be interrupted here, how do I wait.

use core::marker::PhantomData;

use crate::id::CpuId;

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
/// * [`context`](Platform::context) says [`Context::Task`] only where waiting for another CPU's lock is allowed.
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

    /// Asks every CPU to call `poll` of its instances soon: an interrupt to the others in a kernel. Doing nothing is
    /// allowed; idle frames then stay where they are until their CPU next runs a slow path.
    fn kick() {}

    /// Pins the caller to its CPU.
    #[inline(always)]
    fn pin() -> Option<Pinned<Self>> {
        match Self::enter() {
            Some(cpu) => Some(Pinned { cpu, platform: PhantomData }),
            None => None,
        }
    }
}

/// The witness of being alone with this CPU's pools, and of staying here.
///
/// Made only by [`Platform::pin`]; neither `Copy` nor `Clone` nor `Send`. What a CPU owns takes `&mut Pinned`, a lock
/// takes `&Pinned`, so neither can be reached without it.
pub struct Pinned<P: Platform> {
    cpu: CpuId,
    platform: PhantomData<(P, *mut ())>,
}

impl<P: Platform> Pinned<P> {
    /// The CPU the caller is on, until it lets go.
    #[inline(always)]
    pub fn cpu(&self) -> CpuId {
        self.cpu
    }
}

impl<P: Platform> Drop for Pinned<P> {
    #[inline(always)]
    fn drop(&mut self) {
        P::leave(self.cpu);
    }
}
