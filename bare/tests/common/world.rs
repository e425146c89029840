//! This kernel as the scenarios see it.

use core::fmt;
use core::sync::atomic::AtomicU64;

use pagemill::{Frames, Metadata};
use pagemill_bare::frames::FRAMES;
use pagemill_bare::percpu::{self, Bare};
use pagemill_bare::{cpu, harness, physical, println, smp, time};
use pagemill_tests::World;

/// The machine we run on.
pub(crate) struct Machine;

impl World for Machine {
    type P = Bare;

    fn frames(&self) -> &'static Frames<'static, Bare> {
        &FRAMES
    }

    fn cpus(&self) -> u32 {
        percpu::online()
    }

    fn on_all(&self, work: &(dyn Fn(u32) + Sync)) {
        smp::on_all(work);
    }

    fn say(&self, line: fmt::Arguments<'_>) {
        println!("{line}");
    }

    fn with_metadata(&self, bytes: usize, work: &mut dyn FnMut(Metadata<'_>)) -> bool {
        // SAFETY: the instance has only the memory that `frames::init` found free, and kernels free what is theirs.
        unsafe { physical::with_bytes(&FRAMES, bytes, &mut |bytes| work(Metadata::new(bytes))) }
    }

    fn with_words(&self, count: usize, work: &mut dyn FnMut(&[AtomicU64])) -> bool {
        let mut zeroed = |bytes: &mut [core::mem::MaybeUninit<u8>]| {
            // SAFETY: any bytes will do for words that may be uninitialised.
            let (before, words, _) = unsafe { bytes.align_to_mut::<core::mem::MaybeUninit<AtomicU64>>() };
            assert!(before.is_empty(), "frames are aligned");
            let words = &mut words[..count];
            words.iter_mut().for_each(|word| {
                word.write(AtomicU64::new(0));
            });
            // SAFETY: each word has just been written.
            work(unsafe { words.assume_init_ref() });
        };
        // SAFETY: as in `with_metadata`.
        unsafe { physical::with_bytes(&FRAMES, 8 * count, &mut zeroed) }
    }

    fn effort(&self) -> usize {
        let effort = if cfg!(debug_assertions) { 1 << 10 } else { 1 << 14 };
        if harness::is_full() { 16 * effort } else { effort }
    }

    fn ticks(&self) -> u64 {
        cpu::time_stamp()
    }

    fn tick_unit(&self) -> &'static str {
        "time stamps"
    }

    fn now_ns(&self) -> Option<u64> {
        let ns = u128::from(cpu::time_stamp()) * 1_000_000_000 / u128::from(time::time_stamps_per_second()?);
        u64::try_from(ns).ok()
    }
}
