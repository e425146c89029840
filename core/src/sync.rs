//! The door to the memory model: atomics, the lock, what a CPU owns, what is published once.
//!
//! Everything that two CPUs can touch goes through this file, so that the model checker sees it: under `cfg(loom)` the
//! same names come from loom. The twins differ in nothing but two points. A lock here is the caller's `lock_api` lock;
//! there it is one word taken by `try_lock`, because loom's own mutex orders more than a lock promises and would hide a
//! missing fence. Words that only their owner writes are relaxed atomics here, so that statistics may peek; there they
//! are cells that report any access from elsewhere. Under `cfg(shuttle)` the atomics are a third kind, of `points`: the
//! same words with a choice of the next thread before every access.

mod chain;
#[cfg(shuttle)]
mod points;
mod stacks;

use core::marker::PhantomData;
use core::ptr;

pub(crate) use chain::{Chain, Chained, Link};
pub(crate) use stacks::{MAX_BATCH, Reach, Room, Stacks, place_of};

use crate::config::Config;
use crate::platform::{Desk, Head, Pinned, Platform};

#[cfg(shuttle)]
pub(crate) use core::sync::atomic::Ordering;
#[cfg(not(any(loom, shuttle)))]
pub(crate) use core::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{
    AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(all(shuttle, test))]
pub(crate) use points::PointLock;
#[cfg(shuttle)]
pub(crate) use points::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence};

/// Constructors are `const`, except under loom, whose atomics register themselves when they are made.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis const fn $($rest:tt)*) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $($rest)*
        #[cfg(loom)]
        $(#[$meta])* $vis fn $($rest)*
    };
}
pub(crate) use const_fn;

/// Whether the run of a model, or one under shuttle, has asked for the fault of this name; `false`, and gone,
/// everywhere else.
///
/// A model that passes with its faults switched on proves nothing, so each model runs once for each of its faults and
/// must fail every time.
#[inline(always)]
pub(crate) fn mutant(name: &str) -> bool {
    #[cfg(any(loom, shuttle))]
    return crate::models::mutant_is_on(name);
    #[cfg(not(any(loom, shuttle)))]
    {
        let _ = name;
        false
    }
}

/// Lets others go on, between two looks at what they may have changed.
pub(crate) fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    crate::models::give_way();
    #[cfg(not(any(loom, shuttle)))]
    core::hint::spin_loop();
}

/// Stands between two accesses that are `SeqCst`: loom knows that order of fences alone, and takes such accesses for
/// less.
#[inline(always)]
pub(crate) fn fence_in_models() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// A word that one CPU writes and anyone may peek at: relaxed moves, never a read-modify-write.
macro_rules! owner_word {
    ($(#[$meta:meta])* $name:ident, $word:ty, $atomic:path) => {
        $(#[$meta])*
        #[cfg(not(loom))]
        #[derive(Debug, Default)]
        pub(crate) struct $name($atomic);

        #[cfg(not(loom))]
        impl $name {
            pub(crate) const fn new(value: $word) -> Self {
                Self(<$atomic>::new(value))
            }

            #[inline(always)]
            pub(crate) fn get(&self) -> $word {
                // Relaxed: the owner reads its own writes; a peek from elsewhere is a statistic.
                self.0.load(Ordering::Relaxed)
            }

            #[inline(always)]
            pub(crate) fn set(&self, value: $word) {
                // Relaxed: nothing is handed over through this word.
                self.0.store(value, Ordering::Relaxed);
            }
        }

        #[cfg(loom)]
        #[derive(Debug)]
        pub(crate) struct $name(loom::cell::Cell<$word>);

        #[cfg(loom)]
        impl $name {
            pub(crate) fn new(value: $word) -> Self {
                Self(loom::cell::Cell::new(value))
            }

            pub(crate) fn get(&self) -> $word {
                self.0.get()
            }

            pub(crate) fn set(&self, value: $word) {
                self.0.set(value);
            }
        }

        #[cfg(loom)]
        // SAFETY: loom reports every access that is not ordered after the last one, which is the property at stake;
        // the cell is never reached without loom.
        unsafe impl Sync for $name {}
    };
}

owner_word!(
    /// A cursor or a counter of 32 bits: 16 bits cost a nanosecond and a half per pair on some cores.
    OwnerU32, u32, core::sync::atomic::AtomicU32
);

impl OwnerU32 {
    /// As `get`, by a plain load, which compilers fold into what is done with it.
    ///
    /// # Safety
    /// The caller is the owner.
    #[inline(always)]
    pub(crate) unsafe fn own(&self) -> u32 {
        #[cfg(not(loom))]
        // SAFETY: nobody else writes it, as the caller promises.
        return unsafe { *self.0.as_ptr() };
        #[cfg(loom)]
        self.get()
    }
}
owner_word!(
    /// A small limit.
    OwnerU8, u8, core::sync::atomic::AtomicU8
);
owner_word!(
    /// A mask or an event count.
    OwnerU64, u64, core::sync::atomic::AtomicU64
);
owner_word!(
    /// A frame number.
    OwnerUsize, usize, core::sync::atomic::AtomicUsize
);

/// Data behind the platform's lock.
///
/// Whoever waits for it shows a [`Pinned`]: the holder is then never interrupted into waiting for itself, because an
/// interrupt that finds the CPU pinned has no witness and only tries.
#[cfg(not(loom))]
pub(crate) struct Lock<P: Platform, T>(lock_api::Mutex<P::Lock, T>);

/// The right to the data of a [`Lock`], until dropped.
#[cfg(not(loom))]
pub(crate) type Guard<'a, P, T> = lock_api::MutexGuard<'a, <P as Platform>::Lock, T>;

#[cfg(not(loom))]
impl<P: Platform, T> Lock<P, T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(lock_api::Mutex::new(data))
    }

    /// Waits for the lock.
    #[inline]
    pub(crate) fn lock<'a>(&'a self, _pinned: &'a Pinned<P>) -> Guard<'a, P, T> {
        self.0.lock()
    }

    /// Waits for the lock, where nothing is kept per CPU and so nobody is pinned: the caller answers for it that its
    /// holder was not interrupted here.
    #[inline]
    pub(crate) fn wait(&self) -> Guard<'_, P, T> {
        self.0.lock()
    }

    /// Takes the lock if it is free now.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, P, T>> {
        self.0.try_lock()
    }

    /// Waits for the lock and keeps it, without an eye on the data, until [`release`](Self::release).
    pub(crate) fn seize(&self, pinned: &Pinned<P>) {
        core::mem::forget(self.lock(pinned));
    }

    /// # Safety
    /// The caller has the lock by [`seize`](Self::seize), and gives it back once.
    pub(crate) unsafe fn release(&self) {
        // SAFETY: it is held, and no guard of it is left.
        unsafe { self.0.force_unlock() }
    }
}

#[cfg(loom)]
pub(crate) use twin::{Guard, Lock};

#[cfg(loom)]
mod twin {
    #![allow(unsafe_code)]

    use core::marker::PhantomData;
    use core::ops::{Deref, DerefMut};

    use loom::cell::{MutPtr, UnsafeCell};
    use loom::sync::atomic::{AtomicU32, Ordering};

    use crate::platform::{Pinned, Platform};

    /// One word and a cell that loom watches.
    pub(crate) struct Lock<P: Platform, T> {
        held: AtomicU32,
        data: UnsafeCell<T>,
        platform: PhantomData<fn() -> P>,
    }

    // SAFETY: the data is reached only while `held` is 1, which one thread has set; loom checks the hand-over.
    unsafe impl<P: Platform, T: Send> Sync for Lock<P, T> {}

    /// Access to the data, until dropped.
    pub(crate) struct Guard<'a, P: Platform, T> {
        lock: &'a Lock<P, T>,
        data: Option<MutPtr<T>>,
    }

    impl<P: Platform, T> Lock<P, T> {
        pub(crate) fn new(data: T) -> Self {
            Self { held: AtomicU32::new(0), data: UnsafeCell::new(data), platform: PhantomData }
        }

        pub(crate) fn lock<'a>(&'a self, _pinned: &'a Pinned<P>) -> Guard<'a, P, T> {
            self.wait()
        }

        pub(crate) fn wait(&self) -> Guard<'_, P, T> {
            loop {
                if let Some(guard) = self.try_lock() {
                    return guard;
                }
                loom::thread::yield_now();
            }
        }

        pub(crate) fn try_lock(&self) -> Option<Guard<'_, P, T>> {
            // Acquire pairs with the Release of `drop`: the last holder's writes are seen.
            let taken = self.held.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            taken.ok().map(|_| Guard { lock: self, data: Some(self.data.get_mut()) })
        }
    }

    impl<P: Platform, T> Deref for Guard<'_, P, T> {
        type Target = T;
        fn deref(&self) -> &T {
            let data = self.data.as_ref().expect("held until dropped");
            // SAFETY: the lock is held, so nobody else has the data; loom watches the pointer.
            unsafe { data.deref() }
        }
    }

    impl<P: Platform, T> DerefMut for Guard<'_, P, T> {
        fn deref_mut(&mut self) -> &mut T {
            let data = self.data.as_ref().expect("held until dropped");
            // SAFETY: as above, and `&mut self` excludes a second borrow.
            unsafe { data.deref() }
        }
    }

    impl<P: Platform, T> Drop for Guard<'_, P, T> {
        fn drop(&mut self) {
            // The access ends before the lock does.
            self.data = None;
            self.lock.held.store(0, Ordering::Release);
        }
    }
}

/// Makes a type invariant in 'm: what goes in must live as long as what comes out says.
type Invariant<'m, T> = PhantomData<(&'m T, fn(&'m ()) -> &'m ())>;

#[cfg(not(shuttle))]
type PublishPtr<T> = core::sync::atomic::AtomicPtr<T>;
#[cfg(shuttle)]
type PublishPtr<T> = AtomicPtr<T>;

/// A place for one reference that is set once, or exchanged for another under somebody's lock, and read by anyone.
///
/// The store is Release and the load is Acquire, so what stands behind the reference is seen whole. Outside loom's
/// view: it belongs to setting up memory, and a model sets up before its threads start.
pub(crate) struct Publish<'m, T> {
    place: PublishPtr<T>,
    lives: Invariant<'m, T>,
}

impl<'m, T> Publish<'m, T> {
    pub(crate) const fn empty() -> Self {
        Self { place: PublishPtr::new(ptr::null_mut()), lives: PhantomData }
    }

    pub(crate) fn set(&self, value: Option<&'m T>) {
        let place = value.map_or(ptr::null(), ptr::from_ref);
        self.place.store(place.cast_mut(), core::sync::atomic::Ordering::Release);
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&'m T> {
        let place = self.place.load(core::sync::atomic::Ordering::Acquire);
        // SAFETY: it is null or came from a `&'m T` in `set`, and is only ever used as a shared reference.
        unsafe { place.as_ref() }
    }
}

/// A slice that is published once.
pub(crate) struct PublishSlice<'m, T> {
    first: core::sync::atomic::AtomicPtr<T>,
    len: core::sync::atomic::AtomicUsize,
    lives: Invariant<'m, T>,
}

impl<'m, T> PublishSlice<'m, T> {
    pub(crate) const fn empty() -> Self {
        Self {
            // Not null, so that no elements from here are a slice.
            first: core::sync::atomic::AtomicPtr::new(ptr::dangling_mut()),
            len: core::sync::atomic::AtomicUsize::new(0),
            lives: PhantomData,
        }
    }

    /// Publishes `slice`. Called once: a second slice of another length could be read mixed with the first.
    pub(crate) fn set(&self, slice: &'m [T]) {
        debug_assert!(self.slice().is_empty());
        // The pointer of the whole slice, not of its first element: it must reach all of them.
        self.first.store(slice.as_ptr().cast_mut(), core::sync::atomic::Ordering::Relaxed);
        // Release pairs with the Acquire of `slice`: a reader that sees the length sees the place.
        self.len.store(slice.len(), core::sync::atomic::Ordering::Release);
    }

    /// The slice, empty before it is published.
    #[inline(always)]
    pub(crate) fn slice(&self) -> &'m [T] {
        let len = self.len.load(core::sync::atomic::Ordering::Acquire);
        let first = self.first.load(core::sync::atomic::Ordering::Relaxed);
        // SAFETY: it is what `empty` or `set` stored, a dangling or a real element. Said because the compiler would
        // test the address of each element for null otherwise.
        unsafe { core::hint::assert_unchecked(!first.is_null()) };
        // SAFETY: a length other than 0 was stored after the place, both taken from one `&'m [T]` in the only `set`
        // there is, with a pointer that reaches the whole slice; before that the length is 0 and the place dangles.
        unsafe { core::slice::from_raw_parts(first, len) }
    }

    /// The same, for who got here through something that was published after it: a pool of the instance, or an address
    /// of an object. Plain loads, which compilers fold into what is done with them.
    #[inline(always)]
    pub(crate) fn settled(&self) -> &'m [T] {
        // SAFETY: the only write of it comes before the Release that published what the caller got here through.
        let len = unsafe { *self.len.as_ptr() };
        // SAFETY: as above.
        let first = unsafe { *self.first.as_ptr() };
        // SAFETY: as in `slice`.
        unsafe { core::hint::assert_unchecked(!first.is_null()) };
        // SAFETY: as in `slice`.
        unsafe { core::slice::from_raw_parts(first, len) }
    }
}

/// As many slices, each of which is published once: places beside places and lengths beside lengths, so that an index
/// finds either without being multiplied.
#[repr(C)]
pub(crate) struct PublishSlices<'m, T, const COUNT: usize> {
    first: [core::sync::atomic::AtomicPtr<T>; COUNT],
    len: [core::sync::atomic::AtomicUsize; COUNT],
    lives: Invariant<'m, T>,
}

impl<'m, T, const COUNT: usize> PublishSlices<'m, T, COUNT> {
    pub(crate) const fn empty() -> Self {
        Self {
            first: [const { core::sync::atomic::AtomicPtr::new(ptr::dangling_mut()) }; COUNT],
            len: [const { core::sync::atomic::AtomicUsize::new(0) }; COUNT],
            lives: PhantomData,
        }
    }

    /// As [`PublishSlice::set`].
    pub(crate) fn set(&self, index: usize, slice: &'m [T]) {
        debug_assert!(self.slice(index).is_empty());
        self.first[index].store(slice.as_ptr().cast_mut(), core::sync::atomic::Ordering::Relaxed);
        // Release pairs with the Acquire of `slice`, as there.
        self.len[index].store(slice.len(), core::sync::atomic::Ordering::Release);
    }

    /// As [`PublishSlice::slice`].
    #[inline(always)]
    pub(crate) fn slice(&self, index: usize) -> &'m [T] {
        let len = self.len[index].load(core::sync::atomic::Ordering::Acquire);
        let first = self.first[index].load(core::sync::atomic::Ordering::Relaxed);
        // SAFETY: as in `PublishSlice::slice`.
        unsafe { core::slice::from_raw_parts(first, len) }
    }

    /// As [`PublishSlice::settled`].
    #[inline(always)]
    pub(crate) fn settled(&self, index: usize) -> &'m [T] {
        // SAFETY: the only write of it comes before the Release that published what the caller got here through.
        let len = unsafe { *self.len[index].as_ptr() };
        // No plain load: it would be moved to where it is needed, and its address made a second time.
        let first = self.first[index].load(core::sync::atomic::Ordering::Relaxed);
        // SAFETY: as in `PublishSlice::slice`, and for the same reason.
        unsafe { core::hint::assert_unchecked(!first.is_null()) };
        // SAFETY: as in `PublishSlice::slice`.
        unsafe { core::slice::from_raw_parts(first, len) }
    }
}

/// A number that is set once, before what leads to who needs it is published.
pub(crate) struct Fixed(core::sync::atomic::AtomicUsize);

impl Fixed {
    pub(crate) const fn new(value: usize) -> Self {
        Self(core::sync::atomic::AtomicUsize::new(value))
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, core::sync::atomic::Ordering::Relaxed);
    }

    /// The number, or what it was before.
    #[inline(always)]
    pub(crate) fn get(&self) -> usize {
        self.0.load(core::sync::atomic::Ordering::Relaxed)
    }

    /// The number, for who got here as [`PublishSlice::settled`] has it.
    #[inline(always)]
    pub(crate) fn settled(&self) -> usize {
        // SAFETY: the only write of it comes before the Release that published what the caller got here through.
        unsafe { *self.0.as_ptr() }
    }
}

/// What each CPU has of its own: one `T` a CPU, reached by the CPU that shows it is pinned.
pub(crate) struct PerCpu<'m, T>(PublishSlice<'m, T>);

/// A word that no other CPU ever looks at.
pub(crate) struct OwnCell(core::cell::UnsafeCell<usize>);

// SAFETY: `get` and `set` are for one CPU, by their contract.
unsafe impl Sync for OwnCell {}

impl OwnCell {
    pub(crate) const fn new(value: usize) -> Self {
        Self(core::cell::UnsafeCell::new(value))
    }

    /// # Safety
    /// No other CPU calls `set`, ever.
    #[inline(always)]
    unsafe fn get(&self) -> usize {
        // SAFETY: nobody writes it at the same time.
        unsafe { *self.0.get() }
    }

    /// # Safety
    /// No other CPU calls `get` or `set`, ever.
    unsafe fn set(&self, value: usize) {
        // SAFETY: nobody reads or writes it at the same time.
        unsafe { *self.0.get() = value }
    }
}

/// Types that begin with a [`Head`].
///
/// # Safety
/// A pointer to a `Self` is a pointer to a `Head`.
pub(crate) unsafe trait HeadFirst {
    /// The desk that it is laid on: always the same, or it could be claimed twice.
    const DESK: usize;

    fn head(&self) -> &Head;
}

impl<T: HeadFirst> PerCpu<'static, T> {
    /// Lays the caller's own on its desk, to be found there from the end of this claim on.
    ///
    /// The table must stay where it is for ever: its address is what tells it from others.
    pub(crate) fn settle<const WHICH: usize, P: Platform>(&'static self, pinned: &Pinned<P>) -> bool {
        const { assert!(WHICH == T::DESK) };
        let Some(mine) = self.mine(pinned) else { return false };
        // SAFETY: it is this CPU's own, as `pinned` shows, and no other CPU has it on its desk.
        unsafe { mine.head().owner.set(self.address()) };
        // SAFETY: as above; a type of pools has one desk.
        unsafe { P::set_desk::<WHICH>(Desk::of(mine)) };
        true
    }
}

impl<'m, T> PerCpu<'m, T> {
    pub(crate) const fn empty() -> Self {
        Self(PublishSlice::empty())
    }

    pub(crate) fn set(&self, each: &'m [T]) {
        self.0.set(each);
    }

    /// The caller's own, or `None` if the instance was made for fewer CPUs or is not ready.
    #[inline(always)]
    pub(crate) fn mine<P: Platform>(&self, pinned: &Pinned<P>) -> Option<&'m T> {
        self.0.slice().get(pinned.cpu().index())
    }

    /// The caller's own by way of its desk, and the claim to it; `None` if something else lies there.
    #[inline(always)]
    pub(crate) fn at_desk<const WHICH: usize, P: Platform, C: Config>(&self) -> Option<(&'m T, Pinned<P>)>
    where
        T: HeadFirst,
    {
        const { assert!(WHICH == T::DESK) };
        // Not to claim is as good where nothing interrupts, which whoever initialised the instance has promised. And to
        // look first is as good where what interrupts leaves the same pool on the desk.
        let claims = C::INTERRUPTIBLE && !P::DESKS_STAY;
        let look = if claims { Pinned::take_desk::<WHICH> } else { Pinned::look_at_desk::<WHICH> };
        let (desk, mut pinned) = look();
        // SAFETY: by the promise of `Platform` it is what a desk was given: `EMPTY`, `CLAIMED`, or a `HeadFirst` that
        // lives for ever. All of them begin with a head, and are only ever shared.
        let head = unsafe { desk.place().cast::<Head>().as_ref() };
        // SAFETY: `EMPTY` and `CLAIMED` are never written, and the head of a pool by the CPU on whose desk it lies.
        let owner = unsafe { head.owner.get() };
        if owner != self.address() {
            return None;
        }
        if C::INTERRUPTIBLE && P::DESKS_STAY {
            pinned.claim_desk::<WHICH>(desk);
        }
        // SAFETY: only `settle` writes this table's address into a head, and only into those of its own elements.
        let mine = unsafe { desk.place().cast::<T>().as_ref() };
        Some((mine, pinned))
    }

    /// What stands for this table in a head.
    #[inline(always)]
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Everyone's, for requests to them and for statistics.
    pub(crate) fn all(&self) -> &'m [T] {
        self.0.slice()
    }
}
