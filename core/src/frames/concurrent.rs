//! Threads on one instance: few enough to run under Miri, which watches every access and shuffles their steps.

use std::sync::mpsc::channel;
use std::thread::scope;
use std::vec::Vec;

use super::tests::{Tiny, TinyFast};
use super::*;
use crate::kind::ZoneKind;
use crate::testing::{Sim, bytes, span};

const ROUNDS: usize = if cfg!(miri) { 4 } else { 2000 };

/// An instance for `cpus` CPUs over frames 0 to 511, the upper half of which has not come yet.
fn half_a_machine<C: Config>(cpus: usize) -> Frames<'static, Sim, C> {
    let frames = Frames::<Sim, C>::new();
    let all = span(0, 512);
    frames.init(all, cpus, 1, bytes(Frames::<Sim, C>::base_metadata_size(all, cpus, 1))).unwrap();
    add_half(&frames, 0);
    frames
}

fn add_half<C: Config>(frames: &Frames<'static, Sim, C>, start: usize) {
    let half = span(start, 256);
    let metadata = bytes(Frames::<Sim, C>::memory_metadata_size(half));
    frames.add_memory(NodeId::ZERO, ZoneKind::Normal, half, &[], metadata).unwrap();
}

fn order(log2: u32) -> Order {
    Order::new(log2).unwrap()
}

/// Gives back what each CPU keeps, one after the other, and looks whether all is there.
fn assert_whole<C: Config>(frames: &Frames<'static, Sim, C>, cpus: u32) {
    frames.drain();
    for cpu in 0..cpus {
        Sim::become_cpu(cpu);
        frames.poll();
    }
    frames.validate().unwrap();
    let census = frames.census();
    assert_eq!((census.free, census.lent()), (census.present, 0), "{census:?}");
}

/// Every CPU lends blocks and sends them to the next, which frees them, some as an interrupt.
fn pass_on<C: Config>() {
    const CPUS: u32 = 3;
    let frames = half_a_machine::<C>(CPUS as usize);
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..CPUS).map(|_| channel::<Block>()).unzip();
    senders.rotate_left(1);
    scope(|scope| {
        for ((cpu, sender), receiver) in (0..CPUS).zip(senders).zip(receivers) {
            let frames = &frames;
            scope.spawn(move || {
                Sim::become_cpu(cpu);
                for round in 0..ROUNDS {
                    if let Ok(block) = frames.alloc(order(round as u32 % 3), AllocFlags::empty()) {
                        sender.send(block).unwrap();
                    }
                    while let Ok(block) = receiver.try_recv() {
                        let freed = match round % 4 {
                            0 => Sim::interrupting(|| frames.free(block)),
                            _ => frames.free(block),
                        };
                        freed.unwrap();
                    }
                }
                drop(sender);
                receiver.iter().for_each(|block| frames.free(block).unwrap());
            });
        }
    });
    assert_whole(&frames, CPUS);
}

#[test]
fn blocks_are_freed_by_the_next_cpu() {
    pass_on::<Tiny>();
}

#[test]
fn blocks_are_freed_by_the_next_cpu_without_words() {
    pass_on::<TinyFast>();
}

#[test]
fn memory_comes_and_goes_while_others_allocate() {
    let frames = half_a_machine::<Tiny>(2);
    scope(|scope| {
        scope.spawn(|| {
            Sim::become_cpu(1);
            add_half(&frames, 256);
            for _ in 0..ROUNDS / 2 {
                // Whatever is lent just now stays; the rest goes and comes back.
                let _ = frames.offline(span(40, 30));
                let _ = frames.online(span(40, 30));
            }
        });
        Sim::become_cpu(0);
        for round in 0..ROUNDS {
            let flags = if round % 2 == 0 { AllocFlags::empty() } else { AllocFlags::MOVABLE };
            let held: Vec<_> = (0..4).map(|log2| frames.alloc(order(log2), flags).unwrap()).collect();
            held.into_iter().for_each(|block| frames.free(block).unwrap());
        }
    });
    assert_whole(&frames, 2);
}
