//! The depot: where batches change hands between CPUs.
//!
//! ```text
//!   CPU 0 ─┐                        ┌─ CPU 1
//!          ├─► shard 0  shard 1 ◄───┤          each shard has a stack of rounds a class, and a lock for it
//!   CPU 2 ─┘                        └─ CPU 3
//! ```
//!
//! A batch is copied by value, so one lock and a copy of some cache lines pay for 128 objects, and no object is
//! touched. A CPU uses the shard of its number and looks at the others when that has nothing. What does not fit goes on
//! to the slabs. (Bonwick and Adams, "Magazines and Vmem", 2001, exchange full magazines; by value was no slower and
//! needs no magazines to lie about.)
//!
//! So does what nobody wants: after [`PATIENCE`] batches of a larger class with no look for any, each further batch
//! goes past the depot and takes one out of it along. If somebody looks for some after all it was too early, and there
//! may be twice as many from then on.
//!
//! Small objects do not go to and fro: a shard whose CPU takes from it refuses others the first time, and they go to
//! the slabs. Else objects of several CPUs, and the marks of them, would come to lie in every line of the processor's
//! cache, and stay there. One that nobody takes from any more, since one CPU frees what another one allocates, gives
//! them away.

use crate::arena::{Access, Busy};
use crate::carve::{Carver, Plan};
use crate::config::Config;
use crate::platform::{Pinned, Platform};
use crate::size_class::SizeClass;
use crate::sync::{AtomicU32, AtomicUsize, Lock, Ordering, PublishSlice, const_fn, mutant};

/// The most shards of a node: more would hold more idle memory than they save waiting.
pub(crate) const MAX_SHARDS: usize = 4;

/// Batches of a larger class that a shard takes in without anybody looking for any: 128 KiB of objects up to 8 KiB.
/// They keep whole slabs from going home.
const PATIENCE: usize = 8;

/// Rounds that a shard holds of a class.
const fn capacity<C: Config>(class: SizeClass) -> usize {
    if cfg!(any(loom, shuttle)) {
        return 2 * class.batch();
    }
    let by_bytes = C::DEPOT_BYTES / class.bytes();
    let most = if by_bytes < C::DEPOT_ROUNDS { by_bytes } else { C::DEPOT_ROUNDS };
    // Two batches at least, so that two CPUs can pass one to and fro.
    if most < 2 * class.batch() { 2 * class.batch() } else { most }
}

/// Rounds that a shard holds of all classes.
const fn rounds<C: Config>() -> usize {
    let (mut index, mut rounds) = (0, 0);
    while index < SizeClass::COUNT {
        if let Some(class) = SizeClass::new(index) {
            rounds += capacity::<C>(class);
        }
        index += 1;
    }
    rounds
}

/// The rounds of one class in one shard.
struct Stack<'m> {
    rounds: &'m mut [usize],
    len: usize,
}

/// What one shard holds of all classes.
#[repr(align(128))]
struct Load {
    bytes: AtomicUsize,
    /// With so much, a class has two batches at most.
    enough_bytes: usize,
}

/// One class in one shard.
struct Bin<'m, P: Platform> {
    stack: Lock<P, Stack<'m>>,
    /// What a look without the lock sees.
    len: AtomicU32,
    /// How many more rounds are welcome if nobody looks for one, and how many are after a look. A hint: a count that is
    /// missed now and then.
    patience: AtomicU32,
    most_patience: AtomicU32,
    /// 1 if another CPU was refused since one whose shard this is last looked, else 0. A hint as well.
    refusals: AtomicU32,
    /// As many as there is room for.
    capacity: u32,
}

/// The depot of one node.
pub(crate) struct Depot<'m, P: Platform> {
    bins: PublishSlice<'m, Bin<'m, P>>,
    loads: PublishSlice<'m, Load>,
}

impl<'m, P: Platform> Depot<'m, P> {
    pub(crate) const fn empty() -> Self {
        Self { bins: PublishSlice::empty(), loads: PublishSlice::empty() }
    }

    /// What a node with so many shards needs.
    pub(crate) const fn plan<C: Config>(plan: Plan, shards: usize) -> Plan {
        let plan = plan.and::<Bin<'static, P>>(shards * SizeClass::COUNT);
        plan.and::<Load>(shards).and::<usize>(shards * rounds::<C>())
    }

    /// Gives the depot its shards.
    pub(crate) fn init<C: Config>(&self, shards: usize, carver: &mut Carver<'m>) {
        let loads = carver.slice(shards, |_| Load::new(C::DEPOT_TOTAL_BYTES));
        let mut rest = carver.zeros_mut::<usize>(shards * rounds::<C>());
        let bins = carver.slice(shards * SizeClass::COUNT, |index| {
            let class = SizeClass::new(index % SizeClass::COUNT);
            let capacity = class.map_or(0, capacity::<C>);
            let rounds = rest.split_off_mut(..capacity).unwrap_or_default();
            let patience = class.map_or(0, |class| (PATIENCE * class.batch()) as u32);
            let stack = Lock::new(Stack { rounds, len: 0 });
            let [patience, most_patience] = [patience, patience].map(AtomicU32::new);
            let [len, refusals] = [0, 0].map(AtomicU32::new);
            Bin { stack, len, patience, most_patience, refusals, capacity: capacity as u32 }
        });
        if !bins.is_empty() {
            self.loads.set(loads);
            self.bins.set(bins);
        }
    }

    fn shards(&self) -> usize {
        self.bins.slice().len() / SizeClass::COUNT
    }

    fn bin(&self, shard: usize, class: SizeClass) -> Option<&'m Bin<'m, P>> {
        self.bins.slice().get(shard * SizeClass::COUNT + class.index())
    }

    /// Takes rounds out of one shard, without waiting if the access says so; answers how many, if any. They are wanted
    /// by somebody, or only to go.
    fn take_from(
        &self,
        shard: usize,
        access: Access<'_, P>,
        class: SizeClass,
        out: &mut [usize],
        is_wanted: bool,
    ) -> Option<usize> {
        let bin = self.bin(shard, class)?;
        // Relaxed: a look that saves a lock; who just misses a batch goes to the slabs.
        if bin.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let taken = bin.take(access, out).ok().filter(|&taken| taken > 0)?;
        if is_wanted {
            bin.be_patient();
        }
        self.loads.slice().get(shard)?.bytes.fetch_sub(taken * class.bytes(), Ordering::Relaxed);
        Some(taken)
    }

    /// Takes up to `out.len()` rounds of a class: out of the CPU's own shard, else of another that gives any away;
    /// answers how many.
    pub(crate) fn take(&self, pinned: &Pinned<P>, cpu: usize, class: SizeClass, out: &mut [usize]) -> usize {
        let shards = self.shards();
        if let Some(bin) = self.bin(cpu % shards.max(1), class) {
            bin.be_patient();
            bin.be_selfish();
        }
        let taken = (0..shards).find_map(|step| {
            let shard = (cpu + step) % shards;
            if step == 0 {
                return self.take_from(shard, Access::Wait(pinned), class, out, true);
            }
            let gives = class.is_larger() || self.bin(shard, class)?.gives();
            gives.then(|| self.take_from(shard, Access::Try, class, out, true))?
        });
        taken.unwrap_or(0)
    }

    /// Whether a batch of so many rounds is welcome in the CPU's own shard. One that is not should go to the slabs, and
    /// with it what [`shed`](Self::shed) takes out.
    pub(crate) fn welcomes(&self, cpu: usize, class: SizeClass, rounds: usize) -> bool {
        let Some(bin) = self.bin(cpu % self.shards().max(1), class) else { return false };
        if !class.is_larger() {
            return true;
        }
        let patience = bin.patience.load(Ordering::Relaxed);
        bin.patience.store(patience.saturating_sub(rounds as u32), Ordering::Relaxed);
        patience != 0
    }

    /// Takes up to `out.len()` rounds of a class out of the CPU's own shard that nobody wants; answers how many.
    pub(crate) fn shed(&self, pinned: &Pinned<P>, cpu: usize, class: SizeClass, out: &mut [usize]) -> usize {
        self.take_from(cpu % self.shards().max(1), Access::Wait(pinned), class, out, false).unwrap_or(0)
    }

    /// Puts a batch in; answers how many rounds of its beginning found room.
    pub(crate) fn put(&self, pinned: &Pinned<P>, cpu: usize, class: SizeClass, batch: &[usize]) -> usize {
        let shards = self.shards();
        if shards == 0 {
            return 0;
        }
        let shard = cpu % shards;
        let (Some(bin), Some(load)) = (self.bin(shard, class), self.loads.slice().get(shard)) else { return 0 };
        // Relaxed, here and where it is counted: a bound that may be missed by a batch a CPU.
        let enough = load.bytes.load(Ordering::Relaxed) >= load.enough_bytes;
        let kept = bin.put(pinned, batch, if enough { 2 * class.batch() } else { usize::MAX });
        load.bytes.fetch_add(kept * class.bytes(), Ordering::Relaxed);
        kept
    }

    /// Takes up to `out.len()` rounds of a class out of any shard, to give them back.
    pub(crate) fn drain(&self, access: Access<'_, P>, class: SizeClass, out: &mut [usize]) -> usize {
        (0..self.shards()).find_map(|shard| self.take_from(shard, access, class, out, false)).unwrap_or(0)
    }

    /// Its locks.
    #[cfg(not(loom))]
    pub(crate) fn each_lock(&self, each: &mut impl crate::heap::EachLock<P>) {
        self.bins.slice().iter().for_each(|bin| each.one(&bin.stack));
    }

    /// Rounds of a class in all shards.
    pub(crate) fn len(&self, class: SizeClass) -> usize {
        let bins = (0..self.shards()).filter_map(|shard| self.bin(shard, class));
        bins.map(|bin| bin.len.load(Ordering::Relaxed) as usize).sum()
    }
}

impl Load {
    const_fn! {
        const fn new(enough_bytes: usize) -> Self {
            Self { bytes: AtomicUsize::new(0), enough_bytes }
        }
    }
}

impl<P: Platform> Bin<'_, P> {
    /// Somebody has looked for a batch.
    fn be_patient(&self) {
        let (left, most) = (self.patience.load(Ordering::Relaxed), self.most_patience.load(Ordering::Relaxed));
        // Written if it changes something, since others look at it.
        if left == 0 {
            self.most_patience.store((2 * most).min(self.capacity), Ordering::Relaxed);
        }
        if left != most {
            self.patience.store(most, Ordering::Relaxed);
        }
    }

    /// A CPU whose shard this is has looked for a batch.
    fn be_selfish(&self) {
        if self.refusals.load(Ordering::Relaxed) != 0 {
            self.refusals.store(0, Ordering::Relaxed);
        }
    }

    /// Whether another CPU may have some: not the first time.
    fn gives(&self) -> bool {
        if self.len.load(Ordering::Relaxed) == 0 || self.refusals.load(Ordering::Relaxed) != 0 {
            return true;
        }
        self.refusals.store(1, Ordering::Relaxed);
        false
    }

    fn take(&self, access: Access<'_, P>, out: &mut [usize]) -> Result<usize, Busy> {
        let mut stack = match access {
            Access::Wait(pinned) => self.stack.lock(pinned),
            Access::Try => self.stack.try_lock().ok_or(Busy)?,
        };
        let count = stack.len.min(out.len());
        let left = stack.len - count;
        let len = stack.len;
        out[..count].copy_from_slice(&stack.rounds[left..len]);
        if !mutant("batch_taken_twice") {
            stack.len = left;
        }
        self.len.store(stack.len as u32, Ordering::Relaxed);
        Ok(count)
    }

    /// Puts in what there is room for, but no more than `most` then lie there.
    fn put(&self, pinned: &Pinned<P>, batch: &[usize], most: usize) -> usize {
        let mut stack = self.stack.lock(pinned);
        let len = stack.len;
        let count = batch.len().min(stack.rounds.len().min(most).saturating_sub(len));
        stack.rounds[len..len + count].copy_from_slice(&batch[..count]);
        stack.len = len + count;
        self.len.store(stack.len as u32, Ordering::Relaxed);
        count
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
