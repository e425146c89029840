//! The serial line: where a kernel speaks.
//!
//! Lines of different CPUs do not mix: printing takes a lock with interrupts off. Who may not wait does without: a
//! handler of non-maskable events waits only a while for the lock and then prints anyway, and a panic silences the
//! other CPUs. That is sound because the lock protects nothing but the order of characters.

use core::fmt::{self, Write};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::cpu::{inb, outb, stop};
use crate::percpu::{self, IrqLock};

const BASE: u16 = 0x3f8;
const LINE_STATUS: u16 = BASE + 5;
const TRANSMITTER_EMPTY: u8 = 0x20;

/// How often one who may not wait asks for the lock.
const PATIENCE: u32 = 100_000;

/// Nobody has panicked.
const NOBODY: u32 = u32::MAX;

static LINE: lock_api::Mutex<IrqLock, ()> = lock_api::Mutex::new(());
static PANICKING: AtomicU32 = AtomicU32::new(NOBODY);

/// Prepares the line: 115200 baud, 8 bits, no parity, no interrupts.
pub(crate) fn init() {
    for (register, value) in [(1, 0x00), (3, 0x80), (0, 0x01), (1, 0x00), (3, 0x03), (2, 0xc7), (4, 0x03)] {
        outb(BASE + register, value);
    }
}

/// Prints; [`print!`](crate::print) and [`println!`](crate::println) are the usual way here.
pub fn print(text: fmt::Arguments<'_>) {
    let may_wait = percpu::context() != pagemill::Context::Nmi;
    match PANICKING.load(Ordering::Relaxed) {
        NOBODY => {
            let lock = if may_wait { Some(LINE.lock()) } else { lock_soon() };
            write(text);
            drop(lock);
        }
        cpu if cpu == percpu::cpu() => write(text),
        _ => stop(),
    }
}

fn lock_soon() -> Option<lock_api::MutexGuard<'static, IrqLock, ()>> {
    (0..PATIENCE).find_map(|_| {
        spin_loop();
        LINE.try_lock()
    })
}

/// Gives the line to this CPU, which is about to panic. Another CPU that wants to print, or to panic too, stops.
/// `false` if this CPU is panicking already.
pub(crate) fn take_for_panic() -> bool {
    let me = percpu::cpu();
    // Relaxed: only the value counts, nothing is published with it.
    match PANICKING.compare_exchange(NOBODY, me, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            // A line somebody is in the middle of may still end.
            drop(lock_soon());
            true
        }
        Err(first) if first == me => false,
        Err(_) => stop(),
    }
}

fn write(text: fmt::Arguments<'_>) {
    // Writing to the line cannot fail; an error is one of the value being printed.
    let _ = Uart.write_fmt(text);
}

/// The device. It has no state here, so that anyone can be its writer.
struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while inb(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {
                spin_loop();
            }
            outb(BASE, byte);
        }
        Ok(())
    }
}

/// Prints to the serial line.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::serial::print(::core::format_args!($($text)*)) };
}

/// Prints a line to the serial line.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::serial::print(::core::format_args!("{}\n", ::core::format_args!($($text)*))) };
}
