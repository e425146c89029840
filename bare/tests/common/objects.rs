//! Objects of the heap, with bytes in them that nobody else may write, and what is left when all are gone.

use core::alloc::{GlobalAlloc, Layout};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::AcqRel};

use alloc::boxed::Box;
use pagemill::{Frames, HeapCensus};
use pagemill_bare::frames::FRAMES;
use pagemill_bare::heap::{self, Global, HEAP};
use pagemill_bare::percpu::Bare;
use pagemill_bare::smp;
use pagemill_tests::{Rng, settle};

use crate::world::Machine;

/// An object that is lent, and what it was filled with.
pub(crate) struct Object {
    place: NonNull<u8>,
    layout: Layout,
    fill: u8,
}

// SAFETY: it is the right to its bytes, which are anybody's who has it.
unsafe impl Send for Object {}

impl Object {
    /// Asks for one; `None` if there is no memory.
    pub(crate) fn new(layout: Layout, fill: u8) -> Option<Self> {
        // SAFETY: the layout has a size: `layout` below makes no others.
        let place = NonNull::new(unsafe { Global.alloc(layout) })?;
        assert!(place.addr().get().is_multiple_of(layout.align()), "{place:?} for {layout:?}");
        let object = Self { place, layout, fill };
        object.looked_at(|byte| {
            // SAFETY: a byte of the object, which is ours.
            unsafe { byte.write(fill) };
        });
        Some(object)
    }

    /// Room for one on the heap; `None` if there is no memory, or it is not to be had here.
    pub(crate) fn place() -> Option<Box<MaybeUninit<Self>>> {
        // SAFETY: the layout has a size.
        let place = NonNull::new(unsafe { Global.alloc(Layout::new::<Self>()) })?.cast::<MaybeUninit<Self>>();
        // SAFETY: lent by the global allocator for that layout, and good for anything.
        Some(unsafe { Box::from_raw(place.as_ptr()) })
    }

    /// Calls `look` with some of its bytes: all of a small object, both ends of each part of a large one.
    fn looked_at(&self, mut look: impl FnMut(*mut u8)) {
        let size = self.layout.size();
        for start in (0..size).step_by(512) {
            let end = size.min(start + 512);
            let part = if size <= 512 { start..end } else { start..end.min(start + 8) };
            for offset in part.chain([end - 1]) {
                // SAFETY: inside the object.
                look(unsafe { self.place.as_ptr().add(offset) });
            }
        }
    }

    fn assert_whole(&self) {
        self.looked_at(|byte| {
            // SAFETY: written by `new`, and nobody else's.
            let found = unsafe { byte.read() };
            assert_eq!(found, self.fill, "{byte:?} of {:?} at {:?} was written by another", self.layout, self.place);
        });
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.assert_whole();
        // SAFETY: lent for this layout, and the object ends here.
        unsafe { Global.dealloc(self.place.as_ptr(), self.layout) }
    }
}

/// A layout as programs ask for them: mostly small, sometimes of whole frames, now and then aligned more than it need
/// be.
pub(crate) fn layout(rng: &mut Rng) -> Layout {
    let size = match rng.below(32) {
        0 => 1 + rng.below(150_000),
        1..4 => 1 + rng.below(32 << 10),
        4..12 => 1 + rng.below(1024),
        _ => 1 + rng.below(128),
    };
    let align = if rng.below(16) == 0 { 1 << rng.below(14) } else { 8 };
    Layout::from_size_align(size, align).expect("a layout")
}

/// Places through which CPUs and handlers hand objects to one another. What lies in one was allocated for it, too.
pub(crate) struct Places<const N: usize>([AtomicPtr<Object>; N]);

impl<const N: usize> Places<N> {
    pub(crate) const fn new() -> Self {
        Self([const { AtomicPtr::new(ptr::null_mut()) }; N])
    }

    /// Leaves an object at a place, and answers what lay there.
    pub(crate) fn swap(&self, place: usize, object: Option<Box<Object>>) -> Option<Box<Object>> {
        let before = self.0[place].swap(object.map_or(ptr::null_mut(), Box::into_raw), AcqRel);
        // SAFETY: what lies there came from `into_raw`, and is taken out by one only.
        (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
    }

    /// Frees what lies in a part of the places.
    pub(crate) fn empty(&self, part: usize, parts: usize) {
        (part..N).step_by(parts).for_each(|place| drop(self.swap(place, None)));
    }
}

/// How much of the machine was lent, so that it can be so much again.
pub(crate) struct Rest {
    lent: usize,
    objects: HeapCensus,
}

impl Rest {
    /// Empties all pools, and looks at what is left.
    pub(crate) fn now() -> Self {
        HEAP.drain();
        smp::on_all(&|_| HEAP.poll());
        // What came out of the pools is in the slabs now; those that are empty go.
        HEAP.trim();
        settle(&Machine, frames());
        let objects = HEAP.validate().expect("a heap that adds up");
        FRAMES.validate().expect("frames that add up");
        Self { lent: FRAMES.census().lent() - heap::frames_kept(), objects }
    }

    /// Asserts that as many frames and objects are lent as before, but for those that describe slabs.
    pub(crate) fn assert_again(&self) {
        let now = Self::now();
        assert_eq!(now.objects.lent(), self.objects.lent(), "objects that are still lent");
        assert_eq!(now.lent, self.lent, "frames that are still lent");
    }
}

fn frames() -> &'static Frames<'static, Bare> {
    &FRAMES
}
