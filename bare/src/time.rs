//! How fast the time stamp counter runs.

use core::fmt;
use core::hint::spin_loop;

use spin::Once;

use crate::cpu::{inb, outb, time_stamp};

/// Of the interval timer.
const PIT_HZ: u64 = 1_193_182;
/// Two milliseconds: long enough that asking when it is over adds no more than a percent.
const TICKS: u16 = 2386;
/// The end of a measurement may be seen late, never early: the least of a few is the best.
const MEASUREMENTS: u32 = 3;

/// What no timer takes to expire.
const PATIENCE: u32 = 50_000_000;

static HZ: Once<Option<u64>> = Once::new();

/// Time stamps in a second, measured once against the interval timer, which takes 6 ms. `None` on a machine without
/// one. Under `-icount shift=0` a time stamp is an instruction of the run, and a second 10^9 of them.
pub fn time_stamps_per_second() -> Option<u64> {
    *HZ.call_once(|| (0..MEASUREMENTS).map(|_| measure()).min().flatten())
}

/// A number of time stamps. Printed in microseconds, if it is known how long they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span(pub u64);

impl Span {
    /// In microseconds, if it is known how long a time stamp is.
    pub fn microseconds(self) -> Option<u64> {
        let us = u128::from(self.0) * 1_000_000 / u128::from(time_stamps_per_second()?);
        u64::try_from(us).ok()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.microseconds() {
            Some(us) => write!(f, "{us} us"),
            None => write!(f, "{} time stamps", self.0),
        }
    }
}

fn measure() -> Option<u64> {
    const CONTROL: u16 = 0x61;
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    const EXPIRED: u8 = 0x20;
    let expired = || inb(CONTROL) & EXPIRED != 0;
    outb(CONTROL, inb(CONTROL) & !SPEAKER | GATE);
    // Channel 2, low byte then high byte, mode 0: the output falls now, and rises when the count is through.
    outb(0x43, 0xb0);
    let [low, high] = TICKS.to_le_bytes();
    outb(0x42, low);
    let start = time_stamp();
    outb(0x42, high);
    if expired() {
        return None;
    }
    (0..PATIENCE).find(|_| {
        spin_loop();
        expired()
    })?;
    Some((time_stamp() - start) * PIT_HZ / u64::from(TICKS)).filter(|&hz| hz != 0)
}
