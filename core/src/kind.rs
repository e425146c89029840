//! The kinds of zone.

use core::fmt;

/// What a zone's memory is good for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ZoneKind {
    /// Reachable by ancient devices: below 16 MiB on a PC.
    Dma,
    /// Reachable by devices of 32 address bits.
    Dma32,
    /// Everything else.
    Normal,
    /// Only for what can be moved, so that all of it can be given up.
    Movable,
    /// Memory without a CPU of its own, slower than the rest (CXL).
    Far,
}

impl ZoneKind {
    /// How many kinds there are.
    pub const COUNT: usize = 5;
    /// Every kind, lowest first.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Dma32, Self::Normal, Self::Movable, Self::Far];

    /// The kind as an index into an array of [`ZoneKind::COUNT`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ZoneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "Normal",
            Self::Movable => "Movable",
            Self::Far => "Far",
        })
    }
}
