//! The array stacks of one CPU, one for each size class, side by side.

#[cfg(loom)]
use super::OwnerUsize as Round;
use super::{OwnerU32, const_fn};
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

/// How many rounds a batch of each class has: what goes to a depot at once. 64 rounds, but no more than 16 KiB of objects
/// if that leaves two: a hand-over costs little for each round of a long batch, and what lies in batches is idle memory.
const BATCH: [u32; SizeClass::COUNT] = {
    let mut batch = [0; SizeClass::COUNT];
    let mut class = 0;
    while class < SizeClass::COUNT {
        if let Some(size) = SizeClass::new(class) {
            let rounds = (16 << 10) / size.bytes();
            batch[class] = match rounds {
                _ if cfg!(any(loom, shuttle)) => 2,
                0..2 => 2,
                2..64 => rounds as u32,
                _ => 64,
            };
        }
        class += 1;
    }
    batch
};

/// Where the rounds of each class begin, and where the last end: two batches each. Before the first there is one that is
/// never used, so that there is one below every round.
const START: [u32; SizeClass::COUNT + 1] = {
    let mut start = [1; SizeClass::COUNT + 1];
    let mut class = 0;
    while class < SizeClass::COUNT {
        start[class + 1] = start[class] + 2 * BATCH[class];
        class += 1;
    }
    start
};

const ROUNDS: usize = START[SizeClass::COUNT] as usize;

impl SizeClass {
    /// Rounds of a batch.
    #[inline(always)]
    pub(crate) const fn batch(self) -> usize {
        BATCH[self.index()] as usize
    }

    /// The most rounds of a stack.
    pub(crate) const fn stack_capacity(self) -> usize {
        2 * self.batch()
    }

    #[inline(always)]
    const fn start(self) -> usize {
        START[self.index()] as usize
    }
}

/// One stack: how much is in it, and how much may be.
struct Fill {
    len: OwnerU32,
    limit: OwnerU32,
}

/// A stack of addresses for every class. Only their owner changes them; others may count.
///
/// Everywhere and always `len <= limit <= capacity` holds, which is why the fast path tests one of them and no bound.
/// All zero bits are empty stacks that hold nothing, as [`Stacks::new`] makes them.
#[repr(C)]
pub(crate) struct Stacks {
    fills: [Fill; SizeClass::COUNT],
    /// Only the owner's methods touch these.
    rounds: [Round; ROUNDS],
}

impl Stacks {
    const_fn! {
        pub(crate) const fn new() -> Self {
            #[cfg(not(loom))]
            return Self {
                fills: [const { Fill { len: OwnerU32::new(0), limit: OwnerU32::new(0) } }; SizeClass::COUNT],
                rounds: [const { Round::new(0) }; ROUNDS],
            };
            #[cfg(loom)]
            return Self {
                fills: core::array::from_fn(|_| Fill { len: OwnerU32::new(0), limit: OwnerU32::new(0) }),
                rounds: core::array::from_fn(|_| Round::new(0)),
            };
        }
    }

    #[inline(always)]
    fn fill(&self, class: SizeClass) -> &Fill {
        &self.fills[class.index()]
    }

    /// The round at `place` of a class's stack.
    ///
    /// # Safety
    /// `place` is below the class's capacity.
    #[inline(always)]
    unsafe fn round(&self, class: SizeClass, place: u32) -> &Round {
        // SAFETY: by the caller's promise it is before `START` of the next class, which is at most `ROUNDS`.
        unsafe { self.rounds.get_unchecked(class.start() + place as usize) }
    }

    /// How many rounds the stack holds.
    #[inline(always)]
    pub(crate) fn len(&self, class: SizeClass) -> usize {
        self.fill(class).len.get() as usize
    }

    /// How many it may hold.
    pub(crate) fn limit(&self, class: SizeClass) -> usize {
        self.fill(class).limit.get() as usize
    }

    /// Lets it hold so many, at least what it holds and at most its capacity.
    pub(crate) fn set_limit(&self, class: SizeClass, limit: usize) {
        self.fill(class).limit.set(limit.clamp(self.len(class), class.stack_capacity()) as u32);
    }

    /// The round that was put in last, and the one that is now on top; if there is none, some other word.
    #[inline(always)]
    pub(crate) fn pop_and_peek(&self, class: SizeClass) -> Option<(usize, usize)> {
        let len = &self.fill(class).len;
        let last = len.get().checked_sub(1)?;
        let place = class.start() + last as usize;
        // SAFETY: `last` is below `len`, which is at most the capacity, so it is before the `START` of the next class.
        let round = unsafe { self.rounds.get_unchecked(place) }.get();
        // SAFETY: it is before that one, and the first `START` is not 0.
        let below = unsafe { self.rounds.get_unchecked(place - 1) }.get();
        len.set(last);
        Some((round, below))
    }

    /// Puts a round in, unless the stack holds as many as it may.
    #[inline(always)]
    pub(crate) fn push(&self, class: SizeClass, round: usize) -> bool {
        self.room(class).map(|room| room.put(round)).is_some()
    }

    /// The place for one more round, unless the stack holds as many as it may.
    #[inline(always)]
    pub(crate) fn room(&self, class: SizeClass) -> Option<Room<'_>> {
        let fill = self.fill(class);
        let next = fill.len.get();
        if next >= fill.limit.get() {
            return None;
        }
        // SAFETY: it is below `limit`, which is at most the capacity.
        let place = unsafe { self.round(class, next) };
        Some(Room { place, len: &fill.len, next })
    }

    /// Puts rounds in up to the stack's capacity, whatever its limit, which follows; answers how many.
    pub(crate) fn extend(&self, class: SizeClass, rounds: &[usize]) -> usize {
        let len = self.len(class);
        let count = rounds.len().min(class.stack_capacity() - len);
        for (place, &round) in rounds[..count].iter().enumerate() {
            // SAFETY: `len + count` is at most the capacity.
            unsafe { self.round(class, (len + place) as u32) }.set(round);
        }
        let fill = self.fill(class);
        fill.limit.set(fill.limit.get().max((len + count) as u32));
        fill.len.set((len + count) as u32);
        count
    }

    /// Takes the `count` rounds that were put in first into `out`, all if there are fewer; answers how many.
    pub(crate) fn take_oldest(&self, class: SizeClass, count: usize, out: &mut [usize]) -> usize {
        let start = class.start();
        let rounds = &self.rounds[start..][..self.len(class)];
        let count = count.min(rounds.len());
        for (out, round) in out[..count].iter_mut().zip(rounds) {
            *out = round.get();
        }
        for place in count..rounds.len() {
            rounds[place - count].set(rounds[place].get());
        }
        self.fill(class).len.set((rounds.len() - count) as u32);
        count
    }
}

/// A place on a stack that nothing is in yet. Nothing else may be done with the stack until it is used or dropped.
pub(crate) struct Room<'a> {
    place: &'a Round,
    len: &'a OwnerU32,
    next: u32,
}

impl Room<'_> {
    /// Puts a round there.
    #[inline(always)]
    pub(crate) fn put(self, round: usize) {
        self.place.set(round);
        self.len.set(self.next + 1);
    }
}

/// The longest batch of any class.
pub(crate) const MAX_BATCH: usize = 64;
const _: () = assert!(BATCH[0] as usize <= MAX_BATCH);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn class(bytes: usize) -> SizeClass {
        SizeClass::all().find(|class| class.bytes() == bytes).unwrap()
    }

    #[test]
    fn a_stack_gives_back_what_was_put_in_last_and_spills_what_was_first() {
        let (stacks, class) = (Stacks::new(), class(48));
        assert!(!stacks.push(class, 1), "it may hold nothing yet");
        stacks.set_limit(class, 4);
        assert!((1..=4).all(|round| stacks.push(class, round)) && !stacks.push(class, 5));
        let mut out = [0; 4];
        assert_eq!(stacks.take_oldest(class, 3, &mut out), 3);
        assert_eq!((out, stacks.len(class)), ([1, 2, 3, 0], 1));
        assert_eq!((stacks.pop_and_peek(class).map(|(round, _)| round), stacks.pop_and_peek(class)), (Some(4), None));
    }

    #[test]
    fn limits_stay_between_what_is_there_and_what_there_is_room_for() {
        let (stacks, class) = (Stacks::new(), class(32768));
        stacks.set_limit(class, 1000);
        assert_eq!(stacks.limit(class), class.stack_capacity());
        assert_eq!(stacks.extend(class, &[1; 100]), class.stack_capacity());
        stacks.set_limit(class, 0);
        assert_eq!(stacks.limit(class), class.stack_capacity());
        assert_eq!(stacks.take_oldest(class, 100, &mut [0; 100]), class.stack_capacity());
        stacks.set_limit(class, 0);
        assert!(!stacks.push(class, 1));
    }

    #[test]
    fn stacks_lie_side_by_side() {
        let stacks = Stacks::new();
        // Under Miri the short ones, of which there are enough.
        let classes = || SizeClass::all().filter(|class| !cfg!(miri) || class.stack_capacity() <= 8);
        for class in classes() {
            stacks.set_limit(class, usize::MAX);
            (0..class.stack_capacity()).for_each(|place| assert!(stacks.push(class, class.index() << 8 | place)));
        }
        for class in classes() {
            (0..class.stack_capacity()).rev().for_each(|place| {
                assert_eq!(stacks.pop_and_peek(class).map(|(round, _)| round), Some(class.index() << 8 | place));
            });
        }
        const { assert!(size_of::<Stacks>() < 28 << 10) };
    }
}
