use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize as Count, Ordering as Order};

use super::*;
use crate::platform::Platform;
use crate::tag::Tag;
use crate::testing::{Checked, Sim, heap, keep};

const BLOCK: Layout = match Layout::from_size_align(40_000, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a layout"),
};

/// A cache of blocks that nobody needs.
struct Idle {
    heap: &'static Heap<'static, Sim, Checked>,
    blocks: Mutex<Vec<usize>>,
    /// Allocates while it is asked, as a shrinker may.
    greedy: bool,
}

impl Idle {
    fn filled(heap: &'static Heap<'static, Sim, Checked>, greedy: bool) -> &'static Self {
        let mut blocks = Vec::new();
        while let Ok(address) = heap.answer(BLOCK, false).address() {
            blocks.push(address);
        }
        keep(Self { heap, blocks: Mutex::new(blocks), greedy })
    }
}

impl Shrink for Idle {
    fn count(&self) -> usize {
        self.blocks.lock().unwrap().len()
    }

    fn scan(&self, target: usize) -> usize {
        if self.greedy {
            assert_eq!(self.heap.alloc_address(BLOCK), Err(AllocError::NoMemory), "no reclaim inside reclaim");
        }
        let mut blocks = self.blocks.lock().unwrap();
        let keep = blocks.len() - target;
        let given = blocks.split_off(keep);
        given.iter().for_each(|&address| self.heap.free_address(address, BLOCK).unwrap());
        given.len()
    }
}

fn full(greedy: bool) -> (&'static Heap<'static, Sim, Checked>, &'static Idle, &'static Shrinker<'static>) {
    let heap = heap::<Checked>(if cfg!(miri) { 128 } else { 1024 }, 1);
    let idle = Idle::filled(heap, greedy);
    (heap, idle, shrinker(idle))
}

#[test]
fn a_shrinker_is_asked_only_when_memory_ends_and_while_it_is_registered() {
    let (heap, idle, shrinker) = full(true);
    let had = idle.count();
    assert_eq!(heap.alloc_address(BLOCK), Err(AllocError::NoMemory));
    heap.add_shrinker(shrinker).unwrap();
    assert_eq!(heap.add_shrinker(shrinker), Err(SetupError::State));
    let asked = || (heap.drain_requests.load(Ordering::Relaxed), heap.frames.drain_requests.load(Ordering::Relaxed));
    let before = asked();
    assert_eq!(heap.answer(BLOCK, false).address(), Err(AllocError::NoMemory), "a try asks nobody");
    assert_eq!(asked(), before, "nor any CPU for what lies idle there");
    let address = heap.alloc_address(BLOCK).unwrap();
    assert_eq!(idle.count(), 0, "a large request takes all");
    assert_eq!(heap.failures().shrunk, had as u64);
    heap.free_address(address, BLOCK).unwrap();
    heap.remove_shrinker(shrinker).unwrap();
    assert_eq!(heap.remove_shrinker(shrinker), Err(SetupError::State));
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}

/// A shrinker that takes others away, and puts them back, while the walk stands right before them.
struct Meddler {
    heap: &'static Heap<'static, Sim, Checked>,
    remove: Vec<&'static Shrinker<'static>>,
    add: Vec<(&'static Heap<'static, Sim, Checked>, &'static Shrinker<'static>)>,
}

impl Shrink for Meddler {
    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _: usize) -> usize {
        for shrinker in &self.remove {
            self.heap.remove_shrinker(shrinker).unwrap();
            assert!(shrinker.is_idle());
        }
        for (heap, shrinker) in &self.add {
            heap.add_shrinker(shrinker).unwrap();
        }
        0
    }
}

/// Counts how often it is asked.
#[derive(Default)]
struct Asked(Count);

impl Shrink for Asked {
    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _: usize) -> usize {
        self.0.fetch_add(1, Order::Relaxed);
        0
    }
}

fn shrinker(shrink: &'static dyn Shrink) -> &'static Shrinker<'static> {
    keep(Shrinker::new(shrink))
}

#[test]
fn a_walk_follows_nobody_out_of_the_list() {
    let (here, there) = (heap::<Checked>(256, 1), heap::<Checked>(256, 1));
    let asked: Vec<&'static Asked> = (0..4).map(|_| keep(Asked::default())).collect();
    let [moved, gone, stays, other] = [0, 1, 2, 3].map(|index: usize| shrinker(asked[index]));
    there.add_shrinker(other).unwrap();
    // Asked in this order: the meddler, `moved`, `gone`, `stays`.
    [stays, gone, moved].into_iter().for_each(|shrinker| here.add_shrinker(shrinker).unwrap());
    let meddler = Meddler { heap: here, remove: vec![moved, gone], add: vec![(there, moved)] };
    here.add_shrinker(shrinker(keep(meddler))).unwrap();
    here.shrink(BLOCK);
    let counts = || asked.iter().map(|asked| asked.0.load(Order::Relaxed)).collect::<Vec<_>>();
    assert_eq!(counts(), [0, 0, 1, 0], "who is removed is not asked, nor is anybody of another heap");
    there.shrink(BLOCK);
    assert_eq!(counts(), [1, 0, 1, 1]);
}

#[test]
fn a_shrinker_that_is_added_again_is_not_asked_twice() {
    let heap = heap::<Checked>(256, 1);
    let asked: Vec<&'static Asked> = (0..2).map(|_| keep(Asked::default())).collect();
    let [again, stays] = [0, 1].map(|index: usize| shrinker(asked[index]));
    [stays, again].into_iter().for_each(|shrinker| heap.add_shrinker(shrinker).unwrap());
    let meddler = Meddler { heap, remove: vec![again], add: vec![(heap, again)] };
    heap.add_shrinker(shrinker(keep(meddler))).unwrap();
    heap.shrink(BLOCK);
    let counts: Vec<_> = asked.iter().map(|asked| asked.0.load(Order::Relaxed)).collect();
    assert_eq!(counts, [0, 1], "what is added while a walk goes on comes into the next one");
}

#[test]
fn a_shrinker_that_takes_itself_away_is_idle_when_it_has_answered() {
    struct Once(Mutex<Option<(&'static Heap<'static, Sim, Checked>, &'static Shrinker<'static>)>>);
    impl Shrink for Once {
        fn count(&self) -> usize {
            1
        }
        fn scan(&self, _: usize) -> usize {
            let (heap, own) = self.0.lock().unwrap().take().unwrap();
            heap.remove_shrinker(own).unwrap();
            assert!(!own.is_idle(), "this is a call of it");
            0
        }
    }
    let heap = heap::<Checked>(256, 1);
    let once: &'static Once = keep(Once(Mutex::new(None)));
    let own = shrinker(once);
    *once.0.lock().unwrap() = Some((heap, own));
    assert!(own.is_idle());
    heap.add_shrinker(own).unwrap();
    assert!(!own.is_idle());
    heap.shrink(BLOCK);
    assert!(own.is_idle());
    heap.shrink(BLOCK);
}

/// A process is copied while another of its threads reclaims: in the copy that never ends.
#[test]
#[allow(unsafe_code)]
fn a_copy_of_the_process_reclaims_for_itself() {
    let (heap, idle, shrinker) = full(false);
    heap.add_shrinker(shrinker).unwrap();
    std::mem::forget(heap.reclaim.enter(1));
    heap.reclaim.shrinkers.start();
    std::mem::forget(heap.reclaim.shrinkers.next().unwrap());
    let pinned = Sim::pin().unwrap();
    heap.lock_all(&pinned);
    // SAFETY: locked above; only this thread uses the heap.
    unsafe { heap.unlock_copy(pinned.cpu()) };
    drop(pinned);
    heap.alloc_address(BLOCK).unwrap();
    assert_eq!(idle.count(), 0);
    heap.remove_shrinker(shrinker).unwrap();
    assert!(shrinker.is_idle());
}

#[test]
fn failures_are_counted_with_the_largest() {
    let heap = heap::<Checked>(512, 1);
    let huge = Layout::from_size_align(1 << 30, 8).unwrap();
    assert!(heap.alloc_address(huge).is_err());
    assert!(heap.alloc_address(Layout::from_size_align(3 << 20, 8).unwrap()).is_err());
    assert_eq!((heap.failures().count, heap.failures().largest_bytes), (2, 1 << 30));
}

#[test]
fn the_oom_policy_decides_last() {
    static ASKED: Count = Count::new(0);
    fn policy(_: Layout) -> OomAnswer {
        if ASKED.fetch_add(1, Order::Relaxed) == 0 { OomAnswer::GiveUp } else { OomAnswer::Retry }
    }
    let (heap, idle, _) = full(false);
    heap.set_oom_policy(&(policy as OomPolicy));
    assert_eq!(heap.alloc_address(BLOCK), Err(AllocError::NoMemory));
    assert_eq!(heap.alloc_address(BLOCK), Err(AllocError::NoMemory), "tried again, in vain");
    assert_eq!(ASKED.load(Order::Relaxed), 2);
    idle.scan(idle.count());
    heap.alloc_address(BLOCK).unwrap();
    assert_eq!(ASKED.load(Order::Relaxed), 2, "there was memory");
}

#[test]
fn a_shrinker_that_unwinds_leaves_a_heap_that_serves() {
    struct Bad;
    impl Shrink for Bad {
        fn count(&self) -> usize {
            1
        }
        fn scan(&self, _: usize) -> usize {
            panic!("a bad shrinker");
        }
    }
    let (heap, idle, good) = full(false);
    let bad: &'static Shrinker<'static> = shrinker(&Bad);
    heap.add_shrinker(bad).unwrap();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| heap.alloc_address(BLOCK)));
    assert!(unwound.is_err());
    heap.remove_shrinker(bad).unwrap();
    heap.add_shrinker(good).unwrap();
    heap.alloc_address(BLOCK).unwrap();
    assert_eq!(idle.count(), 0);
    heap.validate().unwrap();
}

#[test]
#[allow(unsafe_code)]
fn a_tag_counts_what_was_asked_for_in_its_name() {
    let heap = heap::<Checked>(512, 1);
    let (names, blocks) = (Tag::new("names"), Tag::new("blocks"));
    let layout = Layout::from_size_align(100, 8).unwrap();
    let objects: Vec<_> = (0..10).map(|_| heap.tagged(&names).alloc(layout).unwrap()).collect();
    heap.tagged(&blocks).alloc(BLOCK).unwrap();
    assert_eq!((names.count().objects, names.count().bytes), (10, 1000));
    assert_eq!((blocks.count().objects, blocks.count().bytes), (1, 40_000));
    for object in objects {
        // SAFETY: lent above, freed once.
        unsafe { heap.tagged(&names).free(object, layout) }.unwrap();
    }
    assert_eq!(names.count(), crate::tag::TagCount { objects: 0, bytes: 0, requests: 10 });
}
