//! Long random correct runs: threads that come and go, objects of all sizes that are freed by whoever gets them,
//! requests to drain from everywhere. No free is refused, no object overlaps another or is moved under its owner's
//! feet, and in the end everything adds up and comes home.
//!
//! `PAGEMILL_FULL` in the environment makes it ten times as long.

#[path = "heap/machine.rs"]
mod machine;

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use machine::{Fast, Instance, Linear, OneNode, class_of, heap};
use pagemill::{AllocError, Checked, Config, Hardened};

/// Threads at a time, each a CPU.
const THREADS: usize = 4;
/// How often each of them ends and another takes over its CPU.
const LIVES: usize = 8;
/// The most objects that a thread holds.
const MOST: usize = 600;

/// A generator of numbers that are random enough (xorshift, Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }

    /// Mostly small, now and then large or strictly aligned.
    fn layout(&mut self) -> Layout {
        let most = match self.below(100) {
            0 => 200_000,
            1..10 => 32_768,
            _ => 8 << self.below(8),
        };
        let align = if self.below(10) == 0 { 1 << self.below(13) } else { 1 << self.below(4) };
        Layout::from_size_align(1 + self.below(most), align).unwrap()
    }
}

/// An object that is lent, filled with a pattern of its own.
struct Object {
    place: NonNull<u8>,
    layout: Layout,
    pattern: u64,
}

// SAFETY: whoever has it owns the memory.
unsafe impl Send for Object {}

impl Object {
    /// Where the pattern stands: at the start, at the end, and in each 512 bytes in between.
    fn marks(&self) -> impl Iterator<Item = usize> {
        let last = self.layout.size() - 1;
        (0..last).step_by(512).chain([last])
    }

    fn alloc<C: Config>(heap: &Instance<C>, layout: Layout, pattern: u64) -> Result<Self, AllocError> {
        let object = Self { place: heap.alloc(layout)?, layout, pattern };
        assert!(object.place.addr().get().is_multiple_of(layout.align()));
        for mark in object.marks() {
            // SAFETY: an object that was just lent is longer than that.
            let place = unsafe { object.place.add(mark) };
            // SAFETY: a byte of it.
            unsafe { place.write(object.byte(mark)) };
        }
        Ok(object)
    }

    fn byte(&self, mark: usize) -> u8 {
        (self.pattern >> (mark / 512 % 8 * 8)) as u8
    }

    fn free<C: Config>(self, heap: &Instance<C>) {
        for mark in self.marks() {
            // SAFETY: the object is longer than that.
            let place = unsafe { self.place.add(mark) };
            // SAFETY: a byte of the object, which is the caller's and was written when it was lent.
            let byte = unsafe { place.read() };
            assert_eq!(byte, self.byte(mark), "{:?} of {:?} was written by another", self.place, self.layout);
        }
        // SAFETY: it is the caller's, and gone now.
        unsafe { heap.free(self.place, self.layout) }.expect("a right free was refused");
    }
}

/// What threads leave for one another.
type Mail = [Mutex<Vec<Object>>; THREADS];

/// One life of a CPU.
fn live<C: Config>(heap: &Instance<C>, cpu: usize, life: usize, steps: usize, mail: &Mail) {
    machine::become_cpu(cpu as u32);
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ ((cpu + 1) as u64) << 20 ^ ((life + 1) as u64) << 40);
    let mut own: Vec<Object> = Vec::new();
    for _ in 0..steps {
        match rng.below(1000) {
            0 => heap.poll(),
            1 => heap.drain(),
            2 => heap.drain_cpu(),
            3 => heap.trim(),
            4..20 => std::thread::yield_now(),
            20..30 => {
                let count = own.len() / 4;
                mail[rng.below(THREADS)].lock().unwrap().extend(own.drain(..count));
            }
            30..40 => {
                let received = std::mem::take(&mut *mail[cpu].lock().unwrap());
                received.into_iter().for_each(|object| object.free(heap));
            }
            40..540 if own.len() < MOST => {
                let layout = rng.layout();
                match Object::alloc(heap, layout, rng.next()) {
                    Ok(object) => own.push(object),
                    Err(error) => assert_eq!(error, AllocError::NoMemory),
                }
            }
            _ if own.is_empty() => {}
            _ => own.swap_remove(rng.below(own.len())).free(heap),
        }
    }
    mail[rng.below(THREADS)].lock().unwrap().append(&mut own);
    heap.drain_cpu();
}

fn stress<C: Config>() {
    let is_full = std::env::var_os("PAGEMILL_FULL").is_some_and(|value| !value.is_empty() && value != "0");
    let steps = if is_full { 400_000 } else { 40_000 };
    let heap = heap::<C>(16384, THREADS);
    let mail: Mail = Default::default();
    let lives = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for cpu in 0..THREADS {
            let (mail, lives) = (&mail, &lives);
            scope.spawn(move || {
                for life in 0..LIVES {
                    // A thread of its own each time: whatever a thread keeps for itself is gone.
                    std::thread::scope(|scope| drop(scope.spawn(|| live(heap, cpu, life, steps, mail))));
                    lives.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(lives.into_inner(), THREADS * LIVES);
    let left: Vec<_> = mail.into_iter().flat_map(|mail| mail.into_inner().unwrap()).collect();
    let census = heap.validate().unwrap();
    let small = left.iter().filter(|object| class_of::<C>(object.layout).is_some()).count();
    assert_eq!(census.lent(), small);
    left.into_iter().for_each(|object| object.free(heap));
    for cpu in 0..THREADS as u32 {
        machine::on_cpu(cpu, || heap.drain_cpu());
    }
    heap.drain();
    let census = heap.validate().unwrap();
    assert_eq!(census.lent(), 0);
    let slabs: usize = pagemill::SizeClass::all().map(|class| census.class(class).slabs).sum();
    assert_eq!(slabs, 0, "an empty slab was forgotten");
    heap.frames().validate().unwrap();
}

#[test]
fn no_right_free_is_refused_and_all_comes_home() {
    stress::<Checked>();
}

#[test]
fn no_right_free_is_refused_and_all_comes_home_on_one_node() {
    stress::<OneNode>();
}

#[test]
fn no_right_free_is_refused_and_all_comes_home_with_linear_marks() {
    stress::<Linear>();
}

/// As processes have it.
struct HardLinear;
impl Config for HardLinear {
    const HARDENED: bool = true;
    const LINEAR_SHADOW: bool = true;
    const NUMA: bool = false;
}

#[test]
fn no_right_free_is_refused_and_all_comes_home_hardened() {
    stress::<Hardened>();
}

#[test]
fn no_right_free_is_refused_and_all_comes_home_hardened_with_linear_marks() {
    stress::<HardLinear>();
}

#[test]
fn all_comes_home_unchecked() {
    stress::<Fast>();
}
