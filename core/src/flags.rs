//! What a request may ask for.

use bitflags::bitflags;

bitflags! {
    /// Modifiers of a request. None set asks for unmovable memory of any zone, below which nothing is sacrificed.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct AllocFlags: u32 {
        /// The owner can move it: taken from the upper end, so that what cannot move gathers at the lower.
        const MOVABLE = 1 << 0;
        /// May use the reserve below the watermarks; for requests that cannot wait.
        const ATOMIC = 1 << 1;
        /// Only frames that ancient devices reach: zone `Dma`.
        const DMA = 1 << 2;
        /// Only frames below 4 GiB: zones `Dma32` and `Dma`.
        const DMA32 = 1 << 3;
        /// May lie on a far node (CXL memory, no CPU of its own); with `MOVABLE` far memory is the last resort anyway.
        const FAR = 1 << 4;
        /// Gives up at once where another would ask every CPU for its idle frames first.
        const TRY = 1 << 5;
    }
}
