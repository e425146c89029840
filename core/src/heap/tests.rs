use std::collections::VecDeque;

use super::*;
use crate::testing::{Checked, Fast, SLAB_BYTES, Sim, heap, heap_of_two_nodes};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// A small generator of numbers that are random enough (xorshift, Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }
}

fn comes_home<C: Config>(heap: &Heap<'static, Sim, C>) {
    heap.drain();
    let census = heap.validate().unwrap();
    assert_eq!(census.lent(), 0);
    assert_eq!(SizeClass::all().map(|class| census.class(class).slabs).sum::<usize>(), 0);
    heap.frames().validate().unwrap();
}

#[test]
fn objects_of_every_class_are_apart_and_aligned() {
    let heap = heap::<Checked>(if cfg!(miri) { 1024 } else { 16384 }, 1);
    let mut objects = Vec::new();
    for class in SizeClass::all() {
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            let address = heap.alloc_address(layout(class.bytes(), 1)).unwrap();
            assert!(address.is_multiple_of(class.align_bytes()));
            objects.push((address, class.bytes()));
        }
    }
    let census = heap.validate().unwrap();
    assert_eq!(census.lent(), objects.len());
    let mut sorted = objects.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0));
    for (address, bytes) in objects {
        heap.free_address(address, layout(bytes, 1)).unwrap();
    }
    comes_home(heap);
}

/// The marks of hosted heaps, on a span small enough for a test.
struct Linear;

impl Config for Linear {
    const SLAB_BYTES: usize = SLAB_BYTES;
    const NUMA: bool = false;
    const LINEAR_SHADOW: bool = true;
}

fn random_traffic<C: Config>(steps: usize) {
    let heap = heap::<C>(if cfg!(miri) { 256 } else { 8192 }, 1);
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let mut lent: VecDeque<(usize, Layout)> = VecDeque::new();
    for _ in 0..steps {
        if rng.below(100) < 55 && lent.len() < 5000 {
            let most = if rng.below(50) == 0 { 200_000 } else { 8 << rng.below(11) };
            let size = 1 + rng.below(most);
            let layout = layout(size, 1 << rng.below(7));
            if let Ok(address) = heap.alloc_address(layout) {
                assert!(address.is_multiple_of(layout.align()));
                lent.push_back((address, layout));
            }
        } else if !lent.is_empty() {
            let place = rng.below(lent.len());
            let (address, layout) = lent.swap_remove_back(place).unwrap();
            heap.free_address(address, layout).unwrap();
        }
    }
    heap.validate().unwrap();
    for (address, layout) in lent {
        heap.free_address(address, layout).unwrap();
    }
    comes_home(heap);
}

#[test]
fn everything_comes_home_after_random_traffic() {
    random_traffic::<Checked>(if cfg!(miri) { 60 } else { 200_000 });
    random_traffic::<Linear>(if cfg!(miri) { 60 } else { 200_000 });
    random_traffic::<Fast>(if cfg!(miri) { 60 } else { 200_000 });
}

#[test]
fn wrong_frees_are_told_apart() {
    wrong_frees::<Checked>();
    wrong_frees::<Linear>();
}

fn wrong_frees<C: Config>() {
    let heap = heap::<C>(if cfg!(miri) { 256 } else { 4096 }, 1);
    let kind = |address, layout| heap.free_address(address, layout).unwrap_err().kind;
    let small = heap.alloc_address(layout(100, 1)).unwrap();
    assert_eq!(kind(small + 16, layout(100, 1)), BadFreeKind::Interior);
    assert_eq!(kind(small, layout(50, 1)), BadFreeKind::WrongClass);
    let next = small + SizeClass::of(layout(100, 1)).unwrap().bytes();
    assert_eq!(kind(next, layout(100, 1)), BadFreeKind::NotLent, "never lent");
    assert_eq!(kind(small, layout(100_000, 1)), BadFreeKind::WrongClass);
    assert_eq!(kind(0x10, layout(100, 1)), BadFreeKind::Foreign);
    heap.free_address(small, layout(100, 1)).unwrap();
    assert_eq!(kind(small, layout(100, 1)), BadFreeKind::NotLent, "freed");
    let large = heap.alloc_address(layout(100_000, 1)).unwrap();
    assert_eq!(kind(large, layout(90_000, 1)), BadFreeKind::WrongSize);
    assert_eq!(kind(large + 4096, layout(100_000, 1)), BadFreeKind::Interior);
    assert_eq!(kind(large, layout(8, 1)), BadFreeKind::WrongSize);
    heap.free_address(large, layout(100_000, 1)).unwrap();
    assert_eq!(kind(large, layout(100_000, 1)), BadFreeKind::NotLent);
    comes_home(heap);
}

#[test]
fn exhaustion_is_an_error_and_recovers() {
    let frames = if cfg!(miri) { 128 } else { 1024 };
    let heap = heap::<Checked>(frames, 1);
    let sizes = if cfg!(miri) { &[20_000, 40_000][..] } else { &[8, 48, 1000, 20_000, 40_000][..] };
    for &size in sizes {
        let mut lent = Vec::new();
        while let Ok(address) = heap.alloc_address(layout(size, 8)) {
            lent.push(address);
        }
        assert!(lent.len() * size * 10 > (frames << 12) * 3, "{} of {size}", lent.len());
        for address in lent {
            heap.free_address(address, layout(size, 8)).unwrap();
        }
        comes_home(heap);
    }
}

fn on_cpu<R>(cpu: u32, work: impl FnOnce() -> R) -> R {
    Sim::become_cpu(cpu);
    let result = work();
    Sim::become_cpu(0);
    result
}

fn pooled<C: Config>(heap: &Heap<'static, Sim, C>) -> usize {
    let census = heap.census();
    SizeClass::all().map(|class| census.class(class).pooled).sum()
}

fn of_another_node<C: Config>() {
    let heap = heap_of_two_nodes::<C>(4096, 2);
    let (small, other) = (layout(64, 8), layout(200, 8));
    let near: Vec<_> = (0..40).flat_map(|_| [small, other]).map(|l| (heap.alloc_address(l).unwrap(), l)).collect();
    let far = on_cpu(1, || heap.alloc_address(small).unwrap());
    let node = |address| heap.slab_of(address).unwrap().node().index();
    assert!(near.iter().all(|&(address, _)| node(address) == 0) && node(far) == 1);
    let before = pooled(heap);
    on_cpu(1, || near[..9].iter().for_each(|&(address, layout)| heap.free_address(address, layout).unwrap()));
    assert_eq!(pooled(heap), before + 9, "they wait for company");
    let again = on_cpu(1, || heap.alloc_address(small).unwrap());
    assert_eq!(node(again), 1, "what waits is not lent where it waits");
    if C::CHECKED {
        for cpu in [0, 1] {
            let refused = on_cpu(cpu, || heap.free_address(near[3].0, near[3].1)).unwrap_err();
            assert_eq!(refused.kind, BadFreeKind::NotLent);
        }
    }
    heap.validate().unwrap();
    on_cpu(1, || near[9..].iter().for_each(|&(address, layout)| heap.free_address(address, layout).unwrap()));
    assert!(pooled(heap) < before + 80, "a parcel has gone home");
    heap.validate().unwrap();
    on_cpu(1, || [far, again].map(|address| heap.free_address(address, small).unwrap()));
    on_cpu(1, || heap.drain_cpu());
    comes_home(heap);
}

#[test]
fn objects_of_another_node_go_home_in_parcels() {
    of_another_node::<Checked>();
    of_another_node::<Fast>();
}

#[test]
fn who_only_frees_keeps_little() {
    let heap = heap::<Checked>(if cfg!(miri) { 2048 } else { 8192 }, 2);
    // Each fills a stack more than ten times over.
    let layouts = [16, 48, 64, 128, 320, 1024].map(|bytes| layout(bytes, 8));
    let rounds = if cfg!(miri) { 200 } else { 3000 };
    let lent: Vec<_> = (0..rounds).flat_map(|_| layouts).map(|l| (heap.alloc_address(l).unwrap(), l)).collect();
    on_cpu(1, || {
        for &(address, layout) in &lent {
            heap.free_address(address, layout).unwrap();
        }
        let held: usize = layouts
            .iter()
            .filter_map(|&layout| SizeClass::of(layout))
            .map(|class| heap.pools.all()[1].stacks.len(class) * class.bytes())
            .sum();
        assert!(cfg!(miri) || held <= 40 << 10, "{held} bytes");
        // It takes again, and keeps more at hand at once.
        let again: Vec<_> = (0..500).map(|_| heap.alloc_address(layouts[2]).unwrap()).collect();
        again.into_iter().for_each(|address| heap.free_address(address, layouts[2]).unwrap());
        heap.drain_cpu();
    });
    comes_home(heap);
}

/// A CPU that tears down spills what it has at hand of classes that it was not asked for just now, each object of which
/// may be the last of its slab.
#[test]
#[cfg_attr(miri, ignore = "some thousand requests")]
fn who_tears_down_leaves_no_empty_slabs_of_other_classes() {
    let heap = heap::<Checked>(8192, 1);
    let page = layout(4096, 8);
    let class = SizeClass::of(page).unwrap();
    let lent: Vec<_> = (0..24).map(|_| heap.alloc_address(page).unwrap()).collect();
    let small: Vec<_> = (0..20_000).map(|_| heap.alloc_address(layout(16, 8)).unwrap()).collect();
    // Its depot has enough of them.
    while heap.depot(NodeId::ZERO).unwrap().welcomes(0, class, class.batch()) {}
    // The first of each slab comes last, and stays at hand.
    let (last, first): (Vec<_>, Vec<_>) =
        lent.into_iter().partition(|&address| address == heap.slab_of(address).unwrap().start());
    first.into_iter().chain(last).for_each(|address| heap.free_address(address, page).unwrap());
    assert_eq!(heap.census().class(class).empty_slabs, 0);
    small.into_iter().for_each(|address| heap.free_address(address, layout(16, 8)).unwrap());
    let census = heap.census();
    assert_eq!(census.class(class).pooled, 0, "it has torn down");
    assert!(census.class(class).empty_slabs <= Checked::KEEP_EMPTY_SLABS, "{:?}", census.class(class));
    comes_home(heap);
}
