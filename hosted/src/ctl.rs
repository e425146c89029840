//! What can be asked of the heaps of a process, and changed in them, whatever their levels. Most processes have one.

use std::io;
use std::time::Duration;

#[cfg(feature = "profile")]
use pagemill::SampleHook;
use pagemill::{HeapReport, NodeId};

use crate::balloon::LimitError;
use crate::huge::HugePages;
use crate::members;
use crate::report::NodeAccount;
use crate::stats::Stats;

/// A heap of the process that has been set up.
pub(crate) trait Control: Sync {
    /// Starts the thread in the background, if there was no time for it yet.
    fn start_wanted(&'static self);

    /// As [`Pagemill::set_limit`](crate::Pagemill::set_limit).
    fn set_limit(&'static self, bytes: usize) -> Result<(), LimitError>;

    /// As [`Pagemill::set_huge_pages`](crate::Pagemill::set_huge_pages).
    fn set_huge_pages(&'static self, pages: HugePages);

    /// As [`Pagemill::tick_in_background`](crate::Pagemill::tick_in_background).
    fn set_background(&'static self, period: Duration) -> io::Result<()>;

    /// As [`Pagemill::trim`](crate::Pagemill::trim).
    fn trim(&'static self) -> usize;

    /// As [`Pagemill::stats`](crate::Pagemill::stats).
    fn stats(&self) -> Stats;

    /// The same without what the system tells.
    fn own_stats(&self) -> Stats;

    /// Takes samples so many bytes apart, on average, of which `hook` is told; none if 0.
    #[cfg(feature = "profile")]
    fn sample(&'static self, hook: &'static SampleHook, mean: usize);

    /// The name of its level, and whether signal handlers may allocate.
    fn level(&self) -> (&'static str, bool);

    /// What lies in which class.
    fn slabs(&self) -> HeapReport;

    /// What there is on a node, if there is one of this number.
    fn node(&self, node: NodeId) -> Option<NodeAccount>;
}

/// Every heap of the process, in the order in which they came.
pub(crate) fn all() -> impl Iterator<Item = &'static dyn Control> {
    members::all().filter_map(|instance| instance.control())
}

/// Gives everything back to the system that is idle in any heap of the process, as
/// [`Pagemill::trim`](crate::Pagemill::trim) does for one. Answers how many bytes there were pages behind.
pub fn trim() -> usize {
    all().map(|heap| heap.trim()).sum()
}
