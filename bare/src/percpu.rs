//! What each CPU has for itself, and the platform that pagemill's core sees.
//!
//! A CPU finds its [`PerCpu`] behind the GS base. The words that interrupts and the allocator ask for all the time (who
//! am I, is the allocator busy here, what was interrupted) are reached by a single move relative to GS. None of them
//! needs an atomic read-modify-write or masked interrupts: only this CPU writes them, and a handler that interrupts
//! puts back what it changed before it returns.
#![allow(unsafe_code, reason = "the GS base, and moves relative to it")]

use core::arch::asm;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use lock_api::{GuardNoSend, RawMutex};
use pagemill::{Context, CpuId, Desk, Platform};
use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use crate::cpu::{disable_interrupts, enable_interrupts, interrupts_enabled};
use crate::topology::MAX_CPUS;

/// A CPU's own words. Others may read them, and post to its mailbox.
#[repr(C, align(128))]
pub struct PerCpu {
    /// Its own address: how a reference is made of the GS base.
    this: AtomicPtr<PerCpu>,
    /// The pools at hand, or [`Desk::CLAIMED`].
    desks: [AtomicPtr<()>; Desk::COUNT],
    /// What lies on the desks when nobody has claimed the CPU.
    homes: [AtomicPtr<()>; Desk::COUNT],
    cpu: AtomicU32,
    /// Handlers that are running: interrupts count 1, everything that masking does not hold off [`UNMASKABLE`].
    handlers: AtomicU32,
    /// [`IrqLock`]s held.
    locks: AtomicU32,
    /// Whether interrupts were let through before the first of them.
    unmask: AtomicBool,
    apic: AtomicU32,
    node: AtomicU32,
    interrupts: AtomicU64,
    exceptions: AtomicU64,
    /// Whether this CPU is working for [`smp::on_all`](crate::smp::on_all).
    working: AtomicBool,
    /// What it is to work on next.
    mailbox: AtomicPtr<Job<'static>>,
}

/// What an exception, a non-maskable interrupt or a machine check adds to the count of handlers.
pub(crate) const UNMASKABLE: u32 = 1 << 16;
/// Where the count of handlers stands behind the GS base, for the entry stubs.
pub(crate) const HANDLERS: usize = offset_of!(PerCpu, handlers);

/// The areas of all CPUs that have one, by number.
static AREAS: [AtomicPtr<PerCpu>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];
/// CPUs that are up.
static ONLINE: AtomicU32 = AtomicU32::new(0);

impl PerCpu {
    pub(crate) const fn new(cpu: u32, apic: u32, node: u32) -> Self {
        Self {
            this: AtomicPtr::new(ptr::null_mut()),
            desks: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
            homes: [const { AtomicPtr::new(Desk::EMPTY.as_ptr()) }; Desk::COUNT],
            cpu: AtomicU32::new(cpu),
            handlers: AtomicU32::new(0),
            locks: AtomicU32::new(0),
            unmask: AtomicBool::new(false),
            apic: AtomicU32::new(apic),
            node: AtomicU32::new(node),
            interrupts: AtomicU64::new(0),
            exceptions: AtomicU64::new(0),
            working: AtomicBool::new(false),
            mailbox: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The CPU's number.
    pub fn cpu(&self) -> u32 {
        // Relaxed, here and below: words of one CPU that others only look at.
        self.cpu.load(Ordering::Relaxed)
    }

    /// The number of its local APIC.
    pub fn apic(&self) -> u32 {
        self.apic.load(Ordering::Relaxed)
    }

    /// The index of its node.
    pub fn node(&self) -> usize {
        self.node.load(Ordering::Relaxed) as usize
    }

    /// Interrupts it has handled since boot.
    pub fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::Relaxed)
    }

    /// Exceptions and non-maskable interrupts it has handled since boot.
    pub fn exceptions(&self) -> u64 {
        self.exceptions.load(Ordering::Relaxed)
    }

    /// Counts an event on this CPU. What interrupts between load and store may lose a count of its own: a handler of
    /// the same kind does not interrupt itself, so none is lost but that of a breakpoint inside a handler.
    pub(crate) fn count(&self, interrupt: bool) {
        let counter = if interrupt { &self.interrupts } else { &self.exceptions };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn working(&self) -> &AtomicBool {
        &self.working
    }
}

/// Makes `area` the one of the CPU that asks, and lets others find it if it is that of a `listed` CPU.
pub(crate) fn install(area: &'static PerCpu, listed: bool) {
    let place = ptr::from_ref(area).cast_mut();
    area.this.store(place, Ordering::Relaxed);
    if listed {
        // Release: pairs with the Acquire in `area`, which then sees the words filled in.
        AREAS[area.cpu() as usize].store(place, Ordering::Release);
    }
    GsBase::write(VirtAddr::from_ptr(area));
}

/// Lets a CPU take locks and print before it has its tables, with interrupts off: the area is nobody's in particular.
pub(crate) fn install_before_locks() {
    static NOBODY: PerCpu = PerCpu::new(0, 0, 0);
    install(&NOBODY, false);
}

/// Says that this CPU is up; the numbers of CPUs have no gaps, so they report in order.
pub(crate) fn report_online() {
    // Release: what this CPU did to get up happens before anyone counts on it.
    ONLINE.fetch_add(1, Ordering::Release);
}

/// CPUs that are up, numbered from 0.
pub fn online() -> u32 {
    // Acquire: pairs with the Release in `report_online`.
    ONLINE.load(Ordering::Acquire)
}

/// The area of a CPU that is up.
pub fn area(cpu: u32) -> Option<&'static PerCpu> {
    // Acquire: pairs with the Release in `install`.
    let area = AREAS.get(cpu as usize)?.load(Ordering::Acquire);
    // SAFETY: what stands in the list came from a `&'static PerCpu` in `install`.
    unsafe { area.as_ref() }
}

/// The area of the CPU that asks.
pub fn this() -> &'static PerCpu {
    let area: *const PerCpu;
    // SAFETY: GS base has pointed to a `PerCpu` since the first lines of boot, and `this` is its own address.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) area, const offset_of!(PerCpu, this),
             options(pure, nostack, preserves_flags, readonly));
    }
    // SAFETY: `install` is only given areas that live for ever.
    unsafe { &*area }
}

/// The number of the CPU that asks.
#[inline(always)]
pub fn cpu() -> u32 {
    let cpu: u64;
    // SAFETY: as in `this`; the number does not change once the area is installed, so it may be read once for all. A
    // move to half a register clears the other half.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) cpu, const offset_of!(PerCpu, cpu),
             options(pure, nostack, preserves_flags, readonly));
    }
    // SAFETY: no CPU gets a number from this on. Said, because the number is an index wherever it is asked for, and is
    // then not widened again.
    unsafe { core::hint::assert_unchecked(cpu < MAX_CPUS as u64) };
    cpu as u32
}

/// The node of the CPU that asks.
pub fn node() -> usize {
    this().node()
}

/// What kind of code is running on this CPU.
#[inline(always)]
pub fn context() -> Context {
    let handlers: u32;
    // SAFETY: as in `this`.
    unsafe {
        asm!("mov {:e}, gs:[{}]", out(reg) handlers, const HANDLERS,
             options(nostack, preserves_flags, readonly));
    }
    match handlers {
        0 => Context::Task,
        1..UNMASKABLE => Context::Atomic,
        _ => Context::Nmi,
    }
}

/// This kernel as pagemill's core sees it: a CPU is claimed by taking what lies on its desks, with plain moves.
#[derive(Debug)]
pub struct Bare;

/// Where a desk stands behind the GS base, and what lies on it at rest.
struct Place<const WHICH: usize>;

impl<const WHICH: usize> Place<WHICH> {
    const DESK: usize = Self::of(offset_of!(PerCpu, desks));
    const HOME: usize = Self::of(offset_of!(PerCpu, homes));

    const fn of(first: usize) -> usize {
        assert!(WHICH < Desk::COUNT);
        first + WHICH * size_of::<AtomicPtr<()>>()
    }
}

/// What lies on one of this CPU's desks.
#[inline(always)]
fn desk<const WHICH: usize>() -> *mut () {
    let desk;
    // SAFETY: as in `this`; the word is this CPU's own.
    unsafe { asm!("mov {}, gs:[{}]", out(reg) desk, const Place::<WHICH>::DESK, options(nostack, preserves_flags)) };
    desk
}

/// Lays a word on one of this CPU's desks.
#[inline(always)]
fn lay<const WHICH: usize>(desk: *mut ()) {
    // SAFETY: as in `this`; the word is this CPU's own.
    unsafe { asm!("mov gs:[{}], {}", const Place::<WHICH>::DESK, in(reg) desk, options(nostack, preserves_flags)) };
}

/// What lies on one of this CPU's desks when nobody has claimed it.
#[inline(always)]
fn home<const WHICH: usize>() -> *mut () {
    let home;
    // SAFETY: as in `this`; the word is this CPU's own, written by the CPU itself.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) home, const Place::<WHICH>::HOME,
             options(nostack, preserves_flags, readonly));
    }
    home
}

// SAFETY: code never moves to another CPU here, and numbers are dense and those of one CPU each. A desk is one word
// that only this CPU touches, by single moves: whatever interrupts between a look and a move ends before the
// interrupted code goes on, and has then laid back what it found, so it either finds `CLAIMED` and gets nothing, or
// takes and lays back while nobody else has it. That holds for each desk by itself, and `enter` looks at both before it
// lays anything: what interrupts it or `leave` half way finds at least one of them claimed or both at rest, so it gets
// the CPU only in the second case, and a desk at rest in either. The moves are opaque to the compiler and clobber
// memory, so the claimed state is not touched outside them. The context is `Task` only when no handler is running.
unsafe impl Platform for Bare {
    type Lock = IrqLock;

    #[inline(always)]
    fn enter() -> Option<CpuId> {
        let claimed = Desk::CLAIMED.as_ptr();
        if desk::<{ Desk::FRAMES }>() == claimed || desk::<{ Desk::OBJECTS }>() == claimed {
            return None;
        }
        lay::<{ Desk::FRAMES }>(claimed);
        lay::<{ Desk::OBJECTS }>(claimed);
        Some(CpuId::new(cpu()))
    }

    #[inline(always)]
    fn leave(_: CpuId) {
        lay::<{ Desk::OBJECTS }>(home::<{ Desk::OBJECTS }>());
        lay::<{ Desk::FRAMES }>(home::<{ Desk::FRAMES }>());
    }

    const HAS_DESKS: bool = true;

    #[inline(always)]
    fn take_desk<const WHICH: usize>() -> Desk {
        let desk = desk::<WHICH>();
        lay::<WHICH>(Desk::CLAIMED.as_ptr());
        // SAFETY: desks are all that is ever laid there, from the area's creation on.
        unsafe { Desk::from_ptr(desk) }
    }

    #[inline(always)]
    unsafe fn put_desk<const WHICH: usize>(desk: Desk) {
        lay::<WHICH>(desk.as_ptr());
    }

    unsafe fn set_desk<const WHICH: usize>(desk: Desk) {
        this().homes[WHICH].store(desk.as_ptr(), Ordering::Relaxed);
    }

    #[inline(always)]
    fn context() -> Context {
        context()
    }

    fn kick() {
        crate::smp::kick_others();
    }
}

/// A spin lock that masks interrupts while it is held, so that no handler can wait for what it interrupted. Interrupts
/// are let through again when the last lock of the CPU is released, in whatever order that happens.
///
/// A handler of what cannot be masked may try it, and must not wait for it.
pub struct IrqLock {
    held: AtomicBool,
}

// SAFETY: `held` goes from false to true by compare-exchange, for one CPU at a time, with Acquire, and back with
// Release by the holder alone.
unsafe impl RawMutex for IrqLock {
    const INIT: Self = Self { held: AtomicBool::new(false) };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            // Relaxed: only a hint that trying again may help.
            while self.held.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        mask();
        let got = self.held.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !got {
            unmask();
        }
        got
    }

    unsafe fn unlock(&self) {
        // Release: pairs with the Acquire of the next holder.
        self.held.store(false, Ordering::Release);
        unmask();
    }

    fn is_locked(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

/// Masks interrupts and counts who wants it so. What interrupts between the two stores finds the count above zero and
/// leaves `unmask` alone.
fn mask() {
    let enabled = interrupts_enabled();
    disable_interrupts();
    let this = this();
    let locks = this.locks.load(Ordering::Relaxed);
    this.locks.store(locks + 1, Ordering::Relaxed);
    compiler_fence();
    if locks == 0 {
        this.unmask.store(enabled, Ordering::Relaxed);
    }
}

/// Takes back one [`mask`].
fn unmask() {
    let this = this();
    let locks = this.locks.load(Ordering::Relaxed) - 1;
    let enable = locks == 0 && this.unmask.load(Ordering::Relaxed);
    compiler_fence();
    this.locks.store(locks, Ordering::Relaxed);
    if enable {
        enable_interrupts();
    }
}

/// Keeps the order of words as what interrupts this CPU sees them.
fn compiler_fence() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// Work for several CPUs. It lives on the stack of whoever posts it, until nobody has it any more.
pub(crate) struct Job<'a> {
    work: &'a (dyn Fn(u32) + Sync),
    /// CPUs that are not done.
    left: AtomicU32,
}

impl<'a> Job<'a> {
    pub(crate) fn new(work: &'a (dyn Fn(u32) + Sync)) -> Self {
        Self { work, left: AtomicU32::new(0) }
    }

    /// Posts it to all CPUs of `cpus` and wakes them by `wake`, works on it here if this CPU is among them, and returns
    /// when all are done. `meanwhile` is called while waiting.
    pub(crate) fn run(&self, cpus: impl Iterator<Item = u32> + Clone, wake: impl Fn(u32), meanwhile: impl Fn()) {
        let me = cpu();
        let others = cpus.clone().filter(|&cpu| cpu != me).filter_map(area);
        self.left.store(others.clone().count() as u32, Ordering::Relaxed);
        let job = ptr::from_ref(self).cast_mut().cast::<Job<'static>>();
        for other in others {
            // Release: the job is complete before it is seen. A mailbox is empty between jobs; it can only be full if
            // another CPU is posting, whose job then goes first.
            while other.mailbox.compare_exchange(ptr::null_mut(), job, Ordering::Release, Ordering::Relaxed).is_err() {
                meanwhile();
                core::hint::spin_loop();
            }
            wake(other.cpu());
        }
        if cpus.clone().any(|cpu| cpu == me) {
            (self.work)(me);
        }
        // Acquire: pairs with the Release in `work_once`; what the others did happens before we return.
        while self.left.load(Ordering::Acquire) != 0 {
            meanwhile();
            core::hint::spin_loop();
        }
    }
}

/// Whether there is a job in this CPU's mailbox.
pub(crate) fn has_work() -> bool {
    // Relaxed: `work_once` looks again.
    !this().mailbox.load(Ordering::Relaxed).is_null()
}

/// Does the job in this CPU's mailbox, if there is one.
pub(crate) fn work_once() -> bool {
    let this = this();
    // Acquire: pairs with the Release in `Job::run`.
    let job = this.mailbox.load(Ordering::Acquire);
    // SAFETY: a job stays where it is until `left` is zero, and this CPU's share of `left` is taken off last.
    let Some(job) = (unsafe { job.as_ref() }) else { return false };
    this.working.store(true, Ordering::Relaxed);
    (job.work)(this.cpu());
    this.working.store(false, Ordering::Relaxed);
    // The mailbox is emptied before the poster may go on and post again.
    this.mailbox.store(ptr::null_mut(), Ordering::Relaxed);
    // Release: pairs with the Acquire in `Job::run`. The job may be gone from here on.
    job.left.fetch_sub(1, Ordering::Release);
    true
}
