use std::collections::VecDeque;

use super::*;
use crate::config::Fast;
use crate::testing::{Sim, heap};

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
    let heap = heap::<Checked>(16384, 1);
    let mut objects = Vec::new();
    for class in SizeClass::all() {
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
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
    const NUMA: bool = false;
    const LINEAR_SHADOW: bool = true;
}

fn random_traffic<C: Config>(steps: usize) {
    let heap = heap::<C>(if cfg!(miri) { 1024 } else { 8192 }, 1);
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
    random_traffic::<Checked>(if cfg!(miri) { 200 } else { 200_000 });
    random_traffic::<Linear>(if cfg!(miri) { 200 } else { 200_000 });
    random_traffic::<Fast>(if cfg!(miri) { 200 } else { 200_000 });
}

#[test]
fn wrong_frees_are_told_apart() {
    wrong_frees::<Checked>();
    wrong_frees::<Linear>();
}

fn wrong_frees<C: Config>() {
    let heap = heap::<C>(4096, 1);
    let kind = |address, layout| heap.free_address(address, layout).unwrap_err().kind;
    let small = heap.alloc_address(layout(100, 1)).unwrap();
    assert_eq!(kind(small + 16, layout(100, 1)), BadFreeKind::Interior);
    assert_eq!(kind(small, layout(50, 1)), BadFreeKind::WrongClass);
    assert_eq!(kind(small + 112, layout(100, 1)), BadFreeKind::NotLent, "never lent");
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
    let heap = heap::<Checked>(1024, 1);
    for size in [8, 48, 1000, 20_000, 40_000] {
        let mut lent = Vec::new();
        while let Ok(address) = heap.alloc_address(layout(size, 8)) {
            lent.push(address);
        }
        assert!(lent.len() * size * 10 > (1024 << 12) * 3, "{} of {size}", lent.len());
        for address in lent {
            heap.free_address(address, layout(size, 8)).unwrap();
        }
        comes_home(heap);
    }
}
