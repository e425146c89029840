//! Where the kit keeps the blocks it holds: in blocks of the allocator under test, since it has no other memory.
//!
//! An allocator that is broken may lend these bytes to somebody else. So all that is read back is checked before it is
//! believed, and what does not check is reported as the block it is: one whose bytes have changed.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::hint;
use core::mem;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

use super::fault::{Broken, Fault};
use super::kit::Kit;
use super::memory::{Block, Parts, Plain};

/// A number that other numbers in memory are checked by.
fn seal(values: &[usize]) -> usize {
    values.iter().fold(0x5ea1, |sum, &value| (sum.rotate_left(7) ^ value).wrapping_mul(0x9e37_79b9))
}

/// What a block takes of the memory, as the kit counts it.
fn cost(layout: Layout) -> usize {
    layout.size() + layout.align()
}

/// A block in a table, as numbers that anybody may have written over.
#[derive(Clone, Copy)]
struct Entry {
    start: *mut u8,
    size: usize,
    align: usize,
    len: usize,
    seed: u64,
    seal: usize,
}

// SAFETY: numbers and a pointer.
unsafe impl Plain for Entry {}

impl Entry {
    fn new(Parts { start, layout, len, seed }: Parts, table: usize) -> Self {
        let entry = Self { start: start.as_ptr(), size: layout.size(), align: layout.align(), len, seed, seal: 0 };
        Self { seal: entry.sealed(table), ..entry }
    }

    fn sealed(&self, table: usize) -> usize {
        seal(&[self.start.addr(), self.size, self.align, self.len, self.seed as usize, table])
    }

    /// The block, if nobody has written over it, not even another table.
    fn parts(self, table: usize) -> Option<Parts> {
        let whole = self.seal == self.sealed(table);
        let layout = Layout::from_size_align(self.size, self.align).ok().filter(|_| whole)?;
        Some(Parts { start: NonNull::new(self.start)?, layout, len: self.len, seed: self.seed })
    }
}

/// A table of blocks, in a block.
pub(super) struct Table<'k> {
    kit: &'k Kit<'k>,
    /// The tables of a kit are numbered.
    number: usize,
    block: Block<'k>,
    len: usize,
    bytes: usize,
}

impl<'k> Table<'k> {
    /// A table for that many blocks.
    pub(super) fn new(kit: &'k Kit<'k>, capacity: usize) -> Result<Self, Broken> {
        let layout = Layout::array::<Entry>(capacity.max(1)).expect("a table fits into memory");
        Ok(Self { kit, number: kit.next_number(), block: kit.lend(layout)?, len: 0, bytes: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes its blocks were asked for with, alignment included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many blocks it has room for.
    pub(super) fn capacity(&self) -> usize {
        self.block.layout().size() / size_of::<Entry>()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len == self.capacity()
    }

    pub(super) fn push(&mut self, block: Block<'k>) {
        assert!(!self.is_full());
        self.bytes += cost(block.layout());
        self.block.put(self.len * size_of::<Entry>(), Entry::new(block.into_parts(), self.number));
        self.len += 1;
    }

    /// Takes a block out; the last one takes its place.
    pub(super) fn take(&mut self, index: usize) -> Result<Block<'k>, Broken> {
        let parts = self.parts(index)?;
        self.bytes -= cost(parts.layout);
        self.len -= 1;
        let last: Entry = self.block.get(self.len * size_of::<Entry>());
        self.block.put(index * size_of::<Entry>(), last);
        // SAFETY: the table has the parts no more.
        Ok(unsafe { Block::from_parts(self.kit.subject(), parts) })
    }

    /// Whether a block has its bytes still.
    pub(super) fn verify(&self, index: usize, at: &'static str) -> Result<(), Broken> {
        // SAFETY: this value is neither kept nor freed, and the table keeps the parts.
        let block = unsafe { Block::from_parts(self.kit.subject(), self.parts(index)?) };
        block.verify_all(at)
    }

    /// Whether all blocks have their bytes still.
    pub(super) fn verify_all(&self, at: &'static str) -> Result<(), Broken> {
        (0..self.len).try_for_each(|index| self.verify(index, at))
    }

    /// Whether a block shares bytes with none in the table, nor with the table.
    pub(super) fn disjoint(&self, block: &Block<'_>) -> Result<(), Broken> {
        let others = (0..self.len).map(|index| self.parts(index).map(|parts| (parts.start.addr().get(), parts.len)));
        let table = (self.block.address(), self.block.len());
        for other in others.chain([Ok(table)]) {
            let (other, len) = other?;
            if block.address() < other + len && other < block.span().end {
                return Err(Fault::Overlap { address: block.address(), other }.at("lent", block.layout()));
            }
        }
        Ok(())
    }

    /// Takes a block out, the last one or the one that an order of freeing names, verifies and frees it.
    pub(super) fn free(&mut self, index: usize, at: &'static str) -> Result<(), Broken> {
        let block = self.take(index)?;
        block.verify_all(at)?;
        block.free();
        Ok(())
    }

    /// Verifies and frees all blocks, the last first.
    pub(super) fn free_all(&mut self, at: &'static str) -> Result<(), Broken> {
        while self.len > 0 {
            self.free(self.len - 1, at)?;
        }
        Ok(())
    }

    /// Verifies and frees all blocks, and then the table.
    pub(super) fn close(mut self, at: &'static str) -> Result<(), Broken> {
        self.free_all(at)?;
        self.block.free();
        Ok(())
    }

    fn parts(&self, index: usize) -> Result<Parts, Broken> {
        assert!(index < self.len);
        let entry: Entry = self.block.get(index * size_of::<Entry>());
        entry.parts(self.number).ok_or_else(|| Fault::Overwritten.at("the kit's own table", self.block.layout()))
    }
}

/// Blocks of one layout, each of which begins with the address of the next: as many as there is memory.
pub(super) struct Chain<'k> {
    kit: &'k Kit<'k>,
    layout: Layout,
    head: *mut u8,
    count: usize,
}

// SAFETY: its blocks may be freed by any thread, and are reached through it alone.
unsafe impl Send for Chain<'_> {}

/// What stands at the start of a block in a chain; the seal only where there is room.
const LINK: usize = size_of::<*mut u8>();
const SEALED: usize = LINK + size_of::<usize>();

// SAFETY: a pointer.
unsafe impl Plain for *mut u8 {}
// SAFETY: a number.
unsafe impl Plain for usize {}

impl<'k> Chain<'k> {
    /// An empty chain for blocks that have room for an address.
    pub(super) fn new(kit: &'k Kit<'k>, layout: Layout) -> Self {
        assert!(layout.size() >= LINK);
        Self { kit, layout, head: ptr::null_mut(), count: 0 }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Fills a block and puts it at the head.
    pub(super) fn push(&mut self, mut block: Block<'k>) {
        assert_eq!(block.layout(), self.layout);
        block.seed(block.address() as u64);
        block.fill_from(self.link_bytes());
        block.put(0, self.head);
        if self.is_sealed() {
            block.put(LINK, seal(&[self.head.addr(), block.address()]));
        }
        self.head = block.start().as_ptr();
        self.count += 1;
    }

    /// Takes the head, which must be as it was filled.
    pub(super) fn pop(&mut self, at: &'static str) -> Result<Option<Block<'k>>, Broken> {
        let Some(start) = NonNull::new(self.head) else { return Ok(None) };
        let parts = Parts { start, layout: self.layout, len: self.layout.size(), seed: start.addr().get() as u64 };
        // SAFETY: the block was put into the chain whole, and is its head no more when this returns it.
        let block = unsafe { Block::from_parts(self.kit.subject(), parts) };
        let next: *mut u8 = block.get(0);
        let sealed = !self.is_sealed() || block.get::<usize>(LINK) == seal(&[next.addr(), block.address()]);
        if !sealed || next.is_null() != (self.count == 1) {
            return Err(Fault::Overwritten.at(at, self.layout));
        }
        block.verify(self.link_bytes()..self.layout.size(), at)?;
        self.head = next;
        self.count -= 1;
        Ok(Some(block))
    }

    /// Verifies and frees all of its blocks, the head first.
    pub(super) fn free(mut self, at: &'static str) -> Result<(), Broken> {
        while let Some(block) = self.pop(at)? {
            block.free();
        }
        Ok(())
    }

    fn is_sealed(&self) -> bool {
        self.layout.size() >= SEALED
    }

    fn link_bytes(&self) -> usize {
        if self.is_sealed() { SEALED } else { LINK }
    }
}

/// A place where threads leave things for one another.
pub(super) struct Exchange<T> {
    busy: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time, and moves between threads.
unsafe impl<T: Send> Sync for Exchange<T> {}

impl<T> Exchange<T> {
    pub(super) const fn new(value: T) -> Self {
        Self { busy: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Leaves a thing and takes what lay there.
    pub(super) fn swap(&self, value: T) -> T {
        // Acquire and Release: what the last one did comes before what this one does.
        while self.busy.swap(true, Ordering::Acquire) {
            hint::spin_loop();
        }
        // SAFETY: whoever has set `busy` is alone with the value until it is cleared.
        let before = mem::replace(unsafe { &mut *self.value.get() }, value);
        self.busy.store(false, Ordering::Release);
        before
    }
}
