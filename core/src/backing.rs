//! Where the memory of a heap comes from and goes to, if somebody is behind it: a hypervisor, an operating system.

use core::alloc::Layout;

use crate::carve::Metadata;
use crate::config::Config;
use crate::frame::FrameSpan;
use crate::heap::Heap;
use crate::id::NodeMask;
use crate::platform::Platform;

/// What a heap asks of whoever is behind its memory, for [`Heap::with_backing`]. But for `describe`, the functions are
/// called with no lock and no pin held, in every context in which objects are asked for or freed, also by several CPUs
/// at once.
#[derive(Clone, Copy, Debug)]
pub struct Backing {
    /// Gives the instance of the heap's frames more memory for such a request on one of these nodes, as
    /// [`add_memory`](crate::Frames::add_memory) does, or metadata to the heap itself, and answers whether to try
    /// again. Called before anything is reclaimed; for the first request, where memory comes on demand. If it says yes
    /// and none of the nodes has more memory than before, the request is tried once more and no more is asked for.
    pub supply: fn(Layout, NodeMask) -> bool,
    /// Is told of frames that a slab or a large object has got, before anybody has touched them: their first address,
    /// and how many bytes they are. For instance to get the pages behind them at once. `None` if nobody wants to know.
    pub taken: Option<fn(*mut u8, usize)>,
    /// Is told that frames of a slab or a large object have become free, for instance to
    /// [report](crate::Frames::report) some.
    pub released: fn(),
    /// Gives so many bytes for what describes slabs, for ever; `None` where there are no such bytes, and frames of the
    /// heap serve. Among frames they keep a huge one from ever being whole again. Called with locks of the heap held,
    /// so it must not call the heap, nor wait for anybody who does.
    pub describe: Option<fn(usize) -> Option<Metadata<'static>>>,
    /// Moves memory instead of what is in it; `None` where that cannot be done.
    pub moves: Option<Moves>,
}

/// How the memory behind large objects is moved: by a change of page tables, which costs less than a copy from some
/// size on.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// What is shorter is copied, as are small objects, however long that says.
    pub least_bytes: usize,
    /// Moves the memory behind the frames at the first address to those at the second, so that these hold what the
    /// others held, and the others may hold anything.
    ///
    /// Both are whole frames that are lent to the heap and as many bytes as the number says; nobody else uses them.
    pub relocate: unsafe fn(*mut u8, *mut u8, usize) -> Relocation,
    /// Is told of whole frames of a large object that are about to be free, and perhaps were moved there. They hold
    /// nothing of anybody, and may hold anything afterwards. `false` if there is no memory there any more: then they
    /// are never free again.
    pub settle: unsafe fn(*mut u8, usize) -> bool,
}

/// What has become of memory that was to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relocation {
    /// It is moved.
    Done,
    /// Nothing has changed that anybody needs: it is copied.
    Refused,
    /// There is no memory any more where it should have gone; all is there where it was.
    Lost,
}

/// What is asked for at a time to describe slabs with, so that it is not asked for often.
const DESCRIBE_BYTES: usize = 64 << 10;

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Asks for more memory on one of `nodes`; nothing is held.
    pub(crate) fn supply(&self, layout: Layout, nodes: NodeMask) -> bool {
        self.backing.is_some_and(|backing| (backing.supply)(layout, nodes))
    }

    /// Says that frames are taken; nothing is held.
    pub(crate) fn tell_taken(&self, span: FrameSpan) {
        if let Some(taken) = self.backing.and_then(|backing| backing.taken) {
            taken(self.window.pointer(self.address_of(span)), span.count().get() * C::FRAME_BYTES);
        }
    }

    /// Bytes for what describes slabs, at least so many, from whoever is behind the memory.
    pub(crate) fn describe(&self, least: usize) -> Option<Metadata<'m>> {
        let describe = self.backing?.describe?;
        describe(least.max(DESCRIBE_BYTES))
    }

    /// Says that frames have become free; nothing is held.
    pub(crate) fn tell_released(&self) {
        if let Some(backing) = self.backing {
            (backing.released)();
        }
    }

    /// How objects can be moved, if they can.
    pub(crate) fn moves(&self) -> Option<Moves> {
        self.backing?.moves
    }
}
