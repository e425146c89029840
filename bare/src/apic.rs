//! The local APIC: who am I, interrupts to other CPUs, a timer. By memory-mapped registers: QEMU's TCG has no x2APIC.
#![allow(unsafe_code, reason = "registers of a device")]

use core::hint::spin_loop;

use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

use crate::cpu;
use crate::idt::SPURIOUS;
use crate::physical;

const ID: u64 = 0x20;
const EOI: u64 = 0xb0;
const SPURIOUS_VECTOR: u64 = 0xf0;
const COMMAND_LOW: u64 = 0x300;
const COMMAND_HIGH: u64 = 0x310;
const TIMER_VECTOR: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDER: u64 = 0x3e0;

/// Where every PC has it; this kernel does not move it.
const BASE: u64 = 0xfee0_0000;
const BASE_MSR: u32 = 0x1b;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const LEVEL: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0xb;

/// How an interrupt is delivered.
const FIXED: u32 = 0;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_INIT: u32 = 5 << 8;
const DELIVER_STARTUP: u32 = 6 << 8;

/// A local APIC this kernel cannot drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ApicError {
    /// The firmware switched it to x2APIC mode, which has no memory-mapped registers.
    X2Apic,
    /// It is not where every PC has it.
    Moved(u64),
}

/// Checks that the registers are where this file reads them.
pub(crate) fn check() -> Result<(), ApicError> {
    let msr = Msr::new(BASE_MSR);
    // SAFETY: every x86-64 CPU has this register; reading it changes nothing.
    let value = unsafe { msr.read() };
    if value & 1 << 10 != 0 {
        return Err(ApicError::X2Apic);
    }
    match value & 0x000f_ffff_ffff_f000 {
        BASE => Ok(()),
        moved => Err(ApicError::Moved(moved)),
    }
}

/// Lets this CPU's APIC deliver interrupts.
pub(crate) fn enable() {
    write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | u32::from(SPURIOUS));
}

/// Silences the old interrupt controller, which firmware leaves delivering its timer as a double fault.
pub(crate) fn mask_legacy() {
    cpu::outb(0x21, 0xff);
    cpu::outb(0xa1, 0xff);
}

/// The number of this CPU's APIC.
pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

/// Says that the interrupt being handled is done with.
pub(crate) fn end_of_interrupt() {
    write(EOI, 0);
}

/// Sends interrupt `vector` to the APIC `apic`.
pub(crate) fn send(apic: u32, vector: u8) {
    command(apic, FIXED | ASSERT | u32::from(vector));
}

/// Sends a non-maskable interrupt to the APIC `apic`.
pub(crate) fn send_nmi(apic: u32) {
    command(apic, DELIVER_NMI | ASSERT);
}

/// Resets a CPU.
pub(crate) fn send_init(apic: u32) {
    command(apic, DELIVER_INIT | ASSERT | LEVEL);
    command(apic, DELIVER_INIT | LEVEL);
}

/// Starts a CPU that was reset, in real mode at the frame `frame` below 1 MiB.
pub(crate) fn send_startup(apic: u32, frame: u8) {
    command(apic, DELIVER_STARTUP | ASSERT | u32::from(frame));
}

/// Delivers `vector` on this CPU every `count` ticks of the timer: a nanosecond each under QEMU.
pub fn start_timer(vector: u8, count: u32) {
    write(TIMER_DIVIDER, DIVIDE_BY_1);
    write(TIMER_VECTOR, PERIODIC | u32::from(vector));
    write(TIMER_COUNT, count);
}

/// Ends the timer of this CPU.
pub fn stop_timer() {
    write(TIMER_VECTOR, MASKED);
    write(TIMER_COUNT, 0);
}

/// The command register is written in two halves, the destination first. Interrupts are held off between them; what
/// cannot be held off puts the destination back that it found.
fn command(apic: u32, low: u32) {
    without_interrupts(|| {
        let interrupted = read(COMMAND_HIGH);
        write(COMMAND_HIGH, apic << 24);
        write(COMMAND_LOW, low);
        while read(COMMAND_LOW) & PENDING != 0 {
            spin_loop();
        }
        write(COMMAND_HIGH, interrupted);
    });
}

fn read(register: u64) -> u32 {
    let place = physical::pointer(BASE + register).cast::<u32>();
    // SAFETY: the window maps everything below 4 GiB, and `check` saw the registers there.
    unsafe { place.read_volatile() }
}

fn write(register: u64, value: u32) {
    let place = physical::pointer(BASE + register).cast::<u32>();
    // SAFETY: as in `read`; the registers named in this file do not reach memory.
    unsafe { place.write_volatile(value) }
}
