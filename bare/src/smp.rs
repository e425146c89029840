//! Work for several CPUs, and interrupts between them.

use core::hint::spin_loop;
use core::sync::atomic::Ordering;

use pagemill::Context;
use spin::Once;
use x86_64::instructions::{hlt, interrupts};

use crate::idt::{self, KICK, TrapFrame};
use crate::percpu::{self, Job};
use crate::{apic, cpu};

/// How often an idle CPU looks for work before it sleeps until an interrupt.
const ROUNDS_BEFORE_SLEEP: u32 = 2000;

/// What idle CPUs call, in the order in which it was added.
static IDLE_HOOKS: [Once<fn()>; 4] = [const { Once::new() }; 4];

/// Runs `work` on every CPU at once, with the CPU's number, and returns when all are done. While it waits, this CPU
/// calls the idle hooks.
///
/// # Panics
/// Inside such work, or in a handler: nobody would be left to wait for.
pub fn on_all(work: &(dyn Fn(u32) + Sync)) {
    run(0..percpu::online(), work);
}

/// Runs `work` on one CPU, and returns when it is done.
///
/// # Panics
/// If there is no such CPU, and as [`on_all`].
pub fn on(cpu: u32, work: &(dyn Fn(u32) + Sync)) {
    assert!(cpu < percpu::online(), "no CPU {cpu}");
    run(cpu..cpu + 1, work);
}

fn run(cpus: core::ops::Range<u32>, work: &(dyn Fn(u32) + Sync)) {
    assert_eq!(percpu::context(), Context::Task, "work for other CPUs cannot be given out by a handler");
    let working = percpu::this().working();
    // Relaxed: this CPU's own word.
    assert!(!working.swap(true, Ordering::Relaxed), "work for other CPUs cannot be given out by such work");
    Job::new(work).run(cpus, kick, idle_once);
    working.store(false, Ordering::Relaxed);
}

/// Has every idle CPU call `hook` now and then, and every CPU when it is kicked. There is room for four hooks and no
/// way to take one out; `false` if there is no room.
pub fn add_idle_hook(hook: fn()) -> bool {
    IDLE_HOOKS.iter().any(|place| {
        let mut was_free = false;
        place.call_once(|| {
            was_free = true;
            hook
        });
        was_free
    })
}

/// Interrupts a CPU: it wakes up if it sleeps, and calls the idle hooks in its handler.
pub fn kick(cpu: u32) {
    send(cpu, KICK);
}

/// Kicks all CPUs but this one.
pub fn kick_others() {
    let me = percpu::cpu();
    (0..percpu::online()).filter(|&cpu| cpu != me).for_each(kick);
}

/// Sends interrupt `vector` to a CPU, which may be this one.
pub fn send(cpu: u32, vector: u8) {
    if let Some(area) = percpu::area(cpu) {
        apic::send(area.apic(), vector);
    }
}

/// Sends a non-maskable interrupt to a CPU, which may be this one.
pub fn send_nmi(cpu: u32) {
    if let Some(area) = percpu::area(cpu) {
        apic::send_nmi(area.apic());
    }
}

/// Prepares for kicks.
pub(crate) fn init() {
    fn kicked(_: &mut TrapFrame) {
        idle_once();
    }
    idt::hook(KICK, Some(kicked));
}

/// What a CPU does that has nothing to do: look for work for a while, then sleep until it is kicked.
pub(crate) fn idle() -> ! {
    cpu::enable_interrupts();
    loop {
        let worked = (0..ROUNDS_BEFORE_SLEEP).any(|_| {
            spin_loop();
            percpu::work_once()
        });
        idle_once();
        if worked {
            continue;
        }
        // With interrupts off, so that a kick between looking and sleeping is not lost: it ends the sleep.
        cpu::disable_interrupts();
        if percpu::has_work() { cpu::enable_interrupts() } else { interrupts::enable_and_hlt() }
    }
}

/// Sleeps until an interrupt comes; for whoever waits with interrupts on and knows that one will come.
pub fn wait_for_interrupt() {
    hlt();
}

fn idle_once() {
    IDLE_HOOKS.iter().filter_map(Once::get).for_each(|hook| hook());
}
