//! How the slabs of an object cache are cut.

use core::alloc::Layout;

use crate::config::Config;
use crate::id::NodeId;
use crate::size_class::SizeClass;
use crate::slab::Shape;

/// Bytes of a cache line, and of the step from one colour to the next.
const LINE: usize = 64;
/// Bytes of the smallest slot: bitmaps have room for so many.
const LEAST: usize = 8;

/// What an [`ObjectCache`](super::ObjectCache) is called and how its objects lie.
#[derive(Clone, Copy, Debug)]
pub struct CacheOptions {
    name: &'static str,
    align_bytes: usize,
    line_aligned: bool,
    colours: usize,
    keep_slabs: usize,
    node: Option<NodeId>,
}

impl CacheOptions {
    /// Objects aligned as their type is, in as many colours as what is left of a slab allows, from the node of the CPU
    /// that needs a slab; one empty slab is kept.
    pub const fn new(name: &'static str) -> Self {
        Self { name, align_bytes: 1, line_aligned: false, colours: 0, keep_slabs: 1, node: None }
    }

    /// Objects start at multiples of `bytes`, or of the alignment of their type if that is more. It must be a power of
    /// two up to 32 KiB, else the cache answers each request with
    /// [`AllocError::Impossible`](crate::AllocError::Impossible).
    pub const fn aligned(self, bytes: usize) -> Self {
        Self { align_bytes: bytes, ..self }
    }

    /// No two CPUs that use different objects write the same cache line. Objects of half a line or less are aligned so
    /// that none lies across two lines, and do share them.
    pub const fn line_aligned(self) -> Self {
        Self { line_aligned: true, ..self }
    }

    /// Slabs start in turn at `count` different offsets, whole cache lines apart, so that the first bytes of objects of
    /// different slabs fall into different sets of a cache. What is not left over anyway is taken from the slots, as
    /// far as an eighth of the slab goes.
    pub const fn colours(self, count: usize) -> Self {
        Self { colours: count, ..self }
    }

    /// Frees keep up to `slabs` empty slabs for the next requests, with their objects constructed.
    pub const fn keep_empty(self, slabs: usize) -> Self {
        Self { keep_slabs: slabs, ..self }
    }

    /// Slabs come from `node` as long as it has frames, whoever needs them.
    pub const fn on_node(self, node: NodeId) -> Self {
        Self { node: Some(node), ..self }
    }

    /// What the cache is called.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn keep_slabs(&self) -> usize {
        self.keep_slabs
    }

    pub(super) const fn node(&self) -> Option<NodeId> {
        self.node
    }
}

/// How a slab is cut.
///
/// ```text
///   slab  │ colour │ slot 0 │ slot 1 │ …                  │ left over │
///           0, step, 2 × step, … in turn
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cut {
    pub(super) shape: Shape,
    /// From one slot to the next.
    pub(super) slot_bytes: usize,
    pub(super) align_bytes: usize,
    /// At how many offsets a slab may start, at least one.
    pub(super) colours: usize,
    /// From one of these to the next.
    pub(super) colour_bytes: usize,
}

impl Cut {
    /// For objects of a type with this layout; `None` for what no slab is cut into.
    pub(super) const fn new<C: Config>(object: Layout, options: &CacheOptions) -> Option<Self> {
        // The type's alignment is a power of two.
        if !options.align_bytes.is_power_of_two() || options.align_bytes > SizeClass::MAX_BYTES {
            return None;
        }
        let size = max(object.size(), LEAST);
        if size > SizeClass::MAX_BYTES {
            return None;
        }
        let mut align_bytes = max(object.align(), options.align_bytes);
        if options.line_aligned {
            let share = size.next_power_of_two();
            align_bytes = max(align_bytes, if share < LINE { share } else { LINE });
        }
        let slot_bytes = size.next_multiple_of(align_bytes);
        if slot_bytes > SizeClass::MAX_BYTES {
            return None;
        }
        let mut shape = Shape::of_bytes::<C>(slot_bytes);
        let colour_bytes = max(align_bytes, LINE);
        let left = shape.bytes - shape.slots as usize * slot_bytes;
        let mut colours = left / colour_bytes + 1;
        if options.colours > 0 {
            // One slot of a few is too many to give up.
            let room = if slot_bytes <= shape.bytes / 8 { shape.bytes / 8 } else { left };
            let most = room / colour_bytes + 1;
            colours = if options.colours < most { options.colours } else { most };
            shape.slots = ((shape.bytes - (colours - 1) * colour_bytes) / slot_bytes) as u32;
        }
        Some(Self { shape, slot_bytes, align_bytes, colours, colour_bytes })
    }

    /// Where the first slot of a slab lies that is the `turn`th to be made.
    pub(super) const fn colour(&self, turn: u32) -> usize {
        turn as usize % self.colours * self.colour_bytes
    }
}

const fn max(one: usize, other: usize) -> usize {
    if one > other { one } else { other }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::config::Checked;

    fn cut(size: usize, align: usize, options: CacheOptions) -> Option<Cut> {
        Cut::new::<Checked>(Layout::from_size_align(size, align).unwrap(), &options)
    }

    const PLAIN: CacheOptions = CacheOptions::new("test");

    #[test]
    fn every_size_fits_in_every_colour() {
        for size in (0..=SizeClass::MAX_BYTES).step_by(if cfg!(miri) { 1009 } else { 1 }) {
            for colours in [0, 1, 2, 7, 1000] {
                let cut = cut(size, 8, PLAIN.colours(colours)).unwrap();
                let last = cut.colour(cut.colours as u32 - 1);
                assert!(last + cut.shape.slots as usize * cut.slot_bytes <= cut.shape.bytes, "{size} in {colours}");
                assert!(cut.shape.slots >= 1 && cut.shape.slots <= 8192 && cut.slot_bytes >= size.max(8));
                let unused = cut.shape.bytes - cut.shape.slots as usize * cut.slot_bytes;
                assert!(unused <= cut.shape.bytes / 4, "{size} in {colours}");
            }
        }
    }

    #[test]
    fn alignment_is_the_strictest_asked_for() {
        assert_eq!(cut(24, 8, PLAIN).unwrap().slot_bytes, 24);
        assert_eq!(cut(24, 8, PLAIN.aligned(64)).unwrap().slot_bytes, 64);
        assert_eq!(cut(24, 64, PLAIN.aligned(16)).unwrap().slot_bytes, 64);
        assert_eq!(cut(24, 8, PLAIN.line_aligned()).unwrap().slot_bytes, 32, "half a line");
        assert_eq!(cut(40, 8, PLAIN.line_aligned()).unwrap().slot_bytes, 64);
        assert_eq!(cut(200, 8, PLAIN.line_aligned()).unwrap().slot_bytes, 256);
    }

    #[test]
    fn colours_come_from_what_is_left_or_from_slots() {
        let cut = |colours| cut(1024, 8, PLAIN.colours(colours)).unwrap();
        assert_eq!((cut(0).colours, cut(0).shape.slots), (1, 32), "nothing is left");
        assert_eq!((cut(16).colours, cut(16).shape.slots), (16, 31));
        assert_eq!((0..4).map(|turn| cut(3).colour(turn)).collect::<Vec<_>>(), [0, 64, 128, 0]);
        assert_eq!(cut(1000).colours, 65, "an eighth of the slab");
    }

    #[test]
    fn what_no_slab_is_cut_into_has_no_cut() {
        assert_eq!(cut(SizeClass::MAX_BYTES + 1, 1, PLAIN), None);
        assert_eq!(cut(8, 2 * SizeClass::MAX_BYTES, PLAIN), None);
        assert_eq!(cut(8, 8, PLAIN.aligned(48)), None);
        assert_eq!(cut(8, 8, PLAIN.aligned(0)), None);
        assert_eq!(cut(8, 8, PLAIN.aligned(1 << 63)), None);
        assert_eq!(cut(20 << 10, 8, PLAIN.aligned(16 << 10)).unwrap().slot_bytes, 32 << 10);
    }
}
