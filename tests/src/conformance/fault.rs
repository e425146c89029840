//! What was found broken, and where.

use core::alloc::Layout;
use core::error::Error;
use core::fmt;

/// A property that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The property.
    pub property: &'static str,
    /// What the kit was about when it found out: `"freed by another thread"`.
    pub at: &'static str,
    /// The layout of the block in question, or of the one it was to become.
    pub layout: Layout,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It was refused, although the [`Limits`](super::Limits) say that there is memory.
    Refused,
    /// It was granted, although no memory can hold it.
    Impossible,
    /// It does not have its alignment.
    Misaligned {
        /// Where it begins.
        address: usize,
    },
    /// It has fewer bytes than were asked for.
    Short {
        /// How many it has.
        len: usize,
    },
    /// It does not lie within the address space.
    Outside {
        /// Where it begins.
        address: usize,
        /// How many bytes it is said to have.
        len: usize,
    },
    /// It shares bytes with a block that is lent as well.
    Overlap {
        /// Where it begins.
        address: usize,
        /// Where the other begins.
        other: usize,
    },
    /// A byte of it is not what it must be: what was written last, or zero.
    Changed {
        /// Which byte.
        offset: usize,
        /// What it must be.
        expected: u8,
        /// What it is.
        found: u8,
    },
    /// What the kit noted in it for itself is not what it noted.
    Overwritten,
    /// More bytes are lent at a time than the [`Limits`](super::Limits) say there are.
    Endless {
        /// How many bytes are lent.
        bytes: usize,
    },
    /// After everything was freed, fewer such blocks could be had than before.
    Lost {
        /// How many blocks were to be had at first.
        before: usize,
        /// And later.
        after: usize,
    },
}

impl Fault {
    /// With what the kit was about and the block in question; who runs the property adds its name.
    pub(super) const fn at(self, at: &'static str, layout: Layout) -> Broken {
        Broken { property: "", at, layout, fault: self }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { property, at, layout, fault } = self;
        write!(f, "{property}: {at}: block of size {} and alignment {}: {fault}", layout.size(), layout.align())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Refused => f.write_str("refused, though there is memory"),
            Self::Impossible => f.write_str("granted, though no memory can hold it"),
            Self::Misaligned { address } => write!(f, "misaligned at {address:#x}"),
            Self::Short { len } => write!(f, "has only {len} bytes"),
            Self::Outside { address, len } => write!(f, "{len} bytes at {address:#x} leave the address space"),
            Self::Overlap { address, other } => write!(f, "at {address:#x}, overlaps the one at {other:#x}"),
            Self::Changed { offset, expected, found } => {
                write!(f, "byte {offset} is {found:#04x} instead of {expected:#04x}")
            }
            Self::Overwritten => f.write_str("the kit's own notes in it were overwritten"),
            Self::Endless { bytes } => write!(f, "with it {bytes} bytes are lent at a time, more than there are"),
            Self::Lost { before, after } => write!(f, "{before} could be had at first, {after} after all were freed"),
        }
    }
}

impl Error for Broken {}
