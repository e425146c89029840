//! An object cache beside a naive twin: a set of the addresses that are lent, and a number in each of the objects.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::tests::frames_lent;
use super::*;
use crate::error::BadFreeKind;
use crate::testing::{Roomy as Checked, Sim, heap};

#[derive(Clone, Debug)]
enum Op {
    Alloc,
    Bulk(usize),
    /// Of the lent ones, by turns.
    Free(usize),
    FreeBulk(usize, usize),
    /// As above, with one of them twice.
    FreeTwice(usize, usize),
    /// Of what was freed.
    FreeAgain(usize),
    Inside(usize, usize),
    Shrink,
    Interrupted(bool, usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Alloc),
        2 => (1usize..40).prop_map(Op::Bulk),
        4 => any::<usize>().prop_map(Op::Free),
        2 => (any::<usize>(), 1usize..40).prop_map(|(pick, count)| Op::FreeBulk(pick, count)),
        1 => (any::<usize>(), 1usize..10).prop_map(|(pick, count)| Op::FreeTwice(pick, count)),
        1 => any::<usize>().prop_map(Op::FreeAgain),
        1 => (any::<usize>(), 1usize..1 << 12).prop_map(|(pick, bytes)| Op::Inside(pick, bytes)),
        1 => Just(Op::Shrink),
        1 => (any::<bool>(), any::<usize>()).prop_map(|(alloc, pick)| Op::Interrupted(alloc, pick)),
    ]
}

type Words<const N: usize> = [u64; N];

struct Twin<const N: usize> {
    cache: ObjectCache<'static, Words<N>, Sim, Checked>,
    /// What each lent object holds.
    lent: BTreeMap<NonNull<Words<N>>, u64>,
    freed: Vec<NonNull<Words<N>>>,
    next: u64,
    /// Objects that memory has room for, a little more.
    room: usize,
}

impl<const N: usize> Twin<N> {
    fn new(frames: usize, options: CacheOptions) -> Self {
        let cache = ObjectCache::new(heap(frames, 1), options, || [0; N]);
        let room = frames * 4096 / cache.info().unwrap().slot_bytes;
        Self { cache, lent: BTreeMap::new(), freed: Vec::new(), next: 1, room }
    }

    fn pick(&self, pick: usize) -> Option<NonNull<Words<N>>> {
        self.lent.keys().nth(pick.checked_rem(self.lent.len())?).copied()
    }

    /// Notes a new object, and writes it whole.
    fn note(&mut self, object: NonNull<Words<N>>) {
        let align = self.cache.info().unwrap().align_bytes;
        assert!(object.addr().get().is_multiple_of(align));
        // SAFETY: just lent.
        assert_eq!(unsafe { object.read() }, [0; N], "as constructed");
        // SAFETY: as above.
        unsafe { object.write([self.next; N]) };
        assert_eq!(self.lent.insert(object, self.next), None, "lent twice");
        self.next += 1;
    }

    /// Forgets an object, which must be as it was written, and makes it as it was constructed.
    fn forget(&mut self, object: NonNull<Words<N>>) {
        let number = self.lent.remove(&object).unwrap();
        // SAFETY: it is lent still.
        assert_eq!(unsafe { object.read() }, [number; N], "somebody else wrote it");
        // SAFETY: as above.
        unsafe { object.write([0; N]) };
        self.freed.push(object);
    }

    fn refused(&self, object: NonNull<Words<N>>, kinds: &[BadFreeKind]) {
        // SAFETY: what is wrong is refused.
        let fault = unsafe { self.cache.free_raw(object) }.unwrap_err();
        assert!(kinds.contains(&fault.kind), "{fault:?}");
    }

    fn alloc(&mut self, interrupted: bool) {
        let got = if interrupted { Sim::interrupting(|| self.cache.alloc_raw()) } else { self.cache.alloc_raw() };
        match got {
            Ok(object) => self.note(object),
            Err(AllocError::WouldBlock) => assert!(interrupted),
            Err(error) => assert!(error == AllocError::NoMemory && self.lent.len() * 2 > self.room, "{error:?}"),
        }
    }

    fn some(&mut self, pick: usize, count: usize) -> Vec<NonNull<Words<N>>> {
        (0..count)
            .map_while(|step| self.lent.keys().nth((pick % 1000 + step) % self.lent.len().max(1)).copied())
            .collect()
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Alloc => self.alloc(false),
            Op::Bulk(count) => {
                let mut places = vec![None; count];
                match self.cache.alloc_bulk(&mut places) {
                    Ok(()) => places.into_iter().for_each(|object| self.note(object.unwrap())),
                    Err(error) => {
                        assert!(error == AllocError::NoMemory && (self.lent.len() + count) * 2 > self.room);
                        assert!(places.iter().all(Option::is_none));
                    }
                }
            }
            Op::Free(pick) | Op::Interrupted(false, pick) => {
                let Some(object) = self.pick(pick) else { return };
                self.forget(object);
                // SAFETY: it is lent, and used no more.
                let free = || unsafe { self.cache.free_raw(object) };
                if matches!(op, Op::Free(_)) { free() } else { Sim::interrupting(free) }.unwrap();
            }
            Op::FreeBulk(pick, count) => {
                let mut objects = self.some(pick, count.min(self.lent.len()));
                objects.iter().for_each(|&object| self.forget(object));
                // SAFETY: they are lent, and used no more.
                unsafe { self.cache.free_bulk(&mut objects) }.unwrap();
            }
            Op::FreeTwice(pick, count) => {
                let mut objects = self.some(pick, count.min(self.lent.len()));
                objects.extend(objects.first().copied());
                if !objects.is_empty() {
                    // SAFETY: what is wrong is refused.
                    let fault = unsafe { self.cache.free_bulk(&mut objects) }.unwrap_err();
                    assert_eq!(fault.kind, BadFreeKind::NotLent);
                }
            }
            Op::FreeAgain(pick) => {
                let Some(&object) = pick.checked_rem(self.freed.len()).map(|pick| &self.freed[pick]) else { return };
                if !self.lent.contains_key(&object) {
                    // Its slab may have gone, and another may start elsewhere there.
                    self.refused(object, &[BadFreeKind::NotLent, BadFreeKind::Foreign, BadFreeKind::Interior]);
                }
            }
            Op::Inside(pick, bytes) => {
                let Some(object) = self.pick(pick) else { return };
                let inside = object.as_ptr().cast::<u8>().wrapping_add(1 + bytes % (size_of::<Words<N>>() - 1));
                self.refused(NonNull::new(inside).unwrap().cast(), &[BadFreeKind::Interior]);
            }
            Op::Shrink => {
                self.cache.shrink();
                assert_eq!(self.cache.info().unwrap().empty_slabs, 0);
            }
            Op::Interrupted(true, _) => self.alloc(true),
        }
    }

    fn check(&self) {
        self.cache.validate().unwrap();
        let info = self.cache.info().unwrap();
        assert_eq!(info.active, self.lent.len());
        assert!(info.total >= info.active && info.total == info.slabs * info.slab_slots);
        let leaked: Vec<_> = self.cache.slabs.lent().collect();
        assert!(leaked.len() == self.lent.len());
        assert!(self.lent.keys().all(|object| leaked.contains(&object.addr().get())));
    }

    fn end(mut self) {
        while let Some(object) = self.pick(0) {
            self.run(Op::Free(0));
            assert!(!self.lent.contains_key(&object));
        }
        let heap = self.cache.heap();
        self.cache.destroy().unwrap();
        assert_eq!(frames_lent(heap), 0, "all frames are back");
    }
}

fn agree<const N: usize>(options: CacheOptions, ops: Vec<Op>) {
    let mut twin = Twin::<N>::new(192, options);
    for op in ops {
        twin.run(op);
        twin.check();
    }
    twin.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 48 }, ..ProptestConfig::default() })]

    #[test]
    fn a_cache_does_what_its_twin_does(
        ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 12 } else { 250 }),
        colours in 0usize..5,
        aligned in 0u32..8,
        keep in 0usize..3,
    ) {
        let options = CacheOptions::new("twin").colours(colours).aligned(1 << aligned).keep_empty(keep);
        agree::<1000>(options, ops.clone());
        if !cfg!(miri) {
            agree::<3>(options, ops.clone());
            agree::<250>(options.line_aligned(), ops);
        }
    }
}
