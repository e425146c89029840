//! The array stacks of one CPU, one for each size class, side by side.

#[cfg(loom)]
use super::OwnerUsize as Round;
use super::{OwnerU32, const_fn};
use crate::platform::Head;
use crate::size_class::SizeClass;

/// A round: plain memory of the owner's, at which nobody else ever looks, so that a batch is copied as a whole.
#[cfg(not(loom))]
#[repr(transparent)]
struct Round(core::cell::UnsafeCell<usize>);

#[cfg(not(loom))]
// SAFETY: reached by the stacks' owner alone, who is one thread at a time: every method that looks at rounds is the
// owner's, as the field's documentation says.
unsafe impl Sync for Round {}

#[cfg(not(loom))]
impl Round {
    const fn new(round: usize) -> Self {
        Self(core::cell::UnsafeCell::new(round))
    }

    #[inline(always)]
    fn get(&self) -> usize {
        // SAFETY: the owner's own memory, and no reference into it is ever kept.
        unsafe { *self.0.get() }
    }

    #[inline(always)]
    fn set(&self, round: usize) {
        // SAFETY: as in `get`.
        unsafe { *self.0.get() = round }
    }
}

/// How many rounds a batch of each class has: what goes to a depot at once. 128 rounds, but no more than 16 KiB of
/// objects if that leaves two: a hand-over costs little for each round of a long batch, and what lies in batches is
/// idle memory.
const BATCH: [u32; SizeClass::COUNT] = {
    let mut batch = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < SizeClass::COUNT {
        if let Some(size) = SizeClass::new(class) {
            let rounds = (16 << 10) / size.bytes();
            batch[class] = match rounds {
                _ if cfg!(any(loom, shuttle)) => 2,
                0..2 => 2,
                2..128 => rounds as u32,
                _ => 128,
            };
        }
        class += 1;
    }
    batch
};

/// How many rounds a deep stack of each class has room for: no more than 128 KiB of objects. What comes and goes at random
/// seldom leaves a long stack at either end. Two batches if there are no deep ones.
const CAPACITY: [u32; SizeClass::COUNT] = {
    let mut capacity = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < SizeClass::COUNT {
        if let Some(size) = SizeClass::new(class) {
            let deep = ((128 << 10) / size.bytes()) as u32;
            capacity[class] = match deep {
                _ if deep < 2 * BATCH[class] || !cfg!(feature = "deep-pools") || cfg!(any(loom, shuttle)) => {
                    2 * BATCH[class]
                }
                0..1024 => deep,
                _ => 1024,
            };
        }
        class += 1;
    }
    capacity
};

/// The bottom of each class's stack, and where the last one ends: there stands a 0 for ever, and on it up to two
/// batches. Another 0 stands at the beginning, where the stacks of a pool of zeros have their tops.
///
/// ```text
///   │ 0 │ 0 │ r │ r │ … │ 0 │ r │ r │ …       │ 0 │ r │ r │ r │ r │ r │ …
///     │   └ bottom of class 0   └ of class 1    └ bottom of class 0 when it is deep: `DEEP`
///     └ top of a stack that was never used
/// ```
///
/// A stack that is deep has moved to a place behind all of these, so that those that are not lie close together: where
/// memory costs nothing until it is touched, the others' places cost nothing.
const BOTTOM: [u32; SizeClass::COUNT + 1] = {
    let mut bottom = [1; SizeClass::COUNT + 1];
    let mut class = 0;
    while class < SizeClass::COUNT {
        bottom[class + 1] = bottom[class] + 2 * BATCH[class] + 1;
        class += 1;
    }
    bottom
};

/// The same of stacks that are deep. A class that is never deep has no place there.
const DEEP: [u32; SizeClass::COUNT + 1] = {
    let mut bottom = [BOTTOM[SizeClass::COUNT]; SizeClass::COUNT + 1];
    let mut class = 0;
    while class < SizeClass::COUNT {
        let is_ever = CAPACITY[class] > 2 * BATCH[class];
        bottom[class + 1] = bottom[class] + if is_ever { CAPACITY[class] + 1 } else { 0 };
        class += 1;
    }
    bottom
};

const ROUNDS: usize = DEEP[SizeClass::COUNT] as usize;

impl SizeClass {
    /// Rounds of a batch.
    #[inline(always)]
    pub(crate) const fn batch(self) -> usize {
        BATCH[self.index()] as usize
    }

    /// The most rounds of a stack.
    pub(crate) const fn stack_capacity(self) -> usize {
        CAPACITY[self.index()] as usize
    }

    /// The bottom of the stack that has this place.
    const fn bottom_of(self, place: u32) -> usize {
        let bottoms = if place < DEEP[0] { &BOTTOM } else { &DEEP };
        bottoms[self.index()] as usize
    }

    /// The bottom of the stack that may hold so many rounds, or words of marks.
    const fn bottom_for(self, limit: usize) -> usize {
        let bottoms = if limit <= 2 * self.batch() { &BOTTOM } else { &DEEP };
        bottoms[self.index()] as usize
    }
}

/// The place of a class in an array of [`SizeClass::PLACES`]: its number, and the compiler need not mask it.
#[inline(always)]
pub(crate) fn place_of(class: SizeClass) -> usize {
    let number = class.number();
    // SAFETY: a class is only ever made with a number up to that of the last, or with so many bits.
    unsafe { core::hint::assert_unchecked(number < SizeClass::PLACES) };
    number
}

/// Words below this are no addresses of objects: they stand in marks.
const TOKENS: usize = 64;

/// One stack: where its top is, and how far it may rise. Both are places among the rounds; both are 0 before its first
/// use.
#[repr(C)]
struct Fill {
    top: OwnerU32,
    limit: OwnerU32,
}

/// How a stack is reached. Where the class is a constant its place is one too.
///
/// Elsewhere compilers make each address anew, from the pool's and an index. Some x86-64 cores (Golden Cove) pass a
/// word that was stored on to the next load at once if neither address has an index register, and in seven cycles
/// otherwise. A top and a round that were stored a moment ago are what a request begins with, so these have registers
/// of their own.
#[derive(Clone, Copy)]
pub(crate) enum Reach {
    /// As compilers find best.
    Folded,
    /// The top by a register of its own.
    Stack,
    /// The same, where the class is never a constant.
    LateStack,
    /// The round too.
    LateRound,
}

impl Reach {
    #[inline(always)]
    fn fill(self, stacks: &Stacks, class: SizeClass) -> &Fill {
        let fill = &stacks.fills[place_of(class)];
        match self {
            Self::Folded => fill,
            Self::Stack => apart(fill),
            // SAFETY: the address of that fill.
            Self::LateStack | Self::LateRound => unsafe { late::<Fill, FILLS>(stacks, place_of(class), fill) },
        }
    }

    /// The round so many places above the top.
    ///
    /// # Safety
    /// As [`Stacks::round`].
    #[inline(always)]
    unsafe fn round<const ABOVE: usize>(self, stacks: &Stacks, top: u32) -> &Round {
        // SAFETY: the caller's promise.
        let round = unsafe { stacks.round(top + ABOVE as u32) };
        match self {
            // SAFETY: the address of that round.
            Self::LateRound if ABOVE == 0 => unsafe { late::<Round, ROUNDS_AT>(stacks, top as usize, round) },
            // SAFETY: as above.
            Self::LateRound => unsafe { late::<Round, NEXT_ROUND>(stacks, top as usize, round) },
            _ => round,
        }
    }

    /// The octave of a class. Where it is no constant the compiler does not know where it comes from: it would make
    /// multiples of it from the class, where an address has them for nothing.
    #[inline(always)]
    pub(crate) fn octave(self, class: SizeClass) -> usize {
        let octave = SizeClass::octave_of_place(place_of(class));
        #[cfg(all(target_arch = "x86_64", not(any(miri, loom, shuttle))))]
        if matches!(self, Self::LateStack | Self::LateRound) {
            let mut octave = octave;
            // SAFETY: no instructions at all: the register is as it was.
            unsafe {
                core::arch::asm!("/* {} */", inout(reg) octave, options(pure, nomem, nostack, preserves_flags));
            }
            // SAFETY: it is that of a place, as above.
            unsafe { core::hint::assert_unchecked(octave < SizeClass::OCTAVES) };
            return octave;
        }
        octave
    }
}

/// The same, of whose address the compiler knows nothing.
#[inline(always)]
fn apart<T>(it: &T) -> &T {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom, shuttle))))]
    {
        let mut place = core::ptr::from_ref(it);
        // SAFETY: no instructions at all: the register is as it was. `nomem` would be true as well, but what goes into
        // a block is expected to be followed there.
        unsafe { core::arch::asm!("/* {} */", inout(reg) place, options(pure, readonly, nostack, preserves_flags)) };
        // SAFETY: the reference that came in.
        unsafe { &*place }
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom, shuttle)))))]
    it
}

/// How far behind the start of a pool, which begins with its head and its stacks, these are.
const FILLS: usize = size_of::<Head>() + core::mem::offset_of!(Stacks, fills);
const ROUNDS_AT: usize = size_of::<Head>() + core::mem::offset_of!(Stacks, rounds);
const NEXT_ROUND: usize = ROUNDS_AT + size_of::<Round>();

/// The same, of whose address the compiler knows nothing, since it is made here: by one instruction, of which compilers
/// make two for the sake of cores that were slow at it.
///
/// # Safety
/// It lies `AT` bytes and `index` times its size behind where the pool of these stacks begins, or would.
#[inline(always)]
unsafe fn late<'a, T, const AT: usize>(stacks: &'a Stacks, index: usize, it: &'a T) -> &'a T {
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom, shuttle))))]
    {
        const { assert!(size_of::<T>() == 8) };
        let pool = core::ptr::from_ref(stacks).wrapping_byte_sub(size_of::<Head>());
        let place: *const T;
        // SAFETY: adds to an address, and touches nothing. As for `readonly`, see above.
        unsafe {
            core::arch::asm!(
                "lea {place}, [{pool} + 8 * {index} + {at}]",
                place = lateout(reg) place,
                pool = in(reg) pool,
                index = in(reg) index,
                at = const AT,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        debug_assert!(core::ptr::eq(place, it), "made anew, it is the same address");
        // SAFETY: the reference that came in, by the caller's promise.
        unsafe { &*place }
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, loom, shuttle)))))]
    {
        let _ = (stacks, index);
        it
    }
}

/// A stack of addresses for every class. Only their owner changes them; others may count.
///
/// Everywhere and always a used stack has `bottom <= top <= limit <= bottom + room`, of where it lies, deep or not. So the
/// fast path tests no bound: a push compares the top with the limit, a pop looks whether it got the 0 at the bottom, which
/// is no address. All zero bits are empty stacks that hold nothing, as [`Stacks::new`] makes them.
///
/// A **mark** says of the round below it that it is not to be had by the fast path: a 0 like the one at the bottom, so
/// that a pop finds nothing and goes the long way round. Below the 0 stands the mark's token, unless that is 0.
///
/// ```text
///   │ 0 │ r │ r │ r │ token │ 0 │ r │
///               └ the marked round
/// ```
#[repr(C)]
pub(crate) struct Stacks {
    fills: [Fill; SizeClass::PLACES],
    /// Only the owner's methods touch these.
    rounds: [Round; ROUNDS],
    /// Words of each stack that are no rounds but marks.
    marks: [OwnerU32; SizeClass::COUNT],
}

impl Stacks {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self {
                fills: [const { Fill { top: OwnerU32::new(0), limit: OwnerU32::new(0) } }; SizeClass::PLACES],
                rounds: [const { Round::new(0) }; ROUNDS],
                marks: [const { OwnerU32::new(0) }; SizeClass::COUNT],
            };
            #[cfg(loom)]
            return Self {
                fills: core::array::from_fn(|_| Fill { top: OwnerU32::new(0), limit: OwnerU32::new(0) }),
                rounds: core::array::from_fn(|_| Round::new(0)),
                marks: core::array::from_fn(|_| OwnerU32::new(0)),
            };
        }
    }

    #[inline(always)]
    fn fill(&self, class: SizeClass) -> &Fill {
        &self.fills[place_of(class)]
    }

    /// The round at a place.
    ///
    /// # Safety
    /// `place` is at most the bottom of some class's stack, deep or not, and what that has room for.
    #[inline(always)]
    unsafe fn round(&self, place: u32) -> &Round {
        // SAFETY: by the caller's promise it is before the next of `BOTTOM` or of `DEEP`, the last of which is `ROUNDS`.
        unsafe { self.rounds.get_unchecked(place as usize) }
    }

    /// How many rounds the stack holds, without its marks.
    pub(crate) fn objects(&self, class: SizeClass) -> usize {
        self.len(class).saturating_sub(self.marks[class.index()].get() as usize)
    }

    /// How many rounds the stack holds, and words of marks.
    pub(crate) fn len(&self, class: SizeClass) -> usize {
        let top = self.fill(class).top.get();
        (top as usize).saturating_sub(class.bottom_of(top))
    }

    /// How many it may hold.
    pub(crate) fn limit(&self, class: SizeClass) -> usize {
        let limit = self.fill(class).limit.get();
        (limit as usize).saturating_sub(class.bottom_of(limit))
    }

    /// Lets it hold so many, at least what it holds and at most its capacity.
    pub(crate) fn set_limit(&self, class: SizeClass, limit: usize) {
        let (len, from) = (self.len(class), self.bottom(class));
        let limit = limit.clamp(len, class.stack_capacity());
        let to = class.bottom_for(limit);
        if from != to {
            (1..=len).for_each(|place| self.rounds[to + place].set(self.rounds[from + place].get()));
        }
        let fill = self.fill(class);
        fill.top.set((to + len) as u32);
        fill.limit.set((to + limit) as u32);
    }

    fn bottom(&self, class: SizeClass) -> usize {
        class.bottom_of(self.fill(class).top.get())
    }

    /// The round that was put in last, and the one that is now on top, or 0.
    #[inline(always)]
    pub(crate) fn pop_and_peek(&self, class: SizeClass, reach: Reach) -> Option<(usize, usize)> {
        let fill = reach.fill(self, class);
        let top = fill.top.get();
        // SAFETY: a top is 0, or at most its stack's bottom and room.
        let round = unsafe { reach.round::<0>(self, top) }.get();
        if round == 0 {
            return None;
        }
        // SAFETY: below what is no 0 there is another round or the 0 at the bottom.
        let below = unsafe { self.round(top - 1) }.get();
        fill.top.set(top - 1);
        Some((round, below))
    }

    /// Puts a round in, unless the stack holds as many as it may.
    #[inline(always)]
    pub(crate) fn push(&self, class: SizeClass, round: usize) -> bool {
        self.room(class, Reach::Folded).map(|room| room.put(round)).is_some()
    }

    /// The place for one more round, unless the stack holds as many as it may.
    #[inline(always)]
    pub(crate) fn room(&self, class: SizeClass, reach: Reach) -> Option<Room<'_>> {
        let fill = reach.fill(self, class);
        let top = fill.top.get();
        // SAFETY: who puts a round in is the owner.
        if top >= unsafe { fill.limit.own() } {
            return None;
        }
        // SAFETY: one above it is at most the limit, which is at most the stack's bottom and room.
        let place = unsafe { reach.round::<1>(self, top) };
        Some(Room { place, top: &fill.top, next: top + 1 })
    }

    /// Fills the stack, which is empty, with up to `count` rounds: `fill` writes them from the first on into the slice
    /// that it gets, and answers how many.
    pub(crate) fn refill(&self, class: SizeClass, count: usize, fill: impl FnOnce(&mut [usize]) -> usize) {
        debug_assert_eq!(self.len(class), 0);
        let count = count.min(class.stack_capacity());
        self.set_limit(class, self.limit(class).max(count));
        let bottom = self.bottom(class);
        let filled = write_rounds(&self.rounds[bottom + 1..][..count], fill).min(count);
        self.fill(class).top.set((bottom + filled) as u32);
    }

    /// Takes the `count` rounds out that were put in first, all if there are fewer, and without their marks. `spill` is
    /// shown them before, and does nothing with the stack.
    pub(crate) fn take_oldest(&self, class: SizeClass, count: usize, spill: impl FnOnce(&[usize])) {
        let bottom = self.bottom(class);
        let rounds = &self.rounds[bottom + 1..][..self.len(class)];
        let mut count = count.min(rounds.len());
        if count == 0 {
            return;
        }
        let mut objects = count;
        if self.marks[class.index()].get() != 0 {
            // A round is not parted from its mark.
            count += rounds[count..].iter().take_while(|round| round.get() < TOKENS).count();
            objects = self.drop_marks(class, &rounds[..count]);
        }
        read_rounds(&rounds[..objects], spill);
        for place in count..rounds.len() {
            rounds[place - count].set(rounds[place].get());
        }
        self.fill(class).top.set((bottom + rounds.len() - count) as u32);
    }

    /// Moves rounds together, over the marks between them. Answers how many they are.
    fn drop_marks(&self, class: SizeClass, rounds: &[Round]) -> usize {
        let mut objects = 0;
        for round in rounds {
            if round.get() >= TOKENS {
                rounds[objects].set(round.get());
                objects += 1;
            }
        }
        let marks = &self.marks[class.index()];
        marks.set(marks.get() - (rounds.len() - objects) as u32);
        objects
    }

    /// Marks the round that has so many others and marks above it, unless there is a mark right there already, or no
    /// such round, or no room. The token is below 64.
    pub(crate) fn mark(&self, class: SizeClass, above: usize, token: usize) -> bool {
        let len = self.len(class);
        let words = if token == 0 { 1 } else { 2 };
        let Some(place) = len.checked_sub(above).filter(|&place| place > 0) else { return false };
        // Where it is: it is deep already, or does not become so by a mark.
        let most = if self.limit(class) <= 2 * class.batch() { 2 * class.batch() } else { class.stack_capacity() };
        let bottom = self.bottom(class);
        let all = &self.rounds[bottom + 1..][..most];
        if len + words > all.len() || all[place - 1].get() < TOKENS || token >= TOKENS {
            return false;
        }
        for from in (place..len).rev() {
            all[from + words].set(all[from].get());
        }
        all[place].set(token);
        all[place + words - 1].set(0);
        let marks = &self.marks[class.index()];
        marks.set(marks.get() + words as u32);
        self.set_limit(class, self.limit(class).max(len + words));
        self.fill(class).top.set((bottom + len + words) as u32);
        true
    }

    /// The round on top, if it is marked, and the mark's token.
    pub(crate) fn pop_marked(&self, class: SizeClass) -> Option<(usize, usize)> {
        let bottom = self.bottom(class);
        let rounds = &self.rounds[bottom + 1..][..self.len(class)];
        let (mark, below) = rounds.split_last().filter(|(mark, _)| mark.get() == 0)?;
        let (last, rest) = below.split_last()?;
        let (round, token, words) = match last.get() {
            token if token < TOKENS => (rest.last()?.get(), token, 2),
            round => (round, mark.get(), 1),
        };
        let marks = &self.marks[class.index()];
        marks.set(marks.get() - words);
        self.fill(class).top.set((bottom + rounds.len()) as u32 - words - 1);
        Some((round, token))
    }
}

/// Runs `read` on rounds. For their owner, who changes none meanwhile.
#[cfg(not(loom))]
#[inline]
fn read_rounds<R>(rounds: &[Round], read: impl FnOnce(&[usize]) -> R) -> R {
    // SAFETY: a round is a word; the owner, who calls this, changes none of these before the end, and nobody else does.
    read(unsafe { core::slice::from_raw_parts(rounds.as_ptr().cast(), rounds.len()) })
}

/// Runs `write` on rounds. For their owner, who does nothing else with them meanwhile.
#[cfg(not(loom))]
#[inline]
fn write_rounds<R>(rounds: &[Round], write: impl FnOnce(&mut [usize]) -> R) -> R {
    let first = rounds.as_ptr().cast::<usize>().cast_mut();
    // SAFETY: a round is a word in a cell; the owner, who calls this, looks at none of these before the end, and nobody
    // else does.
    write(unsafe { core::slice::from_raw_parts_mut(first, rounds.len()) })
}

#[cfg(loom)]
fn read_rounds<R>(rounds: &[Round], read: impl FnOnce(&[usize]) -> R) -> R {
    read(&rounds.iter().map(Round::get).collect::<std::vec::Vec<_>>())
}

#[cfg(loom)]
fn write_rounds<R>(rounds: &[Round], write: impl FnOnce(&mut [usize]) -> R) -> R {
    let mut copy: std::vec::Vec<_> = rounds.iter().map(Round::get).collect();
    let result = write(&mut copy);
    rounds.iter().zip(copy).for_each(|(round, value)| round.set(value));
    result
}

/// A place on a stack that nothing is in yet. Nothing else may be done with the stack until it is used or dropped.
pub(crate) struct Room<'a> {
    place: &'a Round,
    top: &'a OwnerU32,
    next: u32,
}

impl Room<'_> {
    /// Puts a round there, which is not 0.
    #[inline(always)]
    pub(crate) fn put(self, round: usize) {
        debug_assert!(round != 0);
        self.place.set(round);
        self.top.set(self.next);
    }
}

/// The longest batch of any class.
pub(crate) const MAX_BATCH: usize = 128;
const _: () = assert!(BATCH[0] as usize <= MAX_BATCH);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
