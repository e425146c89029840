//! Interrupts and non-maskable interrupts on all CPUs while all CPUs allocate and free objects; and every handler does
//! so too.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use alloc::boxed::Box;
use pagemill_bare::heap::HEAP;
use pagemill_bare::idt::{self, TrapFrame};
use pagemill_bare::{apic, frames, harness, heap, percpu, print, smp};
use pagemill_tests::Rng;
use spin::Once;

use crate::objects::{Object, Places, Rest, layout};
use crate::storms::Storm;

static PLACES: Places<128> = Places::new();
/// What handlers keep for a while: they take others' objects out, too.
static OF_HANDLERS: Places<64> = Places::new();

static HANDLED: AtomicUsize = AtomicUsize::new(0);
static SERVED: AtomicUsize = AtomicUsize::new(0);

/// What a handler does: ask for an object, keep it for a while, free one that was kept before, by whomever.
fn handle(frame: &mut TrapFrame) {
    let turn = HANDLED.fetch_add(1, Relaxed);
    let mut rng = Rng::new(turn as u64 ^ frame.rip);
    let object = Object::new(layout(&mut rng), rng.below(256) as u8).and_then(boxed);
    SERVED.fetch_add(usize::from(object.is_some()), Relaxed);
    let place = rng.below(64);
    drop(if turn.is_multiple_of(3) { PLACES.swap(place, object) } else { OF_HANDLERS.swap(place, object) });
}

/// In a box of its own, unless that is not to be had just now; then it is freed again.
fn boxed(object: Object) -> Option<Box<Object>> {
    let mut place = Object::place()?;
    place.write(object);
    // SAFETY: written just now.
    Some(unsafe { place.assume_init() })
}

/// What the interrupted code does.
fn step(rng: &mut Rng) {
    let object = match rng.below(16) {
        0..4 => None,
        4 => {
            HEAP.drain();
            None
        }
        _ => Object::new(layout(rng), rng.below(256) as u8).and_then(boxed),
    };
    drop(PLACES.swap(rng.below(128), object));
}

fn steps(storm: Storm, rng: &mut Rng, mut between: impl FnMut(&mut Rng)) {
    for _ in 0..if harness::is_full() { 3 * storm.steps } else { storm.steps } {
        step(rng);
        between(rng);
    }
}

/// The machine with a heap, at rest.
fn rest() -> Rest {
    static BEGUN: Once<()> = Once::new();
    BEGUN.call_once(|| {
        let handover = frames::init();
        assert_eq!((handover.left_out, handover.problems), (0, 0));
        assert_eq!(heap::init(), Ok(()));
    });
    Rest::now()
}

fn aftermath(rest: &Rest) {
    smp::on_all(&|_| (0..1000).for_each(|_| core::hint::spin_loop()));
    idt::hook(idt::TIMER, None);
    let [handled, served] = [&HANDLED, &SERVED].map(|count| count.swap(0, Relaxed));
    assert!(served > 0, "{handled} handlers got nothing");
    print!("({handled} handled, {served} served) ");
    PLACES.empty(0, 1);
    OF_HANDLERS.empty(0, 1);
    rest.assert_again();
}

/// Every CPU is interrupted by its timer.
pub(crate) fn timers(storm: Storm) {
    let rest = rest();
    idt::hook(idt::TIMER, Some(handle));
    smp::on_all(&|cpu| {
        apic::start_timer(idt::TIMER, storm.period);
        steps(storm, &mut Rng::new(u64::from(cpu)), |_| {});
        apic::stop_timer();
    });
    aftermath(&rest);
}

/// Every CPU sends itself and others what cannot be masked, and timers go on as well.
pub(crate) fn nmis(storm: Storm) {
    let rest = rest();
    idt::hook(idt::TIMER, Some(handle));
    idt::hook(idt::NMI, Some(handle));
    // One CPU does nothing else than send, so that they arrive anywhere; the others send between two steps, too.
    let done = AtomicBool::new(false);
    let sender = percpu::online() - 1;
    smp::on_all(&|cpu| {
        let mut rng = Rng::new(u64::from(cpu));
        if cpu == sender && cpu != 0 {
            while !done.load(Relaxed) {
                smp::send_nmi(rng.below(sender as usize) as u32);
                (0..rng.below(4000)).for_each(|_| core::hint::spin_loop());
            }
            return;
        }
        apic::start_timer(idt::TIMER, 4 * storm.period);
        steps(storm, &mut rng, |rng| {
            if rng.below(8) == 0 {
                smp::send_nmi(rng.below(percpu::online() as usize) as u32);
            }
        });
        apic::stop_timer();
        if cpu == 0 {
            done.store(true, Relaxed);
        }
    });
    aftermath(&rest);
    idt::hook(idt::NMI, None);
}
