//! The slabs of an object cache, by addresses: taken and put back, made and released. What is in the slots is not known
//! here.

use core::alloc::Layout;

use super::options::{CacheOptions, Cut};
use crate::arena::Busy;
use crate::cache::{Cache, CacheCount};
use crate::config::Config;
use crate::error::{AllocError, BadFree, BadFreeKind};
use crate::heap::{Heap, HeapInvalid};
use crate::platform::{Context, Platform};
use crate::slab::{Contents, Slab, Taker, bit_of};
use crate::sync::{AtomicU32, Ordering, const_fn};

pub(super) struct Slabs<'m, P: Platform, C: Config> {
    pub(super) heap: &'m Heap<'m, P, C>,
    pub(super) options: CacheOptions,
    /// `None` for objects that no slab is cut into.
    pub(super) cut: Option<Cut>,
    cache: Cache<'m, P>,
    /// The number by which its slabs know it, 0 before the first. Not its address, so that a cache can be moved.
    owner: AtomicU32,
    /// Slabs ever made: whose turn it is to be of which colour.
    turn: AtomicU32,
}

impl<'m, P: Platform, C: Config> Slabs<'m, P, C> {
    const_fn! {
        pub(super) const fn new(heap: &'m Heap<'m, P, C>, object: Layout, options: CacheOptions) -> Self {
            let cut = Cut::new::<C>(object, &options);
            Self { heap, options, cut, cache: Cache::new(), owner: AtomicU32::new(0), turn: AtomicU32::new(0) }
        }
    }

    /// Takes up to `most` slots; answers how many, which is fewer only if there are no more.
    pub(super) fn take(&self, most: usize, mut give: impl FnMut(usize)) -> Result<usize, AllocError> {
        let taken = self.heap.with_access(|access| self.cache.take(access, most, Taker::NOBODY, &mut give));
        taken.map_err(|Busy| AllocError::WouldBlock)
    }

    /// The slab and the slot of what is lent at `address`.
    pub(super) fn find(&self, address: usize) -> Result<(&'m Slab<'m>, u32), BadFree> {
        let foreign = BadFree { kind: BadFreeKind::Foreign, address, object_bytes: 0, block: 0 };
        // Relaxed: who has an object of this cache has seen its number.
        let owner = self.owner.load(Ordering::Relaxed);
        let Some(slab) = self.heap.slab_of(address).filter(|slab| slab.is_owned_by(owner)) else { return Err(foreign) };
        let Some(cut) = self.cut else { return Err(foreign) };
        let bad = |kind| BadFree { kind, address, object_bytes: cut.slot_bytes, block: slab.start() };
        // Whatever lies before the first slot wraps around and is behind the last.
        let offset = address.wrapping_sub(slab.start());
        if !offset.is_multiple_of(cut.slot_bytes) || offset / cut.slot_bytes >= slab.slots() as usize {
            return Err(bad(BadFreeKind::Interior));
        }
        let slot = (offset / cut.slot_bytes) as u32;
        if slab.holds(slot) { Err(bad(BadFreeKind::NotLent)) } else { Ok((slab, slot)) }
    }

    /// Puts one slot back: lock-free, and the bit decides which of two is wrong.
    pub(super) fn put(&self, address: usize) -> Result<(), BadFree> {
        let put = self.find(address).and_then(|(slab, slot)| {
            let (word, bit) = bit_of(slot);
            slab.put(word, bit).map_err(|_| self.not_lent(slab, address))?;
            self.cache.retire(slab, 1);
            Ok(())
        });
        put.inspect_err(|&fault| self.heap.report(fault))
    }

    fn not_lent(&self, slab: &Slab<'_>, address: usize) -> BadFree {
        let object_bytes = self.cut.map_or(0, |cut| cut.slot_bytes);
        BadFree { kind: BadFreeKind::NotLent, address, object_bytes, block: slab.start() }
    }

    /// Puts slots back in ascending order, all or none: those of one word go at once, and a slab counts once.
    ///
    /// What somebody else puts back at the same moment, which is wrong, is left out.
    pub(super) fn put_all(&self, addresses: impl Iterator<Item = usize> + Clone) -> Result<(), BadFree> {
        let mut last = None;
        for address in addresses.clone() {
            let found = self.find(address).and_then(|(slab, _)| match last.replace(address) {
                Some(last) if last == address => Err(self.not_lent(slab, address)),
                _ => Ok(()),
            });
            found.inspect_err(|&fault| self.heap.report(fault))?;
        }
        let mut slots = addresses.filter_map(|address| Some((address, self.find(address).ok()?))).peekable();
        while let Some((first, (slab, slot))) = slots.next() {
            let (mut word, mut mask) = bit_of(slot);
            let mut count = 0;
            while let Some((_, (_, slot))) = slots.next_if(|(_, (next, _))| core::ptr::eq(*next, slab)) {
                let (next_word, bit) = bit_of(slot);
                if next_word != word {
                    count += self.put_word(slab, first, word, mask);
                    (word, mask) = (next_word, 0);
                }
                mask |= bit;
            }
            count += self.put_word(slab, first, word, mask);
            if count > 0 {
                self.cache.retire(slab, count);
            }
        }
        Ok(())
    }

    /// Puts slots of one word back; answers how many were out.
    fn put_word(&self, slab: &'m Slab<'m>, first: usize, word: u32, mask: u64) -> u32 {
        match slab.put(word, mask) {
            Ok(()) => mask.count_ones(),
            Err(twice) => {
                self.heap.report(self.not_lent(slab, first));
                (mask & !twice.0).count_ones()
            }
        }
    }

    /// Whether there may be more than `keep` empty slabs.
    #[inline]
    pub(super) fn may_release(&self, keep: usize) -> bool {
        self.cache.may_release(keep)
    }

    /// A new slab, for its slots to be filled.
    pub(super) fn fresh(&self) -> Result<Unlisted<'_, 'm, P, C>, AllocError> {
        let cut = self.cut.ok_or(AllocError::Impossible)?;
        if !self.heap.is_ready() {
            return Err(AllocError::NotReady);
        }
        // What fills the slots may not be fit to be run here, and may be what was interrupted.
        if P::context() == Context::Nmi {
            return Err(AllocError::WouldBlock);
        }
        let owner = self.number()?;
        let contents = Contents::Objects { owner, slot_bytes: cut.slot_bytes as u32 };
        let skip = cut.colour(self.turn.fetch_add(1, Ordering::Relaxed));
        let node = self.options.node().unwrap_or_else(|| self.heap.home());
        let slab = self.heap.new_slab(cut.shape, contents, skip, node)?;
        Ok(Unlisted { slabs: self, slab: Some(slab), cut })
    }

    /// An empty slab, if there are more than `keep`.
    pub(super) fn release(&self, keep: usize) -> Option<Unlisted<'_, 'm, P, C>> {
        let cut = self.cut?;
        let slab = self.heap.with_access(|access| self.cache.release(access, keep)).ok()??;
        Some(Unlisted { slabs: self, slab: Some(slab), cut })
    }

    fn number(&self) -> Result<u32, AllocError> {
        let owner = self.owner.load(Ordering::Relaxed);
        if owner != 0 {
            return Ok(owner);
        }
        let new = self.heap.store.new_owner().ok_or(AllocError::Impossible)?;
        // Relaxed: the number alone matters. Of two CPUs that come first, one has wasted a number.
        Ok(self.owner.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed).err().unwrap_or(new))
    }

    /// The slabs, by a look at the whole directory.
    fn all(&self) -> impl Iterator<Item = &'m Slab<'m>> {
        let owner = self.owner.load(Ordering::Relaxed);
        let mut last: Option<&Slab<'_>> = None;
        let entries = self.heap.directory.slice().iter().filter_map(|entry| entry.get());
        // Each is entered once for every unit that it is long, one after another.
        entries.filter(move |&slab| {
            slab.is_owned_by(owner) && !last.replace(slab).is_some_and(|last| core::ptr::eq(last, slab))
        })
    }

    /// The addresses of the slots that are out.
    pub(super) fn lent(&self) -> impl Iterator<Item = usize> {
        let slot_bytes = self.cut.map_or(0, |cut| cut.slot_bytes);
        let out = |slab: &'m Slab<'m>| (0..slab.slots()).filter(|&slot| !slab.holds(slot));
        self.all().flat_map(move |slab| out(slab).map(move |slot| slab.start() + slot as usize * slot_bytes))
    }

    /// Counts; exact while nothing moves.
    pub(super) fn count(&self) -> Result<CacheCount, Busy> {
        self.heap.with_access(|access| self.cache.count(access))
    }

    /// Checks every slab. Exact while nothing moves.
    pub(super) fn validate(&self) -> Result<CacheCount, HeapInvalid> {
        let owner = self.owner.load(Ordering::Relaxed);
        let own = |slab: &Slab<'m>| slab.is_owned_by(owner);
        let listed = self.heap.with_access(|access| self.cache.validate(access, own));
        listed.map_err(|Busy| HeapInvalid::WouldBlock)?.map_err(HeapInvalid::Slab)?;
        let count = self.count().map_err(|Busy| HeapInvalid::WouldBlock)?;
        let mut slabs = 0;
        for slab in self.all() {
            if slab.free_bits() + slab.used() != slab.slots() {
                return Err(HeapInvalid::Slab(slab.start()));
            }
            slabs += 1;
        }
        if slabs == count.slabs { Ok(count) } else { Err(HeapInvalid::Slab(0)) }
    }
}

/// A slab that is in no list: nobody else has it. Dropped, it gives its frames back.
pub(super) struct Unlisted<'a, 'm, P: Platform, C: Config> {
    slabs: &'a Slabs<'m, P, C>,
    /// Until it is listed.
    slab: Option<&'m Slab<'m>>,
    cut: Cut,
}

impl<P: Platform, C: Config> Unlisted<'_, '_, P, C> {
    /// The first slot's address.
    pub(super) fn start(&self) -> usize {
        self.slab.map_or(0, Slab::start)
    }

    pub(super) fn cut(&self) -> Cut {
        self.cut
    }

    /// Lists it: from now on anybody may take its slots.
    pub(super) fn list(&mut self) -> Result<(), AllocError> {
        let Some(slab) = self.slab else { return Ok(()) };
        let added = self.slabs.heap.with_access(|access| self.slabs.cache.add(access, slab));
        added.map_err(|Busy| AllocError::WouldBlock)?;
        self.slab = None;
        Ok(())
    }
}

impl<P: Platform, C: Config> Drop for Unlisted<'_, '_, P, C> {
    fn drop(&mut self) {
        if let Some(slab) = self.slab {
            self.slabs.heap.dissolve(slab, self.cut.shape);
        }
    }
}
