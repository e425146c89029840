//! An option that cannot be had: which, what was found, and what is expected, in one line. Kept without allocating.

use std::fmt;

use crate::balloon::LimitError;

use super::parse::{ENTRIES, Entry, place};

/// How much of somebody's text is repeated.
const EXCERPT_BYTES: usize = 48;

/// An option that cannot be had. It says so in one line, as [`Display`](fmt::Display) has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionError {
    /// The option's name, if there is one of that name.
    name: Option<&'static str>,
    /// What was found: a name, or a value.
    found: Excerpt,
    why: Why,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// There is none of this name.
    Unknown,
    /// There was no value; what is expected.
    WithoutValue(&'static str),
    /// The value is none; what is expected.
    Bad(&'static str),
    /// It is read once.
    Fixed,
    /// A heap cannot follow it.
    Refused(Refusal),
}

/// Why a heap does not follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// More than that is in use.
    Limit(LimitError),
    /// The process may have no memory of that node.
    NoNode,
    /// What the system said.
    System(i32),
}

/// The beginning of somebody's text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Excerpt {
    bytes: [u8; EXCERPT_BYTES],
    len: u8,
    is_cut: bool,
}

impl Excerpt {
    fn of(text: &[u8]) -> Self {
        let len = text.len().min(EXCERPT_BYTES);
        let mut bytes = [0; EXCERPT_BYTES];
        bytes[..len].copy_from_slice(&text[..len]);
        Self { bytes, len: len as u8, is_cut: len < text.len() }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes[..usize::from(self.len)].escape_ascii())?;
        f.write_str(if self.is_cut { "..." } else { "" })
    }
}

impl OptionError {
    pub(super) fn unknown(name: &[u8]) -> Self {
        Self { name: None, found: Excerpt::of(name), why: Why::Unknown }
    }

    pub(super) fn without_value(name: &[u8]) -> Self {
        match place(name).map(|place| &ENTRIES[place]) {
            Some(entry) => Self::of(entry, b"", Why::WithoutValue(entry.expected)),
            None => Self::unknown(name),
        }
    }

    pub(super) fn bad(entry: &Entry, value: &[u8]) -> Self {
        Self::of(entry, value, Why::Bad(entry.expected))
    }

    pub(super) fn fixed(entry: &Entry) -> Self {
        Self::of(entry, b"", Why::Fixed)
    }

    pub(super) fn refused(entry: &Entry, refusal: Refusal) -> Self {
        Self::of(entry, b"", Why::Refused(refusal))
    }

    /// It as C has it.
    pub(crate) fn errno(&self) -> i32 {
        match self.why {
            Why::Unknown => libc::ENOENT,
            Why::WithoutValue(_) | Why::Bad(_) => libc::EINVAL,
            Why::Fixed => libc::EPERM,
            Why::Refused(Refusal::Limit(_)) => libc::EBUSY,
            Why::Refused(Refusal::NoNode) => libc::ENXIO,
            Why::Refused(Refusal::System(errno)) => errno,
        }
    }

    fn of(entry: &Entry, value: &[u8], why: Why) -> Self {
        Self { name: Some(entry.name), found: Excerpt::of(value), why }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, found) = (self.name.unwrap_or(""), &self.found);
        match self.why {
            Why::Unknown => {
                write!(f, "there is no option `{found}`, expected one of")?;
                ENTRIES.iter().try_for_each(|entry| write!(f, " {}", entry.name))
            }
            Why::WithoutValue(expected) => write!(f, "option `{name}` has no value, expected `{name}:` and {expected}"),
            Why::Bad(expected) => write!(f, "option `{name}` is `{found}`, expected {expected}"),
            Why::Fixed => write!(f, "option `{name}` is read when the program starts and cannot be changed"),
            Why::Refused(Refusal::Limit(error)) => write!(f, "option `{name}`: {error}"),
            Why::Refused(Refusal::NoNode) => write!(f, "option `{name}`: the process has no memory of that node"),
            Why::Refused(Refusal::System(errno)) => write!(f, "option `{name}`: the system refuses it (error {errno})"),
        }
    }
}

impl std::error::Error for OptionError {}
