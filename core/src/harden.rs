//! What the level [`Hardened`](crate::Hardened) adds to the checks of marks: it looks at what stands in memory.
//!
//! ```text
//!   request ──► 8 bytes more ──► object ──► all poison? ──no──► condemned: somebody writes it; another one
//!                                              │ yes
//!                                              ▼
//!                                 canaries behind the end, lent
//!
//!   free ──► takes the mark ──► canaries as they were? ──no──► the mark again, refused
//!                                   │ yes
//!                                   ▼
//!                               poison ──► quarantine ──► (another one) pool, depot, slab
//! ```
//!
//! Everything below goes on knowing addresses alone: it is asked for objects of a few bytes more, and given objects
//! back somewhat later. Whoever calls the heap gets here from `global`, before anything else, if `C::HARDENED` says so;
//! at other levels nothing of this is compiled.
//!
//! **Canaries.** The exact size that was asked for stands in a keyed *trailer*, the last 8 bytes of the slot, and what
//! is left between the object's end and the trailer is filled: see `canary`. So one byte too many is seen at the free,
//! for every size, and so is a free by another size of the same class. (OpenBSD's `malloc` with `C`, Scudo's
//! checksummed headers, SLUB's red zones.) The trailer is behind the object rather than before it, since the alignment
//! of an object is that of its slot.
//!
//! **Poison.** What is freed is overwritten at once ([`Config::POISON`]); a byte of it that is another one when the
//! object is to be lent again was written by somebody who had given it up. (`hardened_malloc`'s zero on free and
//! write-after-free check; SLUB's poison.) The memory of a new slab is brought to the poison first, so the rule has no
//! exception. What nobody asks for again is looked at when the frames of its slab go, with which what tells of the write
//! would be lost.
//!
//! **Quarantine** and **order.** What is freed waits, and what is lent comes in no order: see `quarantine`, `shuffle`.
//!
//! **Guards.** A large block has a frame before it and one behind it that nobody has: see `guard`.
//!
//! All of this finds mistakes, and makes some attacks miss their aim. The canaries are no cryptography: who can read
//! memory can know them.
#![allow(unsafe_code, reason = "it looks at memory that is the heap's and marks what it lends")]

#[deny(unsafe_code)]
mod canary;
mod guard;
mod memory;
#[deny(unsafe_code)]
mod quarantine;
mod resize;
#[deny(unsafe_code)]
mod waiting;

use core::alloc::Layout;

use canary::{Key, TRAILER_BYTES};
pub use guard::PageHook;

use crate::carve::{Carver, Plan};
use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind, SetupError};
use crate::heap::Heap;
use crate::platform::Platform;
use crate::size_class::SizeClass;
use crate::slab::Slab;
use crate::sync::{AtomicU64, Ordering, Publish, const_fn};
use quarantine::Quarantine;

/// What a heap has for this level, empty at others.
pub(crate) struct Hardening<'m> {
    /// As it was set, 0 if it was not.
    secret: AtomicU64,
    hook: Publish<'m, PageHook>,
    state: Publish<'m, State<'m>>,
}

/// What is carved when the heap is initialised.
struct State<'m> {
    key: Key,
    /// Objects of each class that are never lent again.
    condemned: &'m [AtomicU64],
    /// Bytes of large blocks that cannot be given back.
    stuck_bytes: AtomicU64,
    quarantines: &'m [AtomicU64],
}

impl<'m> Hardening<'m> {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self { secret: AtomicU64::new(0), hook: Publish::empty(), state: Publish::empty() }
        }
    }

    /// The metadata for so many CPUs.
    pub(crate) const fn plan<C: Config>(plan: Plan, cpus: usize) -> Plan {
        const {
            assert!(C::CHECKED || !C::HARDENED, "what is hardened is checked");
            assert!(C::FRAME_BYTES <= 1 << 16, "the slack of a large block fits its note");
        };
        let words = Quarantine::words(C::QUARANTINE_OBJECTS).saturating_mul(cpus);
        plan.and::<AtomicU64>(SizeClass::COUNT).and::<AtomicU64>(words).and::<State<'static>>(1)
    }

    /// Carves what [`plan`](Self::plan) counts. `place` is a number that another heap does not have.
    pub(crate) fn init<C: Config>(&self, cpus: usize, place: usize, carver: &mut Carver<'m>) {
        let secret = match self.secret.load(Ordering::Relaxed) {
            0 => place as u64,
            secret => secret,
        };
        let state = State {
            key: Key::new(secret),
            condemned: carver.zeros(SizeClass::COUNT),
            stuck_bytes: AtomicU64::new(0),
            quarantines: carver.zeros(Quarantine::words(C::QUARANTINE_OBJECTS) * cpus),
        };
        self.state.set(Some(carver.one(state)));
    }

    /// Objects of a class that are never lent again.
    pub(crate) fn condemned(&self, class: SizeClass) -> usize {
        let count = self.state.get().and_then(|state| state.condemned.get(class.index()));
        count.map_or(0, |count| count.load(Ordering::Relaxed) as usize)
    }

    /// Bytes of large blocks that could not be given back.
    pub(crate) fn stuck_bytes(&self) -> usize {
        self.state.get().map_or(0, |state| state.stuck_bytes.load(Ordering::Relaxed) as usize)
    }
}

/// How an object is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) layout: Layout,
    /// Whether everything idle is given back rather than none.
    pub(crate) reclaim: bool,
    pub(crate) zeroed: bool,
}

/// The layout of the slot for an object: a trailer more. `None` if there is none.
fn padded(layout: Layout) -> Option<Layout> {
    Layout::from_size_align(layout.size().checked_add(TRAILER_BYTES)?, layout.align()).ok()
}

/// The class of the slot for an object, `None` for a large one.
pub(crate) fn slot_class(layout: Layout) -> Option<SizeClass> {
    SizeClass::of(padded(layout)?)
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Sets the number that canaries and the order of objects at level [`Hardened`](crate::Hardened) are made from: one
    /// that nobody guesses, from the machine's source of random numbers. Without it they follow from addresses, which
    /// finds mistakes as well and stops nobody who means harm. Other levels do not use it.
    ///
    /// # Errors
    /// [`SetupError::State`] once the heap is initialised.
    pub fn set_secret(&self, secret: u64) -> Result<(), SetupError> {
        if self.is_ready() {
            return Err(SetupError::State);
        }
        self.hardening.secret.store(secret, Ordering::Relaxed);
        Ok(())
    }

    fn key(&self) -> Key {
        // Who has an object has a state.
        self.hardening.state.get().map_or(Key::new(0), |state| state.key)
    }

    /// An object, at this level. `fault` is called with every write to freed memory that is found on the way, with
    /// nothing held.
    pub(crate) fn alloc_hardened(&self, ask: Ask, fault: fn(&Self, BadFree)) -> Result<usize, AllocError> {
        let Some(layout) = padded(ask.layout) else { return Err(AllocError::Impossible) };
        let Some(class) = SizeClass::of(layout) else { return self.alloc_guarded(ask) };
        // It ends: each turn but the last takes one object out of the heap for good.
        loop {
            let address = self.answer(layout, ask.reclaim).address()?;
            if self.is_poisoned(address, class.bytes()) {
                self.seal(address, class.bytes(), ask.layout.size());
                if ask.zeroed && C::POISON != 0 {
                    self.fill(address, ask.layout.size(), 0);
                }
                return Ok(address);
            }
            self.condemn(class, address);
            fault(self, self.fault(BadFreeKind::WrittenAfterFree, address, class.bytes()));
        }
    }

    /// Takes an object out of the heap for good that was lent for it.
    #[cold]
    fn condemn(&self, class: SizeClass, address: usize) {
        if let Some(mark) = self.unmark_any(class, address) {
            self.forget(address, mark);
        }
        if let Some(state) = self.hardening.state.get() {
            state.condemned[class.index()].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes back whatever is lent at `address`, as what it was asked for if `layout` says.
    pub(crate) fn free_hardened(&self, address: usize, layout: Option<Layout>) -> Result<(), BadFree> {
        let slab = self.slab_of(address);
        let Some(class) = slab.and_then(|slab| slab.class()) else { return self.free_guarded(address, layout) };
        let said = layout.map_or(Some(class), slot_class);
        // Of two frees at the same moment one gets the mark, and the object with it.
        let mark = if said == Some(class) { self.unmark_any(class, address) } else { None };
        let Some(mark) = mark else { return Err(self.refuse_hardened(address, said)) };
        if let Err(kind) = self.is_as_lent(class, address, layout) {
            self.mark_again(class, address, mark);
            return Err(self.accuse(kind, address, class.bytes()));
        }
        let token = self.forget(address, mark);
        self.fill(address, class.bytes(), C::POISON);
        self.hold_back(class, address);
        self.pass_on(class, token);
        Ok(())
    }

    /// Whether the canaries of a lent small object are as they were written, for a size that is the layout's.
    fn is_as_lent(&self, class: SizeClass, address: usize, layout: Option<Layout>) -> Result<(), BadFreeKind> {
        let size = self.size_of(class, address).ok_or(BadFreeKind::Overrun)?;
        match layout {
            Some(layout) if layout.size() != size => Err(BadFreeKind::WrongSize),
            _ => Ok(()),
        }
    }

    /// The bytes that a lent small object was asked for, unless something has been written beyond them.
    fn size_of(&self, class: SizeClass, address: usize) -> Option<usize> {
        let end = address + class.bytes() - TRAILER_BYTES;
        // SAFETY: the trailer of a lent slot, which is the heap's to write and was written when it was lent.
        let trailer = unsafe { memory::read(self.window.pointer(end)) };
        let slack = self.key().slack(address, trailer)?;
        let size = (class.bytes() - TRAILER_BYTES).checked_sub(slack)?;
        self.is_filled(address + size, slack, self.key().filler(address)).then_some(size)
    }

    /// Writes the canaries of an object of `size` bytes in a slot of `slot` bytes.
    fn seal(&self, address: usize, slot: usize, size: usize) {
        let (key, slack) = (self.key(), slot - TRAILER_BYTES - size);
        self.fill(address + size, slack, key.filler(address));
        let trailer = key.trailer(address, slack);
        // SAFETY: the end of a slot that is being lent, which is the heap's.
        unsafe { memory::write(self.window.pointer(address + slot - TRAILER_BYTES), trailer) };
    }

    /// Fills bytes that are the heap's: of an object that nobody has, or between the end of one and the end of its
    /// slot.
    fn fill(&self, address: usize, bytes: usize, with: u8) {
        // SAFETY: lent frames, by the promise of `init`, of which these bytes are nobody's, or the caller's user's who
        // has just given them up or has not got them yet.
        unsafe { memory::fill(self.window.pointer(address), bytes, with) };
    }

    /// Whether bytes that are the heap's, and were written by it, are all `same`.
    fn is_filled(&self, address: usize, bytes: usize, same: u8) -> bool {
        // SAFETY: as in `fill`; the heap has written all of them.
        unsafe { memory::is_all(self.window.pointer(address), bytes, same) }
    }

    fn is_poisoned(&self, address: usize, bytes: usize) -> bool {
        self.is_filled(address, bytes, C::POISON)
    }

    /// Brings the memory of a slab that nobody has yet to the poison.
    pub(crate) fn poison_slab(&self, start: usize, bytes: usize) {
        self.fill(start, bytes, C::POISON);
    }

    /// Looks at a slab of which nobody has anything, before its frames go: reports each object that was written after
    /// it had been freed. Nothing is held.
    #[cold]
    pub(crate) fn inspect_slab(&self, slab: &Slab<'m>, class: SizeClass) {
        for slot in 0..slab.slots() as usize {
            let address = slab.start() + slot * class.bytes();
            if !self.is_poisoned(address, class.bytes()) {
                self.accuse(BadFreeKind::WrittenAfterFree, address, class.bytes());
            }
        }
    }

    /// Reports what is wrong with an object.
    #[cold]
    fn accuse(&self, kind: BadFreeKind, address: usize, object_bytes: usize) -> BadFree {
        let fault = self.fault(kind, address, object_bytes);
        self.report(fault);
        fault
    }

    fn fault(&self, kind: BadFreeKind, address: usize, object_bytes: usize) -> BadFree {
        let block = self.slab_of(address).map_or(0, |slab| slab.start());
        BadFree { kind, address, object_bytes, block }
    }

    /// Refuses a free, and says why.
    #[cold]
    #[inline(never)]
    fn refuse_hardened(&self, address: usize, class: Option<SizeClass>) -> BadFree {
        let fault = self.explain_hardened(address, class);
        self.report(fault);
        fault
    }

    fn explain_hardened(&self, address: usize, class: Option<SizeClass>) -> BadFree {
        if let Some(block) = self.guarded(address) {
            return BadFree { kind: BadFreeKind::WrongSize, address, object_bytes: block.size, block: address };
        }
        let fault = self.explain(address, class);
        match fault.kind {
            // Its guard, where the block begins for what lies below.
            BadFreeKind::WrongSize => BadFree { kind: BadFreeKind::Interior, ..fault },
            _ => fault,
        }
    }

    /// The bytes that an object was asked for; `None` if none is lent there, or something was written beyond it.
    pub(crate) fn size_hardened(&self, address: usize) -> Option<usize> {
        match self.slab_of(address).and_then(|slab| slab.class().map(|class| (slab, class))) {
            Some((slab, class)) if self.is_lent(slab, class, address) => self.size_of(class, address),
            Some(_) => None,
            None => self.guarded(address).map(|block| block.size),
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
