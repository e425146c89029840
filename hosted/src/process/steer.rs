//! What can be asked of the heap of a process, and changed in it, while it works.

use std::alloc::Layout;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(feature = "profile")]
use pagemill::SampleHook;
use pagemill::{Config, Context, CpuId, Frames, Heap, HeapReport, NodeId, Platform};

use super::{HugePages, Land, Process};
use crate::balloon::LimitError;
use crate::ctl::Control;
use crate::edges;
use crate::numbers;
use crate::options::options;
#[cfg(feature = "profile")]
use crate::profile;
use crate::report::NodeAccount;
use crate::reserve::PAGE;
use crate::stats::Stats;
use crate::tls::{self, Hosted};

impl<C: Config> Process<C>
where
    Frames<'static, Hosted, C>: Sync,
    Heap<'static, Hosted, C>: Sync,
{
    /// Starts the thread in the background, if somebody wants it and it is not there: because there was no time for it
    /// yet, or because this is a copy of a process that had one. What is started allocates, and nothing is held here.
    pub(super) fn start_background_by_the_way(&'static self) {
        if self.background.is_missing() && edges::is_ready() && Hosted::context() == Context::Task {
            self.background.start_by_the_way();
        }
    }

    /// Has a thread of its own [`tick`](Self::tick) so often.
    pub(crate) fn start_background(&'static self, period: Duration) -> io::Result<()> {
        // What is wanted once the heap is there is not to come between.
        self.supply_first();
        self.background.want(period);
        self.background.start()
    }

    /// Sets up the heap, if the first request of the process is not one for memory.
    fn supply_first(&'static self) {
        if !self.is_set_up() {
            self.supply(Layout::new::<u8>());
        }
    }

    /// Sets the most memory that there may be for objects.
    pub(crate) fn set_limit(&'static self, limit: usize) -> Result<(), LimitError> {
        self.supply_first();
        self.heap.drain();
        let set = tls::supplying(|| match &mut *self.land.lock() {
            Some(land) => self.keep_limit(land, limit),
            None => Err(0),
        });
        let used = |used_bytes| LimitError { limit_bytes: limit & !(PAGE - 1), used_bytes };
        set.unwrap_or(Err(self.memory.load(Ordering::Relaxed))).map_err(used)
    }

    /// Keeps a limit from now on, or answers the bytes that are in use.
    pub(super) fn keep_limit(&self, land: &mut Land, limit: usize) -> Result<(), usize> {
        let limit = limit & !(PAGE - 1);
        let wanted = land.used.saturating_sub(limit) / PAGE;
        let mut balloon = self.balloon.lock();
        let before = balloon.bytes() / PAGE;
        let discard = (!self.excess.is_forbidden()).then_some(land.ground.reservation);
        if !balloon.grow(self.frames, discard, land.used / PAGE, wanted) {
            let used = land.used - balloon.bytes();
            balloon.shrink(self.frames, before);
            return Err(used);
        }
        balloon.shrink(self.frames, wanted);
        drop(balloon);
        land.limit = limit;
        self.note_memory(land);
        Ok(())
    }

    /// Sets which pages there should be behind memory: behind what is not yet touched, or not yet had.
    pub(crate) fn set_huge_pages(&'static self, pages: HugePages) {
        tls::supplying(|| {
            let land = self.land.lock();
            self.huge_pages.set(pages);
            if let Some(land) = &*land {
                self.wish(land.ground, 0..land.used);
            }
        });
    }

    /// What whoever started the process wants of a heap that has just been set up.
    pub(super) fn follow_options(&'static self, land: &mut Land) {
        let options = options();
        #[cfg(feature = "profile")]
        profile::follow(|hook, mean| Control::sample(self, hook, mean));
        #[cfg(not(feature = "profile"))]
        if options.prof() || options.leak_report() {
            let mut line = crate::print::Print::to_errors();
            line.line(format_args!("pagemill: PAGEMILL_CONF: prof, leak_report: this heap was built without profiles"));
        }
        if options.background_thread() {
            self.background.want(options.decay());
        }
        if let Some(limit) = options.limit()
            && let Err(used_bytes) = self.keep_limit(land, limit)
        {
            options.complain_of_limit(LimitError { limit_bytes: limit, used_bytes });
        }
    }

    /// Where the bytes are that the heap has, as it and the system have it.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.own_stats();
        if let Some(ground) = self.ground.get() {
            stats.look_at(ground.reservation);
        }
        stats
    }

    /// The same, as the heap has it alone.
    pub(crate) fn own_stats(&self) -> Stats {
        let memory = self.memory.load(Ordering::Relaxed);
        let free_bytes = self.frames.free_frames().get() * PAGE;
        let limit = self.limit.load(Ordering::Relaxed);
        Stats {
            memory_bytes: memory,
            mapped_bytes: self.mapped.load(Ordering::Relaxed),
            limit_bytes: Some(limit).filter(|&limit| limit < usize::MAX & !(PAGE - 1)),
            used_bytes: memory.saturating_sub(free_bytes),
            free_bytes,
            dirty_bytes: self.frames.dirty_frames().get() * PAGE,
            kept_bytes: self.heap.kept_bytes(),
            given_back_bytes: self.excess.given_back(),
            moved_bytes: self.moved.bytes(),
            lost_at_fork: self.lost_at_fork(),
            ..Stats::default()
        }
    }

    /// Whether there has been a request.
    pub(crate) fn is_set_up(&self) -> bool {
        self.regions.load(Ordering::Acquire) != 0
    }

    /// Objects that were at hand for other threads when the process became what it is.
    pub(crate) fn lost_at_fork(&self) -> usize {
        numbers::lost().map(|number| self.heap.pooled_on(CpuId::new(number))).sum()
    }

    /// Gives everything back to the system that is idle.
    pub(crate) fn trim(&'static self) -> usize {
        self.heap.drain();
        self.give_all()
    }
}

impl<C: Config> Control for Process<C>
where
    Frames<'static, Hosted, C>: Sync,
    Heap<'static, Hosted, C>: Sync,
{
    fn start_wanted(&'static self) {
        self.start_background_by_the_way();
    }

    fn set_limit(&'static self, bytes: usize) -> Result<(), LimitError> {
        Self::set_limit(self, bytes)
    }

    fn set_huge_pages(&'static self, pages: HugePages) {
        Self::set_huge_pages(self, pages);
    }

    fn set_background(&'static self, period: Duration) -> io::Result<()> {
        self.start_background(period)
    }

    fn trim(&'static self) -> usize {
        Self::trim(self)
    }

    fn stats(&self) -> Stats {
        Self::stats(self)
    }

    fn own_stats(&self) -> Stats {
        Self::own_stats(self)
    }

    #[cfg(feature = "profile")]
    fn sample(&'static self, hook: &'static SampleHook, mean: usize) {
        self.heap.set_sample_hook(hook);
        self.heap.sample_every(mean);
    }

    fn level(&self) -> (&'static str, bool) {
        let level = match (C::HARDENED, C::CHECKED) {
            (true, _) => "hardened",
            (false, true) => "checked",
            (false, false) => "fast",
        };
        (level, C::INTERRUPTIBLE)
    }

    fn slabs(&self) -> HeapReport {
        self.heap.slabinfo()
    }

    fn node(&self, node: NodeId) -> Option<NodeAccount> {
        if node.index() >= self.frames.node_count() {
            return None;
        }
        let mut account = NodeAccount { counts: self.frames.numa_counts(node), ..NodeAccount::default() };
        for zone in self.frames.zone_infos().filter(|zone| zone.node == node) {
            account.managed_bytes += zone.managed * PAGE;
            account.free_bytes += zone.free * PAGE;
        }
        Some(account)
    }
}
