//! What comes in no order: freed objects on their way through the quarantine, slots on their way into a pool.

use super::quarantine::{Held, Quarantine};
use crate::config::Config;
use crate::heap::Heap;
use crate::id::CpuId;
use crate::platform::{Pinned, Platform};
use crate::size_class::SizeClass;

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    fn quarantine_of(&self, cpu: CpuId) -> Option<Quarantine<'m>> {
        Quarantine::of(self.hardening.state.get()?.quarantines, cpu.index(), C::QUARANTINE_OBJECTS)
    }

    /// Lays an object that nobody has any more into this CPU's quarantine, and really frees what that drives out.
    /// Without a pin, or on a CPU without a pool, nothing waits.
    pub(super) fn hold_back(&self, class: SizeClass, address: usize) {
        let held = Held { offset: address.wrapping_sub(self.window.base()), class };
        let mut out = if C::QUARANTINE_OBJECTS == 0 || class.bytes() > C::QUARANTINE_BYTES {
            Some(held)
        } else {
            self.replace(Some(held))
        };
        while let Some(held) = out {
            self.free_slow(held.class, self.address_of_held(held));
            out = self.replace(None);
        }
    }

    /// Lays an object, if there is one, on a random place, and puts what lay there into the pool; then whatever else is
    /// too much. Answers what the pool does not take: the caller frees that, and calls again.
    fn replace(&self, held: Option<Held>) -> Option<Held> {
        let Some(mut pinned) = P::pin() else { return held };
        let Some(quarantine) = self.quarantine_of(pinned.cpu()) else { return held };
        let mut out = held.and_then(|held| {
            let place = self.random_below(&mut pinned, quarantine, C::QUARANTINE_OBJECTS);
            quarantine.exchange(&mut pinned, place, Some(held))
        });
        loop {
            if let Some(held) = out
                && !self.put_held(&mut pinned, held)
            {
                return Some(held);
            }
            if quarantine.bytes() <= C::QUARANTINE_BYTES {
                return None;
            }
            let start = self.random_below(&mut pinned, quarantine, C::QUARANTINE_OBJECTS);
            let place = quarantine.occupied_from(&mut pinned, start)?;
            out = quarantine.exchange(&mut pinned, place, None);
        }
    }

    /// Puts an object into this CPU's pool, if that has room and holds such objects.
    fn put_held(&self, pinned: &mut Pinned<P>, held: Held) -> bool {
        let address = self.address_of_held(held);
        let Some(pool) = self.pools.mine(pinned) else { return false };
        let local = !C::NUMA || self.slab_of(address).is_some_and(|slab| slab.is_of_on(held.class, pool.home()));
        local && pool.put(pinned, held.class, address)
    }

    fn address_of_held(&self, held: Held) -> usize {
        self.window.base().wrapping_add(held.offset)
    }

    fn random_below(&self, pinned: &mut Pinned<P>, quarantine: Quarantine<'_>, end: usize) -> usize {
        let cpu = pinned.cpu().index();
        quarantine.below(pinned, end, || self.key().seed(cpu))
    }

    /// Empties this CPU's quarantine: `home` is called with each object.
    pub(crate) fn empty_quarantine(&self, pinned: &mut Pinned<P>, mut home: impl FnMut(SizeClass, usize)) {
        let Some(quarantine) = self.quarantine_of(pinned.cpu()) else { return };
        if quarantine.bytes() == 0 {
            return;
        }
        for place in 0..C::QUARANTINE_OBJECTS {
            if let Some(held) = quarantine.exchange(pinned, place, None) {
                home(held.class, self.address_of_held(held));
            }
        }
    }

    /// What lies in the quarantine of a CPU. Exact while nothing moves.
    pub(crate) fn quarantined_on(&self, cpu: CpuId) -> impl Iterator<Item = SizeClass> {
        let quarantine = self.quarantine_of(cpu).filter(|_| C::HARDENED);
        quarantine.into_iter().flat_map(Quarantine::all).map(|held| held.class)
    }

    /// Brings slots that are about to come into a pool out of order (Fisher and Yates): which address comes next does
    /// not follow from the last.
    pub(crate) fn shuffle(&self, pinned: &mut Pinned<P>, batch: &mut [usize]) {
        let Some(quarantine) = self.quarantine_of(pinned.cpu()) else { return };
        for end in (2..=batch.len()).rev() {
            let place = self.random_below(pinned, quarantine, end);
            batch.swap(place, end - 1);
        }
    }
}
