use super::*;
use crate::config::Checked;

fn class(bytes: usize) -> SizeClass {
    SizeClass::all().find(|class| class.bytes() == bytes).unwrap()
}

fn with_slab(bytes: usize, test: impl FnOnce(&Slab<'_>, SizeClass, u32)) {
    let class = class(bytes);
    let slots = Shape::of::<Checked>(class).slots;
    let bits: Vec<AtomicU64> = (0..64).map(|_| AtomicU64::new(0)).collect();
    let slab = Slab::new(&bits, &[]);
    slab.describe(1 << 20, Contents::Class(class), NodeId::ZERO, slots);
    test(&slab, class, slots);
}

#[test]
fn shapes_waste_an_eighth_at_most_and_keep_their_alignment() {
    for class in SizeClass::all() {
        let shape = Shape::of::<Checked>(class);
        let used = shape.slots as usize * class.bytes();
        let most = if class.bytes() > 20 << 10 { shape.bytes / 5 } else { shape.bytes / 8 };
        assert!(shape.slots >= 2 && shape.bytes - used <= most, "{class:?}");
        assert!(shape.bytes <= 4 * Checked::SLAB_BYTES);
        assert_eq!(shape.bytes % class.align_bytes(), 0);
        assert!(shape.slots <= 4096);
    }
}

#[test]
fn only_the_start_of_a_slot_is_one() {
    for class in SizeClass::all() {
        for offset in (0..Shape::of::<Checked>(class).bytes).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let slot = offset.is_multiple_of(class.bytes()).then_some((offset / class.bytes()) as u32);
            assert_eq!(slot_at(class, offset), slot, "{offset} in {class:?}");
        }
    }
}

#[test]
fn descriptors_are_as_small_as_promised() {
    let share = |bytes, marked| descriptor_bytes::<Checked>(class(bytes), marked) as f64 / 32768.0;
    for class in SizeClass::all() {
        assert!(descriptor_bytes::<Checked>(class, false) * 50 <= Shape::of::<Checked>(class).bytes, "{class:?}");
    }
    assert!(share(16, true) <= 0.08);
    // As many bytes of each size from 16 to 1024.
    let mixed: f64 =
        (16..=1024).map(|size| share(SizeClass::all().find(|c| c.bytes() >= size).unwrap().bytes(), true)).sum();
    assert!(mixed / 1009.0 <= 0.015, "{mixed}");
}

#[test]
fn slots_leave_lowest_first_and_are_counted() {
    with_slab(48, |slab, class, slots| {
        let mut out = Vec::new();
        assert_eq!(slab.take(100, Taker::NOBODY, |address| out.push(address)), (100, true));
        assert_eq!(out, (0..100).map(|slot| (1 << 20) + slot * 48).collect::<Vec<_>>());
        assert_eq!((slab.used(), slab.free_bits()), (100, slots - 100));
        assert_eq!(slab.slot_of(class, out[7]), Some(7));
        assert_eq!(slab.slot_of(class, out[7] + 16), None);
        assert_eq!(slab.take(usize::MAX, Taker::NOBODY, |_| ()), (slots as usize - 100, false));
        assert_eq!(slab.take(1, Taker::NOBODY, |_| ()), (0, false));
    });
}

#[test]
fn who_makes_a_full_slab_partial_or_a_used_one_empty_queues_it_once() {
    with_slab(1024, |slab, _, slots| {
        assert_eq!(slab.take(slots as usize, Taker::NOBODY, |_| ()), (slots as usize, false));
        slab.put(0, 1).unwrap();
        assert!(slab.retire(1), "full no more");
        slab.put(0, low_bits(slots) & !1).unwrap();
        assert!(!slab.retire(slots - 1), "empty, and queued already");
        assert!(!slab.is_idle(), "somebody has it queued");
        slab.unqueue();
        assert!(slab.is_idle());
        slab.take(2, Taker::NOBODY, |_| ());
        slab.put(0, 1).unwrap();
        assert!(!slab.retire(1), "neither full nor empty");
        slab.put(0, 2).unwrap();
        assert!(slab.retire(1));
    });
}

#[test]
fn a_slot_that_is_in_already_is_refused() {
    with_slab(64, |slab, _, _| {
        slab.take(2, Taker::NOBODY, |_| ());
        assert_eq!(slab.put(0, 0b111), Err(FreeAlready(0b100)));
    });
}

#[test]
fn each_cpu_has_words_of_its_own_while_there_are_any() {
    with_slab(64, |slab, class, slots| {
        let words = |cpu: usize, count: usize| {
            let mut words = Vec::new();
            slab.take(count, Taker::cpu(cpu), |address| words.push(slab.slot_of(class, address).unwrap() / WORD_SLOTS));
            words.dedup();
            words
        };
        assert_eq!((words(0, 8), words(0, 8)), (vec![0], vec![0]), "one CPU alone takes the lowest");
        assert_eq!((words(1, 8), words(1, 8)), (vec![1], vec![1]));
        assert_eq!((words(0, 8), words(2, 8)), (vec![2], vec![3]));
        assert_eq!(words(2, 60), [3, 4], "what a word lacks the next one has");
        assert_eq!((words(0, 8), words(1, 8), words(0, 8)), (vec![5], vec![6], vec![7]));
        assert_eq!(words(1, 8), [0], "none is left");
        let left = slots as usize - slab.used() as usize;
        assert_eq!(slab.take(usize::MAX, Taker::cpu(9), |_| ()), (left, false));
    });
}

#[test]
fn the_lowest_bits_of_a_word_are_had_in_runs() {
    let words = [0, 1, 1 << 63, u64::MAX, u64::MAX << 7, 0b1101_1100, 0x8000_0000_ffff_0001, 0x5555_5555_5555_5555];
    for word in words {
        let bits: Vec<u32> = (0..64).filter(|bit| word >> bit & 1 != 0).collect();
        assert_eq!(runs(word).flatten().collect::<Vec<_>>(), bits, "{word:#x}");
        assert!(runs(word).zip(runs(word).skip(1)).all(|(run, next)| run.end < next.start), "{word:#x}");
        for count in 0..65 {
            let low = bits.iter().take(count).fold(0, |low, bit| low | 1 << bit);
            assert_eq!(lowest(word, count), low, "{count} of {word:#x}");
        }
    }
}
