//! The heap of a process: set up by whoever asks first, and grown by regions of one reservation.
//!
//! ```text
//!   reservation   │ memory: region │ region │ … │ metadata: of frames │ of the heap │ of region │ … │ of slabs, as they come │
//! ```
//!
//! The reservation is a terabyte, or as much as the process may have. Regions are an eighth of what there is, 64 MiB at
//! least, and hold the request that asked for them: so they are few, and none is committed long before it is needed.

use std::alloc::Layout;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

use lock_api::Mutex;
use pagemill::{
    BadFree, Config, Context, CpuId, FrameCount, FrameSpan, Frames, Heap, Metadata, NodeId, Pfn, Pinned, Platform,
    Relocation, ZoneKind,
};

use crate::background::Background;
use crate::balloon::Balloon;
use crate::ctl::Control;
use crate::excess::Excess;
use crate::fault;
use crate::fork;
use crate::huge::{Choice, HugePages};
use crate::lock::HostedLock;
use crate::members::{Instance, Member};
use crate::moves::Moved;
use crate::nodes;
use crate::numbers::{self, SEATS};
use crate::options::options;
use crate::pages;
use crate::prefault::Ahead;
use crate::reserve::{self, PAGE, Reservation};
use crate::tls::{self, Hosted};

/// What is reserved where nothing limits it.
const MOST_BYTES: usize = 1 << 40;
/// With less it is not worth the trouble.
const LEAST_BYTES: usize = 8 << 20;
/// What the program has of its address space beside the heap, unless that is more than half.
const LEFT_BYTES: usize = 48 << 20;
/// The least that is added at a time.
const REGION_BYTES: usize = 64 << 20;
/// The extent of an arena: a block is inside one, or takes whole ones.
const ARENA_BYTES: usize = 1 << 30;
/// What smaller reservations are aligned to, and the sizes of regions.
const HUGE_BYTES: usize = 2 << 20;
/// With no more than this in use there are no huge pages: a small program stays small.
const SMALL_BYTES: usize = 16 << 20;
/// Threads whose frames have pools of their own.
const FRAME_POOLS: usize = 16;
/// What is left free before the heap's metadata. Without it the first thread's pool and a slab's first object were at
/// the same place of their 256 MiB, and there are processors (Zen 4) that do not have two such lines at hand at once.
/// An odd number of pages: slabs begin at multiples of eight.
const APART_BYTES: usize = 5 * PAGE;
/// Threads whose pools are made usable together.
const TOGETHER: u32 = 16;
/// The memory that there is at least for each thread that gets pools.
const SEAT_BYTES: usize = 4 << 20;
/// The regions that there is metadata for besides what their frames need.
const REGIONS: usize = 256;
/// The share of memory that there is metadata for slabs for, as a divisor: for those of the smallest objects.
const SLABS_SHARE: usize = 48;

mod steer;

/// A level's heap, what it stands on, and where its memory comes from.
pub(crate) struct Process<C: Config> {
    frames: &'static Frames<'static, Hosted, C>,
    heap: &'static Heap<'static, Hosted, C>,
    member: &'static Member,
    /// Nothing before the first request.
    land: Mutex<HostedLock, Option<Land>>,
    /// How many regions there are.
    regions: AtomicUsize,
    /// Bit n of word w: the pools of threads from number 16 × (64·w + n) on may be used.
    prepared: [AtomicU64; (SEATS / TOGETHER / u64::BITS) as usize],
    ground: OnceLock<Ground>,
    /// Bytes of memory in regions that may be used.
    memory: AtomicUsize,
    /// Bytes of memory in regions, and the limit on those that may be used, for statistics.
    mapped: AtomicUsize,
    limit: AtomicUsize,
    /// Bytes of metadata that slabs have.
    described: AtomicUsize,
    excess: Excess,
    ahead: Ahead,
    moved: &'static Moved,
    /// What is had beyond the limit. Locked by who has the land; not part of it, which is handed from call to call.
    balloon: &'static Mutex<HostedLock, Balloon>,
    background: Background,
    huge_pages: Choice,
}

/// What stays as it is.
#[derive(Clone, Copy)]
struct Ground {
    reservation: Reservation,
    /// All memory that there can be.
    span: FrameSpan,
    /// Threads that get pools.
    cpus: usize,
    /// Where the heap's metadata begins and ends.
    heap: [usize; 2],
    /// Where that of slabs begins and ends.
    slabs: [usize; 2],
}

/// The reservation, and how much of it is in use.
struct Land {
    ground: Ground,
    /// Bytes of memory in regions, and in all.
    used: usize,
    memory: usize,
    /// Where the next region's metadata goes, and where all ends.
    metadata: usize,
    end: usize,
    /// Bytes of memory that may be used.
    limit: usize,
}

impl<C: Config> Process<C>
where
    Frames<'static, Hosted, C>: Sync,
    Heap<'static, Hosted, C>: Sync,
{
    pub(crate) const fn new(
        frames: &'static Frames<'static, Hosted, C>,
        heap: &'static Heap<'static, Hosted, C>,
        member: &'static Member,
        moved: &'static Moved,
        balloon: &'static Mutex<HostedLock, Balloon>,
    ) -> Self {
        Self {
            frames,
            heap,
            member,
            land: Mutex::new(None),
            regions: AtomicUsize::new(0),
            prepared: [const { AtomicU64::new(0) }; (SEATS / TOGETHER / u64::BITS) as usize],
            ground: OnceLock::new(),
            memory: AtomicUsize::new(0),
            mapped: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            described: AtomicUsize::new(0),
            excess: Excess::new(),
            ahead: Ahead::new(),
            moved,
            balloon,
            background: Background::new(member),
            huge_pages: Choice::new(),
        }
    }

    /// More memory for a request that found none: everything if it is the first, else another region. Answers whether
    /// there is any.
    pub(crate) fn supply(&'static self, layout: Layout) -> bool {
        // Acquire: pairs with the Release below.
        let seen = self.regions.load(Ordering::Acquire);
        let supplied = tls::supplying(|| {
            // A handler may have interrupted somebody who holds a lock that whoever holds this one waits for: it only
            // tries.
            let land = if Hosted::context() == Context::Task { Some(self.land.lock()) } else { self.land.try_lock() };
            let Some(mut land) = land else { return false };
            if self.regions.load(Ordering::Relaxed) != seen {
                // Somebody else has been here meanwhile.
                return true;
            }
            match &mut *land {
                Some(land) => self.grow(land, layout),
                None => {
                    *land = self.set_up();
                    land.is_some()
                }
            }
        });
        if seen == 0 {
            self.start_background_by_the_way();
        }
        supplied.unwrap_or(false)
    }

    /// Frames are lent that nobody has touched since.
    pub(crate) fn taken(&self, start: *mut u8, bytes: usize) {
        let Some(ground) = self.ground.get() else { return };
        let memory = self.memory.load(Ordering::Relaxed);
        let (kept, take_apart) = (|| self.heap.kept_bytes(), || self.heap.trim_large());
        self.excess.rise(self.frames, ground.reservation, memory, kept, take_apart);
        let first = start.addr() - ground.reservation.start().addr();
        let lent = first..first + bytes;
        if self.ahead.is_beyond(&lent) {
            let used = memory.saturating_sub(self.frames.free_frames().get() * PAGE);
            self.ahead.lent(ground.reservation, lent, used, memory);
        }
    }

    /// Bytes of metadata for slabs, if there are any left. No lock is taken: the heap holds some.
    pub(crate) fn describe(&self, bytes: usize) -> Option<Metadata<'static>> {
        let ground = self.ground.get()?;
        let bytes = bytes.next_multiple_of(PAGE);
        let [start, end] = ground.slabs;
        // Relaxed: who has got bytes has them alone, whatever else he sees.
        let taken = self.described.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            Some(taken + bytes).filter(|&taken| taken <= end - start)
        });
        let at = start + taken.ok()?;
        ground.reservation.commit_shown(at..at + bytes).then(|| metadata(ground.reservation, at..at + bytes))
    }

    /// Frames have become free: gives back to the system what the process should not keep.
    pub(crate) fn relieve(&'static self) {
        let reservation = || self.ground.get().map(|ground| ground.reservation);
        self.excess.relieve(self.frames, reservation, self.memory.load(Ordering::Relaxed));
        if !C::INTERRUPTIBLE {
            self.start_background_by_the_way();
        }
    }

    /// Gives everything back to the system that is free. Answers how many bytes had been in use before.
    pub(crate) fn give_all(&self) -> usize {
        let ground = self.ground.get();
        ground.map_or(0, |ground| self.excess.give_all(self.frames, ground.reservation))
    }

    fn note_memory(&self, land: &Land) {
        // Relaxed: what may be given back follows from it, and what is told.
        self.memory.store(land.used - self.balloon.lock().bytes(), Ordering::Relaxed);
        self.mapped.store(land.used, Ordering::Relaxed);
        self.limit.store(land.limit, Ordering::Relaxed);
    }

    /// Moves pages of two objects of the heap.
    ///
    /// # Safety
    /// As [`Moved::relocate`].
    #[allow(unsafe_code, reason = "a promise handed on")]
    pub(crate) unsafe fn relocate(&self, from: *mut u8, to: *mut u8, bytes: usize) -> Relocation {
        let Some(ground) = self.ground.get() else { return Relocation::Refused };
        let offset = to.addr() - ground.reservation.start().addr();
        // SAFETY: the caller's promise.
        let relocation = unsafe { self.moved.relocate(from, to, offset, bytes) };
        if relocation == Relocation::Refused {
            self.wish(*ground, offset..offset + bytes);
        }
        relocation
    }

    /// Makes pages like all others, in which nothing is.
    ///
    /// # Safety
    /// As [`Moved::settle`].
    #[allow(unsafe_code, reason = "a promise handed on")]
    pub(crate) unsafe fn settle_moved(&self, pages: *mut u8, bytes: usize) -> bool {
        let Some(ground) = self.ground.get() else { return true };
        let offset = pages.addr() - ground.reservation.start().addr();
        // SAFETY: the caller's promise.
        let settled = unsafe { self.moved.settle(pages, offset, bytes) };
        if settled == Some(true) {
            self.wish(*ground, offset..offset + bytes);
        }
        settled.is_some()
    }

    /// Bytes given back to the system since the start.
    pub(crate) fn given_back(&self) -> usize {
        self.excess.given_back()
    }

    /// Reserves as much as may be, describes it to the heap, and adds a first region.
    fn set_up(&'static self) -> Option<Land> {
        let options = options();
        options.check_nodes();
        self.huge_pages.set_unless_chosen(options.thp());
        let wished = options.reserve().unwrap_or(MOST_BYTES);
        let (mut land, base, metadata) = match reserve::limit() {
            None => Self::reserve_most(wished, usize::MAX)?,
            Some(limit) => {
                let room = limit.saturating_sub(reserve::mapped());
                let beside = Self::reserve_most(wished, room - left_of(limit, room));
                // Where it is too little for both, the heap comes first.
                beside.or_else(|| Self::reserve_most(wished, room))?
            }
        };
        let memory = land.memory;
        let span = land.ground.span;
        if self.ground.set(land.ground).is_err() {
            // The first time something failed further down.
            land.ground.reservation.give_up();
            return None;
        }
        self.member.join();
        // As in `members::prepare`: threads that have their numbers already do not ask for this.
        fence(Ordering::SeqCst);
        if !numbers::taken().all(|number| self.prepare(number)) {
            return None;
        }
        self.frames.init(span, FRAME_POOLS, 1, base).ok()?;
        if C::HARDENED {
            self.heap.set_secret(pages::secret()).ok()?;
            self.heap.set_page_hook(&pages::PAGES);
        }
        self.start(&land, metadata)?;
        self.heap.set_fault_hook(&REFUSED);
        fork::prepare();
        if !self.add(&mut land, REGION_BYTES.min(memory)) {
            return None;
        }
        self.settle();
        self.follow_options(&mut land);
        Some(land)
    }

    /// The largest reservation for memory that is wished for, within what there may be in all.
    fn reserve_most(wished: usize, most: usize) -> Option<(Land, Metadata<'static>, Metadata<'static>)> {
        let mut memory = most.min(wished).min(MOST_BYTES) & !(HUGE_BYTES - 1);
        while memory >= LEAST_BYTES {
            if let Some(described) = Self::reserve(memory, most) {
                return Some(described);
            }
            memory = (memory - memory / 32) & !(HUGE_BYTES - 1);
        }
        None
    }

    #[allow(unsafe_code, reason = "the promise of Heap::init")]
    fn start(&self, land: &Land, metadata: Metadata<'static>) -> Option<()> {
        let Ground { reservation, span, cpus, .. } = land.ground;
        // SAFETY: frame n lies n frames after the start of the reservation, which is nobody else's, and is lent only
        // when its region has been added, which is after it was committed. Signal handlers allocate at
        // levels alone that are made for it, as `Pagemill` demands of whoever installs one.
        unsafe { self.heap.init(reservation.start(), span, cpus, 1, metadata) }.ok()
    }

    /// A reservation for so much memory, and the metadata of its frames and of its heap, if the system has both, and a
    /// first region too.
    fn reserve(memory: usize, most: usize) -> Option<(Land, Metadata<'static>, Metadata<'static>)> {
        let span = span(0, memory)?;
        // Where addresses are scarce a tenth of them is for pools, and who finds none left does without.
        let cpus = (memory / SEAT_BYTES).clamp(1, SEATS as usize);
        let of_base = Frames::<Hosted, C>::base_metadata_size(span, FRAME_POOLS, 1).next_multiple_of(PAGE);
        let of_heap = Heap::<Hosted, C>::metadata_size(span, cpus, 1).checked_next_multiple_of(PAGE)?;
        let regions_at_most = REGIONS.min(memory / HUGE_BYTES);
        let of_regions = Frames::<Hosted, C>::memory_metadata_size(span).checked_add(regions_at_most * 4 * PAGE)?;
        let heap = memory.checked_add(of_base + APART_BYTES)?;
        let regions = heap.checked_add(of_heap)?;
        let slabs = regions.checked_add(of_regions)?.checked_next_multiple_of(PAGE)?;
        let end = slabs.checked_add(memory / SLABS_SHARE)? & !(PAGE - 1);
        if end > most {
            return None;
        }
        // What is aligned among frames must be in memory; where addresses are scarce, large alignments are refused.
        let align = if memory >= 4 * ARENA_BYTES { ARENA_BYTES } else { HUGE_BYTES };
        let reservation = Reservation::new(end, align)?;
        let ground = Ground { reservation, span, cpus, heap: [heap, regions], slabs: [slabs, end] };
        let land = Land { ground, used: 0, memory, metadata: regions, end: slabs, limit: usize::MAX };
        let first = REGION_BYTES.min(memory);
        let of_first = Frames::<Hosted, C>::memory_metadata_size(self::span(0, first)?);
        let usable = reservation.show(memory..end)
            && reservation.commit(0..first)
            && reservation.commit_shown(memory..heap)
            && reservation.commit_shown(heap + Heap::<Hosted, C>::metadata_at_start(span, cpus)..regions + of_first)
            && ground.commit_for::<C>(self::span(0, first)?);
        if !usable {
            reservation.give_up();
            return None;
        }
        Some((land, metadata(reservation, memory..heap), metadata(reservation, heap..regions)))
    }

    /// Adds a region that has room for `layout`, or a smaller one than is usual if there is no more.
    fn grow(&self, land: &mut Land, layout: Layout) -> bool {
        // The worst place for an alignment.
        let Some(needed) = layout.size().checked_add(layout.align()) else { return false };
        let Some(needed) = needed.checked_next_multiple_of(HUGE_BYTES) else { return false };
        let to_border = land.used.next_multiple_of(ARENA_BYTES) - land.used;
        let most = land.memory.min(land.limit) & !(HUGE_BYTES - 1);
        if needed > most.saturating_sub(land.used) {
            return false;
        }
        if needed > to_border && to_border != 0 {
            // A block does not cross the border of an arena. What is left before it serves others.
            if needed > (most - land.used).saturating_sub(to_border) || !self.add(land, to_border) {
                return false;
            }
        }
        let needed = if needed > ARENA_BYTES { needed.next_multiple_of(ARENA_BYTES) } else { needed };
        let usual = (land.used / 8).clamp(REGION_BYTES, ARENA_BYTES) & !(HUGE_BYTES - 1);
        let mut bytes = usual.max(needed).min(most - land.used);
        while bytes >= needed && bytes != 0 {
            if self.add(land, bytes) {
                return true;
            }
            bytes = (bytes / 2) & !(HUGE_BYTES - 1);
        }
        false
    }

    /// Explicit huge pages for a region, if they are wanted and there are any; else a wish. `false` if that has cost
    /// the region its memory.
    fn choose_pages(&self, ground: Ground, region: Range<usize>) -> bool {
        let explicit = match self.huge_pages.get() {
            HugePages::Explicit => {
                // They come and go as a whole only, and what is set aside for the process is given up with them.
                self.excess.forbid();
                ground.reservation.map_huge(region.clone())
            }
            _ => Some(false),
        };
        match explicit {
            Some(false) => self.wish(ground, region),
            _ => nodes::place(ground.reservation, region, options().numa()),
        }
        explicit.is_some()
    }

    /// Wishes for pages in memory that is not yet touched: huge ones, but for the first, and from certain nodes.
    fn wish(&self, ground: Ground, range: Range<usize>) {
        let border = match self.huge_pages.get() {
            HugePages::Never => range.end,
            HugePages::Always => 0,
            HugePages::Transparent | HugePages::Explicit => SMALL_BYTES,
        };
        let border = border.clamp(range.start, range.end);
        ground.reservation.prefer_huge(range.start..border, false);
        ground.reservation.prefer_huge(border..range.end, true);
        nodes::place(ground.reservation, range, options().numa());
    }

    /// Adds the next `bytes` as a region.
    fn add(&self, land: &mut Land, bytes: usize) -> bool {
        let Some(region) = span(land.used, bytes) else { return false };
        let ground = land.ground;
        let usable = bytes <= land.memory - land.used
            && ground.reservation.commit(land.used..land.used + bytes)
            && ground.commit_for::<C>(region);
        if !usable {
            return false;
        }
        if !self.choose_pages(ground, land.used..land.used + bytes) {
            return false;
        }
        let metadata = land.take_metadata(Frames::<Hosted, C>::memory_metadata_size(region));
        let Some(metadata) = metadata else { return false };
        if self.frames.add_memory(NodeId::ZERO, ZoneKind::Normal, region, &[], metadata).is_err() {
            return false;
        }
        land.used += bytes;
        self.note_memory(land);
        self.regions.fetch_add(1, Ordering::Release);
        true
    }
}

impl Land {
    /// The next bytes of metadata.
    fn take_metadata(&mut self, bytes: usize) -> Option<Metadata<'static>> {
        let range = self.metadata..self.metadata.checked_add(bytes.next_multiple_of(PAGE))?;
        if range.end > self.end || !self.ground.reservation.commit_shown(range.clone()) {
            return None;
        }
        self.metadata = range.end;
        Some(metadata(self.ground.reservation, range))
    }
}

impl Ground {
    /// Makes what the heap notes about these frames usable.
    fn commit_for<C: Config>(&self, part: FrameSpan) -> bool {
        let mut ranges = Heap::<Hosted, C>::metadata_of_frames(self.span, self.cpus, part);
        ranges.all(|range| self.reservation.commit_shown(self.heap[0] + range.start..self.heap[0] + range.end))
    }
}

/// Metadata that is carved once: each part of a reservation by its place in the order above, of slabs by their count.
#[allow(unsafe_code, reason = "the promise that nobody has it yet")]
fn metadata(reservation: Reservation, range: Range<usize>) -> Metadata<'static> {
    // SAFETY: the parts follow one another, and each is given out once.
    unsafe { reservation.metadata(range) }
}

impl<C: Config> Instance for Process<C>
where
    Frames<'static, Hosted, C>: Sync,
    Heap<'static, Hosted, C>: Sync,
{
    fn prepare(&self, number: u32) -> bool {
        let Some(ground) = self.ground.get() else { return true };
        if number as usize >= ground.cpus {
            return true;
        }
        // Neighbours along with it, and once for all threads that have these numbers one after another.
        let group = number / TOGETHER;
        let (prepared, bit) = (&self.prepared[(group / u64::BITS) as usize], 1 << (group % u64::BITS));
        // Acquire: pairs with the Release below; who sees the bit may write there.
        if prepared.load(Ordering::Acquire) & bit != 0 {
            return true;
        }
        let first = group * TOGETHER;
        let [first, last] = [first, (first + TOGETHER).min(ground.cpus as u32) - 1]
            .map(|number| Heap::<Hosted, C>::metadata_of_cpu(ground.span, CpuId::new(number)));
        let usable = ground.reservation.commit_shown(ground.heap[0] + first.start..ground.heap[0] + last.end);
        if usable {
            prepared.fetch_or(bit, Ordering::Release);
        }
        usable
    }

    fn settle(&self) {
        // Without a pool for this thread its requests go to the slabs.
        self.heap.settle();
        self.frames.settle();
    }

    fn control(&'static self) -> Option<&'static dyn Control> {
        Some(self)
    }

    fn tick(&'static self) {
        self.heap.poll();
        self.relieve();
    }

    fn give_back(&'static self) {
        self.heap.drain_cpu();
        self.frames.drain_cpu();
        self.relieve();
    }

    fn before_fork(&self, pinned: &Pinned<Hosted>) {
        self.excess.before_fork();
        std::mem::forget(self.land.lock());
        self.heap.lock_all(pinned);
    }

    #[allow(unsafe_code, reason = "locks that are held from one call to another")]
    fn after_fork(&self, copied_as: Option<CpuId>) {
        match copied_as {
            // SAFETY: locked by `before_fork`, and given back once.
            None => unsafe { self.heap.unlock_all() },
            // SAFETY: as above; this is the child, which has one thread.
            Some(cpu) => unsafe { self.heap.unlock_copy(cpu) },
        }
        // SAFETY: as above.
        unsafe { self.land.force_unlock() };
        self.excess.after_fork(copied_as.is_some());
        if copied_as.is_some() {
            self.background.in_copy();
        }
    }
}

/// What of the `room` that a process has below its limit is the program's own: for its stacks, its files and its
/// libraries. A program that has much already will have more.
fn left_of(limit: usize, room: usize) -> usize {
    let has = limit - room;
    let in_all = (limit / 4).max(LEFT_BYTES).min(limit / 2);
    in_all.saturating_sub(has).max(has.min(LEFT_BYTES)).min(room / 2)
}

/// Frames by their bytes.
fn span(start: usize, bytes: usize) -> Option<FrameSpan> {
    FrameSpan::new(Pfn::new(start / PAGE), FrameCount::new(bytes / PAGE)).ok()
}

static REFUSED: fn(BadFree) = fault::refused;
