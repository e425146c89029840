//! Whether the heap adds up.
//!
//! ```text
//! slots = free in slabs + in pools + in depots + held back + never lent again + lent
//! ```
//!
//! What is held back and what is never lent again there is only at `Hardened`.

use core::fmt;

use super::Heap;
use crate::config::Config;
use crate::id::CpuId;
use crate::platform::Platform;
use crate::size_class::SizeClass;
use crate::slab::Slab;
use crate::sync::Ordering;

/// Where the objects of one class are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClassCount {
    /// Slabs.
    pub slabs: usize,
    /// Slabs with nothing out.
    pub empty_slabs: usize,
    /// Slots of all slabs.
    pub slots: usize,
    /// Slots that are free in their slabs.
    pub free: usize,
    /// Objects in the pools of CPUs, and those that wait there to go home to another node.
    pub pooled: usize,
    /// Objects in depots.
    pub depot: usize,
    /// Objects in the quarantines of CPUs, at [`Hardened`](crate::Hardened).
    pub quarantined: usize,
    /// Objects that are never lent again, since they were written after they had been freed.
    pub condemned: usize,
}

impl ClassCount {
    /// Objects that users have: what the equation leaves.
    pub fn lent(&self) -> usize {
        // Saturating: while objects move, some may be counted twice.
        self.slots.saturating_sub(self.not_lent())
    }

    /// Objects that users do not have.
    fn not_lent(&self) -> usize {
        self.free + self.pooled + self.depot + self.quarantined + self.condemned
    }
}

/// Where all objects are. Exact while nothing moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapCensus {
    classes: [ClassCount; SizeClass::COUNT],
    /// Bytes of the descriptors of slabs, used or not.
    pub descriptor_bytes: usize,
    /// Bytes of freed large blocks that cannot be given back, since their guards stay closed.
    pub stuck_bytes: usize,
}

impl HeapCensus {
    /// The counts of a class.
    pub fn class(&self, class: SizeClass) -> &ClassCount {
        &self.classes[class.index()]
    }

    /// Small objects that users have.
    pub fn lent(&self) -> usize {
        self.classes.iter().map(ClassCount::lent).sum()
    }

    /// Bytes of the slots that users have.
    pub fn lent_bytes(&self) -> usize {
        SizeClass::all().map(|class| self.class(class).lent() * class.bytes()).sum()
    }
}

/// An invariant of the heap that does not hold: the allocator's own fault, or memory overwritten by somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeapInvalid {
    /// A slab's bits, count, marks or place in the lists contradict one another; its address.
    Slab(usize),
    /// More objects are in pools and depots than are out, or the marks tell another number of lent ones.
    Conservation {
        /// The class.
        class: SizeClass,
        /// Lent by the marks.
        by_marks: usize,
        /// Lent by what is left.
        by_census: usize,
    },
    /// A freed large block that is kept for the next request is none, or is kept twice, or they do not add up; its
    /// address.
    Kept(usize),
    /// Wrong frees were found only when the objects reached their slabs: so many.
    LateFaults(u64),
    /// A lock is held and this context may not wait for it.
    WouldBlock,
}

impl fmt::Display for HeapInvalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slab(start) => write!(f, "the slab at {start:#x} contradicts itself"),
            Self::Conservation { class, by_marks, by_census } => {
                let bytes = class.bytes();
                write!(f, "{by_marks} objects of {bytes} bytes are lent by their marks, {by_census} by what is left")
            }
            Self::Kept(start) => write!(f, "the large block at {start:#x} is kept, and is no free one"),
            Self::LateFaults(count) => write!(f, "{count} wrong frees were found at the slab"),
            Self::WouldBlock => f.write_str("a lock is held by what this context interrupted"),
        }
    }
}

impl core::error::Error for HeapInvalid {}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Every slab of the heap's own, once.
    pub(crate) fn slabs(&self) -> impl Iterator<Item = &'m Slab<'m>> {
        let base = self.window.base();
        let entries = self.directory.slice().iter().enumerate();
        entries.filter_map(move |(unit, entry)| {
            let first = |slab: &&Slab<'m>| slab.start() == base.wrapping_add(unit * C::SLAB_BYTES);
            entry.get().filter(|slab| slab.class().is_some()).filter(first)
        })
    }

    /// Counts every object. Looks at every slab; nothing is locked.
    pub fn census(&self) -> HeapCensus {
        let mut census = HeapCensus {
            classes: [ClassCount::default(); SizeClass::COUNT],
            descriptor_bytes: self.store.bytes(),
            stuck_bytes: self.hardening.stuck_bytes(),
        };
        for slab in self.slabs() {
            let Some(class) = slab.class() else { continue };
            let count = &mut census.classes[class.index()];
            count.slabs += 1;
            count.empty_slabs += usize::from(slab.used() == 0);
            count.slots += slab.slots() as usize;
            count.free += slab.free_bits() as usize;
        }
        let waiting = self.pools.all().iter().flat_map(|pool| pool.outbox.iter());
        let classes = waiting.filter_map(|address| self.slab_of(address)?.class());
        classes.for_each(|class| census.classes[class.index()].pooled += 1);
        for class in SizeClass::all() {
            let count = &mut census.classes[class.index()];
            count.pooled += self.pools.all().iter().map(|pool| pool.stacks.objects(class)).sum::<usize>();
            let depots = self.nodes().filter_map(|node| self.depot(node));
            count.depot = depots.map(|depot| depot.len(class)).sum();
            count.condemned = self.hardening.condemned(class);
        }
        let cpus = (0..self.pools.all().len() as u32).map(CpuId::new);
        for class in cpus.flat_map(|cpu| self.quarantined_on(cpu)) {
            census.classes[class.index()].quarantined += 1;
        }
        census
    }

    /// Checks every slab, and the equation over all objects. To be called while nothing moves.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<HeapCensus, HeapInvalid> {
        for node in self.nodes() {
            for class in SizeClass::all() {
                let Some(cache) = self.cache(node, class) else { continue };
                let checked = self.with_access(|access| cache.validate(access, |slab| slab.is_of(class)));
                checked.map_err(|_| HeapInvalid::WouldBlock)?.map_err(HeapInvalid::Slab)?;
            }
        }
        let mut marked = [0; SizeClass::COUNT];
        for slab in self.slabs() {
            let class = slab.class().ok_or(HeapInvalid::Slab(slab.start()))?;
            let mut lent_and_free = false;
            for slot in 0..slab.slots() {
                let lent = self.is_lent(slab, class, slab.start() + slot as usize * class.bytes());
                lent_and_free |= lent && slab.holds(slot);
                marked[class.index()] += usize::from(lent);
            }
            if lent_and_free || slab.free_bits() + slab.used() != slab.slots() {
                return Err(HeapInvalid::Slab(slab.start()));
            }
        }
        let census = self.census();
        for class in SizeClass::all() {
            let count = census.class(class);
            let (by_census, by_marks) = (count.lent(), marked[class.index()]);
            let too_many = count.not_lent() > count.slots;
            if too_many || C::CHECKED && by_census != by_marks {
                return Err(HeapInvalid::Conservation { class, by_marks, by_census });
            }
        }
        self.validate_kept()?;
        match self.late_faults.load(Ordering::Relaxed) {
            0 => Ok(census),
            late => Err(HeapInvalid::LateFaults(late)),
        }
    }
}
