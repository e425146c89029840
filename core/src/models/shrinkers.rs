//! The walk over the shrinkers, against who registers and goes.

use std::sync::Arc;
use std::vec::Vec;

use super::machine::{Cpus, on_cpu};
use super::runner::check;
use crate::reclaim::{Shrink, Shrinker, Shrinkers};
use crate::sync::{AtomicU32, Ordering, OwnerU32};

/// What a shrinker has, and how often it was asked in one walk.
struct Cache {
    /// Touched by every call, and taken apart by whoever owns the cache.
    contents: OwnerU32,
    asked: AtomicU32,
}

impl Shrink for Cache {
    fn count(&self) -> usize {
        self.contents.set(1);
        self.asked.fetch_add(1, Ordering::Relaxed);
        0
    }

    fn scan(&self, _: usize) -> usize {
        0
    }
}

/// Caches that live as long as one execution, with a registration each.
struct Registry {
    list: Shrinkers<'static, Cpus>,
    shrinkers: Vec<Shrinker<'static>>,
    caches: Vec<&'static Cache>,
}

impl Registry {
    /// So many shrinkers, all but the last of them registered, the first ahead of the others.
    #[allow(unsafe_code)]
    fn new(count: usize) -> Arc<Self> {
        let cache = || Box::into_raw(Box::new(Cache { contents: OwnerU32::new(0), asked: AtomicU32::new(0) }));
        // SAFETY: just made, and freed when the registry goes, which is when nobody walks it any more.
        let caches: Vec<&'static Cache> = (0..count).map(|_| unsafe { &*cache() }).collect();
        let shrinkers = caches.iter().map(|&cache| Shrinker::new(cache)).collect();
        let registry = Arc::new(Self { list: Shrinkers::new(), shrinkers, caches });
        (0..count - 1).rev().for_each(|place| assert_eq!(registry.list.add(registry.shrinker(place)), Some(true)));
        registry
    }

    #[allow(unsafe_code)]
    fn shrinker(&self, place: usize) -> &'static Shrinker<'static> {
        // SAFETY: the vector never changes, and its registrations go with the list that has them.
        unsafe { &*core::ptr::from_ref(&self.shrinkers[place]) }
    }

    fn walk(&self) {
        self.list.walk(|shrink| shrink.count());
    }

    fn asked(&self, place: usize) -> u32 {
        self.caches[place].asked.load(Ordering::Relaxed)
    }
}

impl Drop for Registry {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        for cache in &self.caches {
            // SAFETY: from `Box::into_raw` in `new`; nobody is left who could ask.
            drop(unsafe { Box::from_raw(core::ptr::from_ref(*cache).cast_mut()) });
        }
    }
}

/// Threads: CPU 1, which reclaims; CPU 2, which removes the second of two shrinkers and, if no call of it is under way,
/// takes apart what it has.
///
/// Property: whoever is removed and idle is touched by nobody; the other one is asked.
///
/// * `shrinker_next_stays`: the walk asks whom it meant to ask next though that one has gone;
/// * `shrinker_idle_relaxed`: what the last call did to it may come later.
fn removed() {
    let registry = Registry::new(3);
    let walker = on_cpu(1, {
        let registry = registry.clone();
        move || registry.walk()
    });
    let owner = on_cpu(2, {
        let registry = registry.clone();
        move || {
            let second = registry.shrinker(1);
            assert_eq!(registry.list.remove(second), Some(true));
            if second.is_idle() {
                registry.caches[1].contents.set(2);
            }
        }
    });
    walker.join().unwrap();
    owner.join().unwrap();
    assert_eq!(registry.asked(0), 1);
    assert!(registry.shrinker(1).is_idle());
}

#[test]
fn who_is_removed_and_idle_is_left_alone() {
    check("shrinker_removed", &["shrinker_next_stays", "shrinker_idle_relaxed"], removed);
}

/// Threads: CPU 1, which reclaims; CPU 2, which moves the first of three shrinkers to another list, whose only other
/// member is no affair of CPU 1's, and puts a new one into this.
///
/// Property: who stays is asked once; who comes is asked at most once, who goes too, and nobody of the other list.
///
/// * `shrinker_next_stays`: the walk follows the one that goes into the other list.
fn moved() {
    let (registry, other) = (Registry::new(4), Registry::new(2));
    let walker = on_cpu(1, {
        let registry = registry.clone();
        move || registry.walk()
    });
    let owner = on_cpu(2, {
        let (registry, other) = (registry.clone(), other.clone());
        move || {
            assert_eq!(registry.list.remove(registry.shrinker(0)), Some(true));
            assert_eq!(other.list.add(registry.shrinker(0)), Some(true));
            assert_eq!(registry.list.add(registry.shrinker(0)), Some(false), "it is in a list");
            assert_eq!(registry.list.add(registry.shrinker(3)), Some(true));
        }
    });
    walker.join().unwrap();
    owner.join().unwrap();
    assert_eq!((registry.asked(1), registry.asked(2)), (1, 1), "who stays is asked once");
    assert!(registry.asked(0) <= 1 && registry.asked(3) <= 1);
    assert_eq!(other.asked(0), 0, "the walk has left its list");
    let came = registry.asked(3);
    registry.walk();
    assert_eq!([1, 2, 3].map(|place| registry.asked(place)), [2, 2, came + 1]);
}

#[test]
fn a_walk_stays_in_its_list() {
    check("shrinker_moved", &["shrinker_next_stays"], moved);
}
