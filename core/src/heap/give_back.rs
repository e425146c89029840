//! The slow half of `free`, and how objects, slabs and frames go home.

use super::Heap;
use crate::config::Config;
use crate::error::{BadFree, BadFreeKind, FreeError};
use crate::frame::{FrameCount, FrameRange, FrameSpan, Pfn};
use crate::id::NodeId;
use crate::order::{Block, Order};
use crate::platform::{Pinned, Platform};
use crate::pool::{ObjectPool, PARCEL};
use crate::size_class::SizeClass;
use crate::slab::{Shape, Slab, bit_of, slot_at};
use crate::sync::{MAX_BATCH, Ordering, mutant};

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Takes back a small object that the pool had no room for, or that is not for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn free_slow(&self, class: SizeClass, address: usize) {
        if class.is_larger() && self.free_leaving(class, address) {
            return;
        }
        self.poll();
        let mut late = Late::default();
        let Some(node) = self.slab_of(address).map(Slab::node) else {
            self.late_fault(address, &mut late);
            return self.tell(late);
        };
        late.spilled(class);
        if !self.keep(class, address, node, &mut late) {
            if C::NUMA && self.post(address, node, &mut late) {
                return self.tell(late);
            }
            self.put_back(class, &[address], &mut late);
        }
        // Whoever leaves spills classes of which nobody may free an object for long.
        let keep = self.empty_slabs();
        late.classes().for_each(|class| self.release_empty(class, node, keep));
        self.tell(late);
    }

    /// Gives an object of a larger class straight to its slab if this CPU is leaving, since it keeps none, and has
    /// nothing else to do; `false` if nothing has happened.
    fn free_leaving(&self, class: SizeClass, address: usize) -> bool {
        let Some(mut pinned) = P::pin() else { return false };
        let Some(pool) = self.pools.mine(&pinned) else { return false };
        if !pool.is_leaving(&mut pinned) || pool.is_asked(&self.drain_requests) {
            return false;
        }
        let Some(slab) = self.slab_of(address).filter(|slab| slab.is_of_on(class, pool.home())) else { return false };
        let node = pool.node();
        let (Some(slot), Some(cache)) = (slab.slot_of(class, address), self.cache(node, class)) else { return false };
        let (word, bit) = bit_of(slot);
        // What was there already is found once more, and told, by whoever is asked next.
        if slot >= Shape::of::<C>(class).slots || slab.put(word, bit).is_err() {
            return false;
        }
        drop(pinned);
        cache.retire(slab, 1);
        self.release_empty(class, node, C::KEEP_EMPTY_SLABS.min(1));
        true
    }

    /// How many empty slabs of a class there should be, as far as this CPU knows: one is enough for those who leave.
    fn empty_slabs(&self) -> usize {
        let Some(mut pinned) = P::pin() else { return C::KEEP_EMPTY_SLABS };
        let leaves = self.pools.mine(&pinned).is_some_and(|pool| pool.is_leaving(&mut pinned));
        if leaves { C::KEEP_EMPTY_SLABS.min(1) } else { C::KEEP_EMPTY_SLABS }
    }

    /// Leaves an object of another node where it waits for company on its way home; `false` if this CPU has no such
    /// place.
    fn post(&self, address: usize, node: NodeId, late: &mut Late) -> bool {
        let mut parcel = [0; PARCEL];
        let count = {
            let Some(mut pinned) = P::pin() else { return false };
            let Some(pool) = self.pools.mine(&pinned) else { return false };
            if pool.node() == node {
                return false;
            }
            if pool.outbox.put(address) {
                return true;
            }
            let count = pool.take_posted(&mut pinned, &mut parcel);
            let put = pool.outbox.put(address);
            debug_assert!(put, "it is empty now");
            count
        };
        self.send_home(&parcel[..count], late, |class, node| self.release_empty(class, node, C::KEEP_EMPTY_SLABS));
        true
    }

    /// Gives objects of any class to their slabs, and calls `then` with each class and node that got some.
    fn send_home(&self, objects: &[usize], late: &mut Late, then: impl Fn(SizeClass, NodeId)) {
        let kind = |address: usize| self.slab_of(address).and_then(|slab| Some((slab.class()?, slab.node())));
        for group in objects.chunk_by(|&one, &next| kind(one) == kind(next)) {
            match kind(group[0]) {
                Some((class, node)) => {
                    self.put_back(class, group, late);
                    then(class, node);
                }
                None => group.iter().for_each(|&address| self.late_fault(address, late)),
            }
        }
    }

    /// Keeps an object in this CPU's pool, making room if need be; `false` if it is not for this pool.
    fn keep(&self, class: SizeClass, address: usize, node: NodeId, late: &mut Late) -> bool {
        let Some(mut pinned) = P::pin() else { return false };
        let Some(pool) = self.pools.mine(&pinned) else { return false };
        if pool.node() != node {
            return false;
        }
        if pool.put(&mut pinned, class, address) {
            return true;
        }
        if class.is_larger() && pool.is_leaving(&mut pinned) {
            return false;
        }
        let count = pool.spill_count(&mut pinned, class);
        self.spill(&mut pinned, pool, class, count, late);
        if pool.begins_to_tear_down(&mut pinned) {
            while let Some(class) = pool.next_at_hand(&mut pinned) {
                self.spill(&mut pinned, pool, class, usize::MAX, late);
                pool.close(&mut pinned, class, &self.deep);
            }
        }
        if class.is_larger() && pool.is_leaving(&mut pinned) {
            while let Some(held) = pool.next_held(&mut pinned) {
                self.spill(&mut pinned, pool, held, usize::MAX, late);
                pool.close(&mut pinned, held, &self.deep);
            }
            return false;
        }
        if pool.set_limit(&mut pinned, class, &self.deep) {
            while let Some(stream) = pool.next_stream(&mut pinned) {
                self.spill(&mut pinned, pool, stream, usize::MAX, late);
                pool.close(&mut pinned, stream, &self.deep);
            }
            pool.set_limit(&mut pinned, class, &self.deep);
        }
        pool.put(&mut pinned, class, address)
    }

    /// Gives the `count` oldest rounds of a stack to the depot, and what it has no room for to the slabs.
    fn spill(&self, pinned: &mut Pinned<P>, pool: &ObjectPool, class: SizeClass, count: usize, late: &mut Late) {
        let (depot, cpu) = (self.depot(pool.node()), pinned.cpu().index());
        late.spilled(class);
        let mut is_welcome = true;
        pool.stacks.take_oldest(class, count, |batch| {
            is_welcome = depot.is_some_and(|depot| depot.welcomes(cpu, class, batch.len()));
            let room = depot.filter(|_| is_welcome);
            let kept = room.map_or(0, |depot| depot.put(pinned, cpu, class, batch));
            self.put_back(class, &batch[kept..], late);
            if class.is_larger() {
                pool.note_spill(pinned, batch.len() * class.bytes(), is_welcome);
            }
        });
        if let Some(depot) = depot.filter(|_| !is_welcome) {
            let mut unwanted = [0; MAX_BATCH];
            let count = depot.shed(pinned, cpu, class, &mut unwanted);
            self.put_back(class, &unwanted[..count], late);
        }
    }

    /// Gives everything that a pool holds to the slabs.
    fn empty_pool(&self, pinned: &mut Pinned<P>, pool: &ObjectPool, late: &mut Late) {
        if C::HARDENED {
            self.empty_quarantine(pinned, |class, address| self.put_back(class, &[address], late));
        }
        for class in SizeClass::all() {
            pool.stacks.take_oldest(class, usize::MAX, |rounds| self.put_back(class, rounds, late));
            pool.close(pinned, class, &self.deep);
        }
        let mut parcel = [0; PARCEL];
        let count = pool.take_posted(pinned, &mut parcel);
        // Whoever empties a pool looks for empty slabs of all classes afterwards.
        self.send_home(&parcel[..count], late, |_, _| ());
    }

    /// Gives objects back to their slabs, with no lock: neighbours that follow one another go as one.
    fn put_back(&self, class: SizeClass, objects: &[usize], late: &mut Late) {
        let mut left = objects;
        while let Some((&address, others)) = left.split_first() {
            let found = self.slab_of(address).filter(|slab| slab.is_of(class));
            let taken = found.map_or(0, |slab| self.put_in(class, slab, left, late));
            if taken == 0 {
                self.late_fault(address, late);
            }
            left = left.get(taken..).filter(|_| taken != 0).unwrap_or(others);
        }
    }

    /// Gives those at the beginning of `objects` back that lie in a slab of their class, and answers how many. A word's
    /// bits are set together, and the slab learns at last how many came.
    fn put_in(&self, class: SizeClass, slab: &'m Slab<'m>, objects: &[usize], late: &mut Late) -> usize {
        let (shape, start) = (Shape::of::<C>(class), slab.start());
        let (mut last, mut mask, mut count, mut taken) = (0, 0, 0, 0);
        for &address in objects {
            let offset = address.wrapping_sub(start);
            if offset >= shape.bytes {
                break;
            }
            taken += 1;
            let Some(slot) = slot_at(class, offset).filter(|&slot| slot < shape.slots) else {
                self.late_fault(address, late);
                continue;
            };
            let (word, bit) = bit_of(slot);
            if word != last || mask & bit != 0 {
                count += self.put_word(class, slab, last, mask, late);
                (last, mask) = (word, 0);
            }
            mask |= bit;
        }
        count += self.put_word(class, slab, last, mask, late);
        if count != 0
            && let Some(cache) = self.cache(slab.node(), class)
        {
            cache.retire(slab, count);
        }
        taken
    }

    /// Sets the bits of a word, and answers how many of them were not.
    fn put_word(&self, class: SizeClass, slab: &'m Slab<'m>, word: u32, mask: u64, late: &mut Late) -> u32 {
        if mask == 0 {
            return 0;
        }
        let fresh = match slab.put(word, mask) {
            Ok(()) => mask,
            Err(twice) => {
                // Each of them: two CPUs in step with one another meet at several slots of a word.
                for bit in (0..u64::BITS).filter(|bit| twice.0 >> bit & 1 != 0) {
                    let slot = word * u64::BITS + bit;
                    self.late_fault(slab.start() + slot as usize * class.bytes(), late);
                }
                mask & !twice.0
            }
        };
        fresh.count_ones()
    }

    /// Notes a wrong free that got as far as its slab.
    #[cold]
    fn late_fault(&self, address: usize, late: &mut Late) {
        self.late_faults.fetch_add(1, Ordering::Relaxed);
        let slab = self.slab_of(address);
        let object_bytes = slab.and_then(Slab::class).map_or(0, SizeClass::bytes);
        let block = slab.map_or(0, Slab::start);
        late.fault = Some(BadFree { kind: BadFreeKind::NotLent, address, object_bytes, block });
    }

    /// Reports the last wrong free that was found at a slab. Nothing is held.
    fn tell(&self, late: Late) {
        if let Some(fault) = late.fault {
            self.report(fault);
        }
    }

    /// Gives the frames of empty slabs back, all but `keep` of them. Nothing is held.
    pub(crate) fn release_empty(&self, class: SizeClass, node: NodeId, keep: usize) {
        let Some(cache) = self.cache(node, class) else { return };
        if !cache.may_release(keep) {
            return;
        }
        // As many as there were: others may make new ones for as long as this takes.
        let mut dissolved = false;
        for _ in 0..cache.slabs() {
            let Ok(Some(slab)) = self.with_access(|access| cache.release(access, keep)) else { break };
            if C::HARDENED {
                self.inspect_slab(slab, class);
            }
            self.dissolve(slab, Shape::of::<C>(class));
            dissolved = true;
        }
        if dissolved {
            self.tell_released();
        }
    }

    /// Gives the frames of a slab back that no cache has any more.
    pub(crate) fn dissolve(&self, slab: &'m Slab<'m>, shape: Shape) {
        // Its first slot may lie somewhat behind its first byte.
        let offset = slab.start().wrapping_sub(self.window.base()) & !(shape.bytes - 1);
        let start = self.window.base().wrapping_add(offset);
        for unit in 0..shape.bytes / C::SLAB_BYTES {
            self.enter(start + unit * C::SLAB_BYTES, None);
        }
        let head = Pfn::new(offset / C::FRAME_BYTES);
        let count = FrameCount::new(shape.bytes / C::FRAME_BYTES);
        if let Ok(span) = FrameSpan::new(head, count) {
            self.frames.unhold(span);
            let freed = self.free_frames(span);
            debug_assert_eq!(freed, Ok(()));
        }
        self.give_descriptor(shape.slots, slab);
    }

    /// Gives frames back that are lent to this heap and marked as held no more.
    pub(crate) fn free_frames(&self, span: FrameSpan) -> Result<(), FreeError> {
        let head = span.start();
        let order = Order::new(span.count().get().ilog2()).filter(|order| order.count() == span.count());
        match order {
            Some(order) if head.number().is_multiple_of(order.frames()) => self.frames.free(Block::new(head, order)),
            _ => self.frames.free_range(FrameRange::from_raw(span)),
        }
    }

    /// Gives back what lies idle: this CPU's objects, the depots', the frames of every empty slab and of the large
    /// blocks that are kept; then the frames' own pools. What other CPUs hold comes when they next run a slow path or
    /// [`poll`](Self::poll). Nobody waits for them.
    pub fn drain(&self) {
        self.request_drain();
        self.poll();
        self.trim();
        self.frames.drain();
    }

    /// Asks every CPU for what its pool holds.
    pub(crate) fn request_drain(&self) {
        // Release: pairs with the Acquire of `honour`.
        if mutant("request_plain") {
            self.drain_requests.store(self.drain_requests.load(Ordering::Relaxed) + 1, Ordering::Release);
        } else {
            self.drain_requests.fetch_add(1, Ordering::Release);
        }
        P::kick();
    }

    /// Honours what other CPUs have asked this one for. For its idle loop and its interrupt for that purpose; cheap
    /// when nothing was asked.
    pub fn poll(&self) {
        let Some(mut pinned) = P::pin() else { return };
        let Some(pool) = self.pools.mine(&pinned) else { return };
        if !pool.is_asked(&self.drain_requests) {
            return;
        }
        // Acquire: pairs with the Release of the request.
        let epoch = self.drain_requests.load(Ordering::Acquire);
        let mut late = Late::default();
        self.empty_pool(&mut pinned, pool, &mut late);
        pool.set_drained(&mut pinned, epoch);
        drop(pinned);
        // Whoever asked wants frames, and has looked for empty slabs already.
        self.release_all_empty(0);
        self.tell(late);
    }

    /// Gives back what this CPU's pool holds, and asks no other CPU: for one that goes to sleep for long, for a thread
    /// that ends.
    pub fn drain_cpu(&self) {
        let Some(mut pinned) = P::pin() else { return };
        let mut late = Late::default();
        if let Some(pool) = self.pools.mine(&pinned) {
            self.empty_pool(&mut pinned, pool, &mut late);
        }
        drop(pinned);
        self.release_all_empty(C::KEEP_EMPTY_SLABS);
        self.tell(late);
    }

    fn release_all_empty(&self, keep: usize) {
        for class in SizeClass::all() {
            for node in self.nodes() {
                self.release_empty(class, node, keep);
            }
        }
    }

    /// Gives the objects in depots to their slabs, and the frames of all empty slabs and kept large blocks back.
    pub fn trim(&self) {
        for node in self.nodes() {
            for class in SizeClass::all() {
                self.empty_depot(node, class);
                self.release_empty(class, node, 0);
            }
        }
        self.trim_large();
    }

    pub(crate) fn empty_depot(&self, node: NodeId, class: SizeClass) {
        let Some(depot) = self.depot(node) else { return };
        let mut rounds = [0; MAX_BATCH];
        let mut late = Late::default();
        // As many as there were: others may put more in for as long as this takes.
        let mut left = depot.len(class);
        while left > 0 {
            let batch = &mut rounds[..left.min(MAX_BATCH)];
            let Ok(taken @ 1..) = self.with_access(|access| Ok(depot.drain(access, class, batch))) else { break };
            left -= taken;
            self.put_back(class, &batch[..taken], &mut late);
        }
        self.tell(late);
    }

    /// The nodes that the heap was made for.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<P, C> {
        (0..self.depots.slice().len() as u32).filter_map(NodeId::new)
    }
}

/// What is to be done when nothing is held any more.
#[derive(Default)]
struct Late {
    /// The last wrong free that was found at a slab, to be told.
    fault: Option<BadFree>,
    /// A bit a class of which slabs got something.
    spilled: u128,
}

impl Late {
    fn spilled(&mut self, class: SizeClass) {
        const { assert!(SizeClass::COUNT <= u128::BITS as usize) };
        self.spilled |= 1 << class.index();
    }

    fn classes(&self) -> impl Iterator<Item = SizeClass> + use<> {
        let mut left = self.spilled;
        core::iter::from_fn(move || {
            let bit = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            SizeClass::new(bit as usize)
        })
    }
}
