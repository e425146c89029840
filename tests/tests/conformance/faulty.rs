//! Heaps with one fault each, of the kinds that heaps had: the kit has to find every one of them, and every property
//! has to be of use for one of them at least.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;
use std::ptr::{self, NonNull};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use allocator_api2::alloc::{AllocError, Allocator};

use crate::naive::{Naive, taken};

/// The memory of each, aligned to its size.
pub(crate) const MEMORY: usize = 256 << 10;

/// What is wrong with a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Alignments beyond 16 are off by half of them.
    Misaligned,
    /// One size class is a granule too small.
    ShortClass,
    /// From the 51st block of a size on, the first is lent again.
    ShortBitmap,
    /// Now and then a block is lent that is lent already.
    LentTwice,
    /// What is asked for as zeroed is not.
    Dirty,
    /// Only the first page of it is.
    DirtyTail,
    /// Sizes wrap around.
    Wraps,
    /// A block that grows is empty afterwards.
    GrowLoses,
    /// A block that shrinks has lost the last of the bytes that are left.
    ShrinkLoses,
    /// A block that grows stays where it is, whoever comes after it.
    GrowsOver,
    /// A block that is resized has the alignment of a word.
    ResizeMisaligns,
    /// A block that is resized beyond a page moves without its second half.
    ResizeHalves,
    /// A block that cannot grow is freed.
    RefusedIsFreed,
    /// Every fiftieth resize loses what was there.
    SometimesLoses,
    /// A free writes a word behind the block.
    FreeWritesBehind,
    /// A free takes the next granule along.
    FreesNeighbour,
    /// Blocks of a page and more are never free again.
    Leaks,
    /// Sooner or later nothing is left, though all was freed.
    Forgets,
    /// At the end of memory the last block is lent again.
    LastAgain,
    /// At the end of memory zeroed memory is somebody else's.
    EndIsLent,
    /// A free by another thread than the one that asked is lost.
    RemoteLost,
    /// A free by another thread writes into the block behind.
    RemoteWrites,
    /// Two threads that ask for small blocks of one layout get the same.
    Race,
    /// By `Allocator`: a block of no bytes has no alignment.
    EmptyMisaligned,
    /// By `Allocator`: a block of no bytes cannot be had.
    EmptyRefused,
    /// By `Allocator`: a block is said to be longer than it is.
    ExcessShared,
    /// By `Allocator`: a block that is freed by its full size takes the next granule along.
    ExcessFreed,
    /// By `Allocator`: a block that grows keeps its old alignment only.
    GrowKeepsAlign,
    /// By `Allocator`: what grows as zeroed is not.
    GrowDirty,
}

pub(crate) struct Faulty {
    naive: Naive,
    fault: Fault,
    calls: AtomicUsize,
    last: Mutex<Last>,
    /// For each layout the block that was lent last, and by whom.
    lent: Mutex<HashMap<Layout, (usize, ThreadId)>>,
}

/// What was lent last, for the faults that lend it again.
struct Last {
    start: usize,
    layout: Layout,
    thread: Option<ThreadId>,
    live: usize,
}

impl Faulty {
    pub(crate) fn new(fault: Fault) -> Self {
        let last = Last { start: 0, layout: Layout::new::<()>(), thread: None, live: 0 };
        Self {
            naive: Naive::new(MEMORY),
            fault,
            calls: AtomicUsize::new(1),
            last: Mutex::new(last),
            lent: Mutex::default(),
        }
    }

    /// Whether this call is one of every `count`.
    fn is_turn(&self, count: usize) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(count)
    }

    /// How many bytes a block takes here.
    fn taken(&self, size: usize) -> usize {
        match self.fault {
            Fault::ShortClass if (65..=72).contains(&size) => 64,
            Fault::Wraps if size > isize::MAX as usize / 4 => 64,
            Fault::ExcessShared => taken(size),
            Fault::ExcessFreed => (size / 16 + 1) * 16,
            _ => taken(size),
        }
    }

    fn lend(&self, layout: Layout) -> *mut u8 {
        let bytes = self.taken(layout.size());
        let mut last = self.last.lock().unwrap();
        let here = thread::current().id();
        let again = match self.fault {
            Fault::LentTwice => {
                last.layout.size() >= layout.size() && last.start.is_multiple_of(layout.align()) && self.is_turn(40)
            }
            Fault::ShortBitmap => last.layout == layout && last.live > 50,
            _ => false,
        };
        if again && last.start != 0 {
            last.thread = Some(here);
            return ptr::with_exposed_provenance_mut(last.start);
        }
        if self.fault == Fault::Forgets && !self.is_turn(2000) && self.calls.load(Ordering::Relaxed) > 2000 {
            return ptr::null_mut();
        }
        if self.fault == Fault::Race && layout.size() <= 64 {
            let lent = self.lent.lock().unwrap();
            if let Some(&(start, _)) = lent.get(&layout).filter(|(_, thread)| *thread != here) {
                return ptr::with_exposed_provenance_mut(start);
            }
        }
        let align = if self.fault == Fault::Wraps && layout.align() > MEMORY { 1 } else { layout.align() };
        let start = match self.naive.take(bytes, align) {
            Some(start) if self.fault == Fault::Misaligned && layout.align() > 16 => {
                start.wrapping_add(layout.align() / 2)
            }
            Some(start) => start,
            None if self.fault == Fault::LastAgain && last.layout.size() >= layout.size() => {
                return ptr::with_exposed_provenance_mut(last.start);
            }
            None => return ptr::null_mut(),
        };
        let live = if last.layout == layout { last.live + 1 } else { 1 };
        // The first of a size is what the bitmap that is too short lends again.
        let noted = if self.fault == Fault::ShortBitmap && live > 1 { last.start } else { start.expose_provenance() };
        self.lent.lock().unwrap().insert(layout, (start.expose_provenance(), here));
        *last = Last { start: noted, layout, thread: Some(here), live };
        start
    }

    fn take_back(&self, start: *mut u8, layout: Layout) {
        let bytes = self.taken(layout.size());
        self.lent.lock().unwrap().remove(&layout);
        let mut last = self.last.lock().unwrap();
        last.live = last.live.saturating_sub(usize::from(last.layout == layout));
        let remote = last.thread.is_some_and(|thread| thread != thread::current().id());
        let behind = start.wrapping_add(bytes);
        match self.fault {
            Fault::Misaligned if layout.align() > 16 => {
                return self.naive.give(start.wrapping_sub(layout.align() / 2), bytes);
            }
            Fault::FreeWritesBehind => self.scribble(behind),
            Fault::RemoteWrites if remote => self.scribble(behind),
            Fault::FreesNeighbour if self.is_inside(behind) => return self.naive.give(start, bytes + 8),
            Fault::ExcessFreed => return self.naive.give(start, bytes.min(self.left(start))),
            Fault::Leaks if layout.size() >= 4096 => return,
            Fault::RemoteLost if remote => return,
            _ => {}
        }
        self.naive.give(start, bytes);
    }

    fn left(&self, start: *mut u8) -> usize {
        MEMORY - start.addr() % MEMORY
    }

    /// Whether this lies in the memory, and not right behind it.
    fn is_inside(&self, behind: *mut u8) -> bool {
        !behind.addr().is_multiple_of(MEMORY)
    }

    fn scribble(&self, place: *mut u8) {
        if self.is_inside(place) {
            // SAFETY: all multiples of a word in the memory of the heap can be written to, which is what makes it a
            // fault.
            unsafe { place.cast::<u64>().write(0x0bad_0bad_0bad_0bad) };
        }
    }

    fn zero(&self, start: *mut u8, bytes: usize) {
        let bytes = match self.fault {
            Fault::Dirty => 0,
            Fault::DirtyTail => bytes.min(4096),
            _ => bytes,
        };
        if !start.is_null() {
            // SAFETY: the block was lent just now, and is as long.
            unsafe { start.write_bytes(0, bytes) };
        }
    }

    /// Moves a block to one of another layout.
    fn resized(&self, start: *mut u8, old: Layout, new: Layout) -> *mut u8 {
        let grows = new.size() > old.size();
        if self.fault == Fault::GrowsOver && grows && new.size() <= self.left(start) && new.size() < 4096 {
            return start;
        }
        let asked = match self.fault {
            Fault::ResizeMisaligns => Layout::from_size_align(new.size(), new.align().min(8)).unwrap(),
            Fault::GrowKeepsAlign if grows => Layout::from_size_align(new.size(), old.align()).unwrap(),
            _ => new,
        };
        let moved = self.lend(asked);
        if moved.is_null() {
            if self.fault == Fault::RefusedIsFreed {
                self.take_back(start, old);
            }
            return moved;
        }
        let kept = old.size().min(new.size());
        let copied = match self.fault {
            Fault::GrowLoses if grows => 0,
            Fault::ShrinkLoses if !grows => kept - usize::from(kept > 0),
            Fault::ResizeHalves if kept > 4096 => kept / 2,
            Fault::SometimesLoses if self.is_turn(50) => 0,
            _ => kept,
        };
        // SAFETY: both blocks are as long, and they may overlap by a fault.
        unsafe { ptr::copy(start, moved, copied) };
        self.take_back(start, old);
        moved
    }
}

// SAFETY: it is not, but for what the kit trusts it with: blocks can be written to.
unsafe impl GlobalAlloc for Faulty {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.lend(layout)
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        self.take_back(start, layout);
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let start = self.lend(layout);
        if start.is_null() && self.fault == Fault::EndIsLent {
            return ptr::with_exposed_provenance_mut(self.last.lock().unwrap().start);
        }
        self.zero(start, self.taken(layout.size()));
        start
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.resized(start, layout, Layout::from_size_align(size, layout.align()).unwrap())
    }
}

impl Faulty {
    fn slice(&self, start: *mut u8, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let bytes = match self.fault {
            Fault::ExcessShared => taken(layout.size()) + 8,
            _ => self.taken(layout.size()),
        };
        let start = NonNull::new(start).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(start, bytes.min(self.left(start.as_ptr()))))
    }
}

// SAFETY: as above.
unsafe impl Allocator for Faulty {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        match self.fault {
            Fault::EmptyMisaligned if layout.size() == 0 => Ok(NonNull::slice_from_raw_parts(NonNull::dangling(), 0)),
            Fault::EmptyRefused if layout.size() == 0 => Err(AllocError),
            _ => self.slice(self.lend(layout), layout),
        }
    }

    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return self.allocate(layout);
        }
        // SAFETY: the size is not zero.
        let bytes = self.slice(unsafe { self.alloc_zeroed(layout) }, layout)?;
        Ok(bytes)
    }

    unsafe fn deallocate(&self, start: NonNull<u8>, layout: Layout) {
        self.take_back(start.as_ptr(), layout);
    }

    unsafe fn grow(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.slice(self.resized(start.as_ptr(), old, new), new)
    }

    unsafe fn grow_zeroed(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let bytes = self.slice(self.resized(start.as_ptr(), old, new), new)?;
        if self.fault != Fault::GrowDirty {
            let rest = bytes.cast::<u8>().as_ptr().wrapping_add(old.size());
            // SAFETY: the block was lent just now, and is as long.
            unsafe { rest.write_bytes(0, bytes.len() - old.size()) };
        }
        Ok(bytes)
    }

    unsafe fn shrink(&self, start: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.slice(self.resized(start.as_ptr(), old, new), new)
    }
}
