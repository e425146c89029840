//! Interrupts and non-maskable interrupts on all CPUs, as fast as they can be handled, while all CPUs allocate and
//! free; and every handler does so too.

use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pagemill::{AllocError, AllocFlags, FrameCount, FrameRange, Order, Request};
use pagemill_bare::frames::{self, FRAMES};
use pagemill_bare::idt::{self, TrapFrame};
use pagemill_bare::topology::MAX_CPUS;
use pagemill_bare::{apic, harness, percpu, print, smp};
use pagemill_tests::{Home, Rng};

use crate::owners::{Counter, Exchange, Lent, disown, own};
use crate::world::Machine;

/// Blocks that the handlers of one kind hold on one CPU.
const HELD: usize = 4;

/// What the handlers of one kind of interrupt have and have done.
struct Handlers {
    held: Exchange<{ HELD * MAX_CPUS }>,
    handled: Counter,
    served: Counter,
    turned_away: Counter,
}

impl Handlers {
    const fn new() -> Self {
        Self {
            held: Exchange::new(),
            handled: Counter::new(),
            served: Counter::new(),
            turned_away: Counter::new(),
        }
    }

    /// What a handler does: ask for a block, keep it for a while, free the one that was kept before.
    fn handle(&self) {
        let cpu = percpu::cpu() as usize;
        let turn = percpu::this().interrupts() + percpu::this().exceptions();
        self.handled.add(1);
        let flags = if turn.is_multiple_of(5) { AllocFlags::MOVABLE } else { AllocFlags::empty() };
        let order = Order::new([0, 0, 1, 0, 3, 0, 0, 9][turn as usize % 8]).expect("an order");
        let lent = match FRAMES.alloc(order, flags) {
            Ok(block) => Some(Lent::block(block)),
            Err(AllocError::WouldBlock) => None,
            Err(error) => panic!("a handler got no block: {error}"),
        };
        match lent {
            Some(lent) => {
                own(lent.span());
                self.served.add(1);
            }
            None => self.turned_away.add(1),
        }
        if let Some(before) = self.held.swap(HELD * cpu + turn as usize % HELD, lent) {
            free(before);
        }
    }

    /// Frees what they still hold, and tells what they did.
    fn finish(&self, name: &str) {
        for place in 0..HELD * MAX_CPUS {
            self.held.swap(place, None).into_iter().for_each(free);
        }
        let [handled, served, turned_away] = [&self.handled, &self.served, &self.turned_away].map(Counter::take);
        assert!(served > 0, "{handled} handlers of {name} got nothing");
        print!("({name}: {handled} handled, {served} blocks, {turned_away} turned away) ");
    }
}

static TIMER: Handlers = Handlers::new();
static NMI: Handlers = Handlers::new();
static PLACES: Exchange<64> = Exchange::new();

fn on_timer(_: &mut TrapFrame) {
    TIMER.handle();
}

fn on_nmi(_: &mut TrapFrame) {
    NMI.handle();
}

fn free(lent: Lent) {
    disown(lent.span());
    match lent.into_right() {
        Ok(block) => FRAMES.free(block).expect("lent"),
        Err(range) => FRAMES.free_range(range).expect("lent"),
    }
}

/// What the interrupted code does.
fn step(rng: &mut Rng) {
    let lent = match rng.below(8) {
        0 | 1 => None,
        2 => FRAMES.alloc_range(&Request::frames(FrameCount::new(1 + rng.below(90)))).ok().map(Lent::range),
        3 => {
            FRAMES.drain();
            None
        }
        _ => FRAMES.alloc(Order::new(rng.below(5) as u32).expect("an order"), AllocFlags::empty()).ok().map(Lent::block),
    };
    if let Some(lent) = lent {
        own(lent.span());
    }
    match PLACES.swap(rng.below(64), lent) {
        Some(before) if rng.below(2) == 0 => free(before),
        Some(before) => {
            disown(before.span());
            FRAMES.free_range(FrameRange::from_raw(before.span())).expect("lent");
        }
        None => {}
    }
}

/// How hard it blows.
#[derive(Clone, Copy)]
pub(crate) struct Storm {
    /// Ticks between two interrupts of a CPU's timer: short enough that few requests go undisturbed, long enough to get
    /// on.
    pub(crate) period: u32,
    /// What each CPU does meanwhile; three times as much in long runs.
    pub(crate) steps: usize,
}

impl Storm {
    fn steps(self, rng: &mut Rng, mut between: impl FnMut(&mut Rng)) {
        for _ in 0..if harness::is_full() { 3 * self.steps } else { self.steps } {
            step(rng);
            between(rng);
        }
    }
}

/// The machine as it is now, and is to be again.
fn home() -> Home {
    let handover = frames::init();
    assert_eq!((handover.left_out, handover.problems), (0, 0));
    Home::of(&Machine, &FRAMES)
}

fn aftermath(home: &Home) {
    for place in 0..64 {
        PLACES.swap(place, None).into_iter().for_each(free);
    }
    home.assert_again(&Machine, &FRAMES);
}

/// Every CPU is interrupted by its timer.
pub(crate) fn timers(storm: Storm) {
    let home = home();
    idt::hook(idt::TIMER, Some(on_timer));
    smp::on_all(&|cpu| {
        apic::start_timer(idt::TIMER, storm.period);
        storm.steps(&mut Rng::new(u64::from(cpu)), |_| {});
        apic::stop_timer();
    });
    idt::hook(idt::TIMER, None);
    TIMER.finish("timer");
    aftermath(&home);
}

/// Every CPU sends itself and others what cannot be masked, and timers go on as well.
pub(crate) fn nmis(storm: Storm) {
    let home = home();
    idt::hook(idt::TIMER, Some(on_timer));
    idt::hook(idt::NMI, Some(on_nmi));
    // One CPU does nothing else than send, so that they arrive anywhere; the others send between two steps, too.
    let done = AtomicBool::new(false);
    let sender = percpu::online() - 1;
    smp::on_all(&|cpu| {
        let mut rng = Rng::new(u64::from(cpu));
        if cpu == sender && cpu != 0 {
            while !done.load(Relaxed) {
                smp::send_nmi(rng.below(sender as usize) as u32);
                (0..rng.below(400)).for_each(|_| core::hint::spin_loop());
            }
            return;
        }
        apic::start_timer(idt::TIMER, 4 * storm.period);
        storm.steps(&mut rng, |rng| {
            if rng.below(8) == 0 {
                smp::send_nmi(rng.below(percpu::online() as usize) as u32);
            }
        });
        apic::stop_timer();
        if cpu == 0 {
            done.store(true, Relaxed);
        }
    });
    // The last of them may still be on its way; whoever it finds needs the hook.
    smp::on_all(&|_| (0..1000).for_each(|_| core::hint::spin_loop()));
    idt::hook(idt::TIMER, None);
    NMI.finish("nmi");
    TIMER.finish("timer");
    aftermath(&home);
    idt::hook(idt::NMI, None);
}
