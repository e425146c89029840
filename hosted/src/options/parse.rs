//! Values as text, and back: one entry for each option.

use std::fmt::{self, Write};

use super::{NumaChoice, PREFIX_BYTES};

/// What is known of an option.
pub(super) struct Entry {
    pub(super) name: &'static str,
    /// What a value looks like, for whom it was not understood of.
    pub(super) expected: &'static str,
    pub(super) default: usize,
    /// Whether it means anything to change it later.
    pub(super) can_change: bool,
    pub(super) parse: fn(&[u8]) -> Option<usize>,
    pub(super) show: fn(usize, &mut dyn Write) -> fmt::Result,
}

pub(super) const COUNT: usize = ENTRIES.len();

const BOOL: &str = "true or false";

const fn switch(name: &'static str, default: bool, can_change: bool) -> Entry {
    Entry { name, expected: BOOL, default: default as usize, can_change, parse: boolean, show: show_boolean }
}

const fn number(
    name: &'static str,
    expected: &'static str,
    default: usize,
    parse: fn(&[u8]) -> Option<usize>,
) -> Entry {
    Entry { name, expected, default, can_change: true, parse, show: show_number }
}

/// In the order of [`Name`](super::Name).
pub(super) static ENTRIES: [Entry; 16] = [
    Entry {
        name: "stats_print",
        expected: "true, false or json",
        default: 0,
        can_change: true,
        parse: |text| if text == b"json" { Some(2) } else { boolean(text) },
        show: |value, to| if value == 2 { to.write_str("json") } else { show_boolean(value, to) },
    },
    number("decay_ms", "milliseconds, from 1 to 86400000", 1000, |text| {
        digits(text).filter(|ms| (1..=86_400_000).contains(ms))
    }),
    Entry {
        name: "dirty_share",
        expected: "a share of what is in use, as 12.5% or 1/8, at most 100%",
        default: 125,
        can_change: true,
        parse: share,
        show: |value, to| write!(to, "{}.{}%", value / 10, value % 10),
    },
    switch("background_thread", false, true),
    Entry {
        name: "thp",
        expected: "late (or default), always, never or explicit",
        default: 1,
        can_change: true,
        parse: |text| (text == b"default").then_some(1).or_else(|| word(text, &THP)),
        show: |value, to| to.write_str(THP[value]),
    },
    Entry {
        name: "prefault",
        expected: "auto, off or bytes at a time as 256k, at most 1g",
        default: 0,
        can_change: true,
        parse: |text| match text {
            b"off" => Some(0),
            b"auto" => Some(usize::MAX),
            _ => bytes(text).filter(|&bytes| bytes <= 1 << 30),
        },
        show: |value, to| match value {
            0 => to.write_str("off"),
            usize::MAX => to.write_str("auto"),
            _ => show_number(value, to),
        },
    },
    Entry {
        can_change: false,
        ..number("reserve", "bytes from 8m to 1t, or 0 for what may be", 0, |text| {
            bytes(text).filter(|bytes| *bytes == 0 || (8 << 20..=1 << 40).contains(bytes))
        })
    },
    Entry {
        name: "limit",
        expected: "bytes as 512m, or none",
        default: usize::MAX,
        can_change: true,
        parse: |text| if text == b"none" { Some(usize::MAX) } else { bytes(text) },
        show: |value, to| if value == usize::MAX { to.write_str("none") } else { show_number(value, to) },
    },
    Entry {
        name: "numa",
        expected: "local, interleave, bind:N or preferred:N with the number of a node",
        default: 0,
        can_change: false,
        parse: numa,
        show: show_numa,
    },
    Entry {
        name: "level",
        expected: "fast, checked or hardened",
        default: 1,
        can_change: false,
        parse: |text| word(text, &LEVELS),
        show: |value, to| to.write_str(LEVELS[value]),
    },
    switch("abort", true, true),
    switch("prof", false, true),
    number("prof_sample", "bytes as 512k, at least 1", 512 << 10, |text| bytes(text).filter(|&bytes| bytes != 0)),
    Entry {
        name: "prof_prefix",
        expected: "a path of at most 255 bytes",
        default: 0,
        can_change: false,
        parse: |text| (1..PREFIX_BYTES).contains(&text.len()).then_some(text.len()),
        show: show_number,
    },
    Entry {
        can_change: false,
        ..number("prof_signal", "the number of a signal that can be handled, or 0 for none", 0, |text| {
            digits(text).filter(|number| *number <= 64 && ![9, 19].contains(number))
        })
    },
    switch("leak_report", false, true),
];

const THP: [&str; 4] = ["never", "late", "explicit", "always"];
const LEVELS: [&str; 3] = ["fast", "checked", "hardened"];

/// The place of the option of this name.
pub(super) fn place(name: &[u8]) -> Option<usize> {
    ENTRIES.iter().position(|entry| entry.name.as_bytes() == name)
}

fn word(text: &[u8], words: &[&str]) -> Option<usize> {
    words.iter().position(|word| word.as_bytes() == text)
}

fn boolean(text: &[u8]) -> Option<usize> {
    match text {
        b"true" | b"1" => Some(1),
        b"false" | b"0" => Some(0),
        _ => None,
    }
}

fn show_boolean(value: usize, to: &mut dyn Write) -> fmt::Result {
    to.write_str(if value == 0 { "false" } else { "true" })
}

fn show_number(value: usize, to: &mut dyn Write) -> fmt::Result {
    write!(to, "{value}")
}

/// A number in digits alone.
fn digits(text: &[u8]) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0usize, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Bytes: a number, and what it is to be taken times.
fn bytes(text: &[u8]) -> Option<usize> {
    let (last, rest) = text.split_last()?;
    let shift = match last.to_ascii_lowercase() {
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => return digits(text),
    };
    digits(rest)?.checked_mul(1 << shift)
}

/// A share in a thousandth: `12.5%`, `12`, `1/8`.
fn share(text: &[u8]) -> Option<usize> {
    if let Some(divisor) = text.strip_prefix(b"1/") {
        return digits(divisor).filter(|&divisor| divisor != 0).map(|divisor| 1000 / divisor);
    }
    let text = text.strip_suffix(b"%").unwrap_or(text);
    let (whole, tenth) = match text.split_last_chunk::<2>() {
        Some((whole, &[b'.', tenth])) => (whole, digits(&[tenth])?),
        _ => (text, 0),
    };
    digits(whole)?.checked_mul(10)?.checked_add(tenth).filter(|&share| share <= 1000)
}

/// What a node's number is beside, in the same word.
const KIND: usize = 1 << 16;

fn numa(text: &[u8]) -> Option<usize> {
    let node = |text: &[u8]| digits(text).filter(|&node| node < 1024);
    match text {
        b"local" => Some(0),
        b"interleave" => Some(KIND),
        _ => match text.strip_prefix(b"bind:") {
            Some(number) => node(number).map(|node| 2 * KIND + node),
            None => node(text.strip_prefix(b"preferred:")?).map(|node| 3 * KIND + node),
        },
    }
}

pub(super) fn numa_of(value: usize) -> NumaChoice {
    let node = (value % KIND) as u32;
    match value / KIND {
        0 => NumaChoice::Local,
        1 => NumaChoice::Interleave,
        2 => NumaChoice::Bind(node),
        _ => NumaChoice::Preferred(node),
    }
}

fn show_numa(value: usize, to: &mut dyn Write) -> fmt::Result {
    match numa_of(value) {
        NumaChoice::Local => to.write_str("local"),
        NumaChoice::Interleave => to.write_str("interleave"),
        NumaChoice::Bind(node) => write!(to, "bind:{node}"),
        NumaChoice::Preferred(node) => write!(to, "preferred:{node}"),
    }
}
