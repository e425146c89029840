//! Single instructions: ports, the time stamp, the way out of QEMU, the trap flag.
#![allow(unsafe_code, reason = "the instructions themselves")]

use core::arch::asm;

use qemu_exit::QEMUExit;
use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};
use x86_64::instructions::random::RdRand;
use x86_64::registers::rflags::{self, RFlags};

pub use x86_64::instructions::interrupts::{disable as disable_interrupts, enable as enable_interrupts};

/// Where `-device isa-debug-exit` listens.
const EXIT_PORT: u16 = 0xf4;
/// The exit status QEMU makes of [`Verdict::Passed`].
const STATUS_PASSED: u32 = 33;

/// What a kernel has to say in the end. QEMU exits with twice the number and one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everything passed: QEMU exits with 33.
    Passed = 0x10,
    /// A test failed: QEMU exits with 35.
    Failed = 0x11,
}

/// Ends the machine. Where there is no QEMU to end, the CPU stops for good.
pub fn exit(verdict: Verdict) -> ! {
    // SAFETY: the port is the one this kernel's machines are given the exit device at; elsewhere nothing listens there.
    let qemu = unsafe { qemu_exit::X86::new(EXIT_PORT, STATUS_PASSED) };
    qemu.exit(verdict as u32)
}

/// Stops this CPU for good.
pub fn stop() -> ! {
    disable_interrupts();
    loop {
        x86_64::instructions::hlt();
    }
}

/// Reads a byte from one of the ports of the PC's fixed devices.
pub(crate) fn inb(port: u16) -> u8 {
    // SAFETY: in this kernel ports are the serial line, the interval timer and the interrupt controller; reading from
    // them has no effect on memory.
    unsafe { PortReadOnly::new(port).read() }
}

/// Writes a byte to one of the ports of the PC's fixed devices.
pub(crate) fn outb(port: u16, value: u8) {
    // SAFETY: none of these devices reaches memory by itself.
    unsafe { PortWriteOnly::new(port).write(value) }
}

/// The time stamp counter. Under `-icount shift=0` it counts executed instructions.
#[inline(always)]
pub fn time_stamp() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction, and the kernel does not forbid it to itself.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A number that nobody guesses, where the CPU makes some; else one that is hard to guess: when this was asked.
pub fn random() -> u64 {
    let made = RdRand::new().and_then(RdRand::get_u64).unwrap_or(0);
    made ^ time_stamp().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Waits about `us` microseconds: a write to the diagnostics port takes about one on a PC.
pub(crate) fn delay_us(us: u32) {
    for _ in 0..us {
        outb(0x80, 0);
        core::hint::spin_loop();
    }
}

/// Whether maskable interrupts are let through.
pub fn interrupts_enabled() -> bool {
    rflags::read().contains(RFlags::INTERRUPT_FLAG)
}

/// The address whose access caused the page fault being handled.
pub fn fault_address() -> u64 {
    x86_64::registers::control::Cr2::read_raw()
}

/// Runs `f` with a debug exception (vector 1) after every instruction.
///
/// Hook the vector first (see [`idt::hook`](crate::idt::hook)): without a hook the first exception is a panic. The
/// handler itself is not stepped through.
pub fn single_step<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: sets the trap flag and nothing else; the exception it causes has a handler with a stack of its own.
    unsafe { asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
    let result = f();
    // SAFETY: takes the trap flag back.
    unsafe { asm!("pushfq", "and dword ptr [rsp], ~0x100", "popfq") };
    result
}

/// Executes a breakpoint instruction (vector 3).
pub fn breakpoint() {
    x86_64::instructions::interrupts::int3();
}
