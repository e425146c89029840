//! What a heap shows, as text that people know from `/proc/slabinfo`.

use core::fmt;

use super::{Heap, HeapCensus};
use crate::config::Config;
use crate::platform::Platform;
use crate::size_class::SizeClass;
use crate::slab::Shape;

/// Text about a heap, made when it is printed.
pub struct HeapReport {
    census: HeapCensus,
    frame_bytes: usize,
    /// Slots and bytes of a slab of each class.
    shapes: [(u32, usize); SizeClass::COUNT],
}

impl<P: Platform, C: Config> Heap<'_, P, C> {
    /// The classes that have slabs, a line each as `/proc/slabinfo` has it, and which part of their slots is not lent;
    /// then a line over all. Exact while nothing moves.
    pub fn slabinfo(&self) -> HeapReport {
        let mut shapes = [(0, 0); SizeClass::COUNT];
        for class in SizeClass::all() {
            let shape = Shape::of::<C>(class);
            shapes[class.index()] = (shape.slots, shape.bytes);
        }
        HeapReport { census: self.census(), frame_bytes: C::FRAME_BYTES, shapes }
    }
}

impl HeapReport {
    /// The counts that it shows.
    pub fn census(&self) -> &HeapCensus {
        &self.census
    }

    /// The bytes of each slab of a class.
    pub fn slab_bytes(&self, class: SizeClass) -> usize {
        self.shapes[class.index()].1
    }
}

impl fmt::Display for HeapReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["# name", "active", "total", "objsize", "perslab", "pages"];
        let [name, active, total, objsize, perslab, pages] = heads;
        write!(f, "{name:<12} {active:>8} {total:>8} {objsize:>8} {perslab:>8} {pages:>6}")?;
        writeln!(f, " {:>6} {:>7} {:>7} {:>7}", "slabs", "pools", "depots", "idle")?;
        let (mut lent_bytes, mut slab_bytes) = (0, 0);
        for class in SizeClass::all() {
            let count = self.census.class(class);
            let (slots, bytes) = self.shapes[class.index()];
            if count.slabs == 0 {
                continue;
            }
            lent_bytes += count.lent() * class.bytes();
            slab_bytes += count.slabs * bytes;
            let idle = (count.slots - count.lent()) * 100 / count.slots;
            write!(f, "heap-{:<7} {:>8} {:>8}", class.bytes(), count.lent(), count.slots)?;
            write!(f, " {:>8} {slots:>8} {:>6} {:>6}", class.bytes(), bytes / self.frame_bytes, count.slabs)?;
            writeln!(f, " {:>7} {:>7} {idle:>6}%", count.pooled, count.depot)?;
        }
        let descriptors = self.census.descriptor_bytes;
        write!(f, "{lent_bytes} bytes lent of {slab_bytes} in slabs; {descriptors} bytes of descriptors")
    }
}
