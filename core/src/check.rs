//! Whether everything adds up.
//!
//! Each layer can say whether its own invariant holds; this is the sum over all of them:
//!
//! ```text
//! present = free in trees + in pools + in return buffers + pending + lent + reserved + offline
//! ```

use core::fmt;

use crate::arena::{Access, Arena, Busy};
use crate::buddy::Broken;
use crate::config::Config;
use crate::frame::Pfn;
use crate::frame_table::Kind;
use crate::frames::Frames;
use crate::id::{NodeId, NodeMask};
use crate::kind::ZoneKind;
use crate::platform::Platform;
use crate::zone::Zone;

/// Where every frame is. Exact while nothing moves; otherwise frames on their way may be missed or counted twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Frames that exist.
    pub present: usize,
    /// Free in their trees.
    pub free: usize,
    /// In the magazines of CPUs.
    pub pooled: usize,
    /// In the return buffers of CPUs.
    pub returning: usize,
    /// Never the allocator's.
    pub reserved: usize,
    /// Out of service.
    pub offline: usize,
}

impl Census {
    /// Frames that users have: what the equation leaves.
    pub fn lent(&self) -> usize {
        // Saturating: while frames move, some may be counted twice.
        self.present.saturating_sub(self.free + self.pooled + self.returning + self.reserved + self.offline)
    }

    /// Frames that a user could have: free ones, wherever they lie.
    pub fn available(&self) -> usize {
        self.free + self.pooled + self.returning
    }
}

/// An invariant that does not hold: the allocator's own fault, or memory overwritten by somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// A tree or its summaries contradict themselves.
    Buddy {
        /// The arena's first frame.
        arena: Pfn,
        /// What is wrong.
        what: &'static str,
    },
    /// A frame's word contradicts the tree.
    Word(Pfn),
    /// Another number of frames is free and dirty than is counted, in the arena that starts here.
    Dirty(Pfn),
    /// The equation over all frames does not hold: so many are lent by the words, so many by what is left.
    Conservation {
        /// Frames lent by their words.
        by_words: usize,
        /// Frames that are nowhere else.
        by_census: usize,
    },
    /// A zone's folded count is further off than it may be.
    Ledger(NodeId, ZoneKind),
    /// Wrong frees were found only when the frames reached their trees; this was the last.
    LateFault(Pfn),
    /// An arena's lock is held and this context may not wait for it.
    WouldBlock,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buddy { arena, what } => write!(f, "the buddy at {arena:?}: {what}"),
            Self::Word(pfn) => write!(f, "the word of {pfn:?} contradicts its tree"),
            Self::Dirty(arena) => write!(f, "the dirty frames of the arena at {arena:?} are miscounted"),
            Self::Conservation { by_words, by_census } => {
                write!(f, "{by_words} frames are lent by their words, {by_census} by what is nowhere else")
            }
            Self::Ledger(node, kind) => write!(f, "the folded count of node {node} zone {kind} is too far off"),
            Self::LateFault(pfn) => write!(f, "a wrong free was found late, the last of {pfn:?}"),
            Self::WouldBlock => f.write_str("an arena's lock is held"),
        }
    }
}

impl core::error::Error for Invalid {}

impl<'m, P: Platform, C: Config> Frames<'m, P, C> {
    /// Every zone, node by node.
    pub(crate) fn zones(&self) -> impl Iterator<Item = &'m Zone<'m, P, C>> {
        self.nodes.all().iter().flat_map(|node| &node.zones)
    }

    /// The frames that these nodes have been given.
    pub(crate) fn present_on(&self, nodes: NodeMask) -> usize {
        let nodes = self.nodes.mask().and(nodes).iter().filter_map(|node| self.nodes.get(node));
        nodes.flat_map(|node| &node.zones).map(|zone| zone.ledger.present_frames()).sum()
    }

    /// Counts where the frames are.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for zone in self.zones() {
            census.present += zone.ledger.present_frames();
            census.free += zone.free_frames();
            census.reserved += zone.ledger.reserved_frames();
            census.offline += zone.ledger.offline_frames();
        }
        for pool in self.pools.all() {
            let count = pool.count();
            census.pooled += count.pooled;
            census.returning += count.returning;
        }
        census
    }

    /// Checks every invariant of every layer, and that no frame is missing.
    ///
    /// Meant for tests and for kernels that have seen something odd: it looks at every frame. Call it while nothing
    /// else runs; otherwise the equation may fail for frames on their way.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), Invalid> {
        let pinned = P::pin();
        let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
        let mut by_words = 0;
        for zone in self.zones() {
            let mut drift = 0;
            for arena in zone.arenas() {
                by_words += arena.validate(access).map_err(|Busy| Invalid::WouldBlock)??;
                drift += arena.fold_threshold();
            }
            if zone.ledger.free_frames().abs_diff(zone.free_frames()) > drift {
                return Err(Invalid::Ledger(zone.node, zone.kind));
            }
            if let (1.., pfn) = zone.ledger.late_faults() {
                return Err(Invalid::LateFault(pfn));
            }
        }
        let by_census = self.census().lent();
        if C::CHECKED && by_words != by_census {
            return Err(Invalid::Conservation { by_words, by_census });
        }
        Ok(())
    }

    /// How many wrong frees were found only when the frame reached its tree, and the last frame: at
    /// [`Fast`](crate::Fast) the only trace of a double free. The frames stay out of use.
    pub fn late_faults(&self) -> (u64, Option<Pfn>) {
        let mut sum = (0, None);
        for zone in self.zones() {
            let (count, pfn) = zone.ledger.late_faults();
            if count != 0 {
                sum = (sum.0 + count, Some(pfn));
            }
        }
        sum
    }
}

impl<'m, P: Platform, C: Config> Arena<'m, P, C> {
    /// Checks the buddy, and each word against it; answers how many frames the words say are lent.
    fn validate(&self, access: Access<'_, P>) -> Result<Result<usize, Invalid>, Busy> {
        self.with(access, |arena, state| {
            let found = state.buddy.validate();
            found.map_err(|Broken { what, .. }| Invalid::Buddy { arena: arena.span().start(), what })?;
            arena.check_dirty(state).map_err(Invalid::Dirty)?;
            let first = arena.index(arena.span().start());
            let end = first + arena.span().count().get() as u32;
            let mut lent = 0;
            let mut next = first;
            while next < end {
                let word = arena.table.get(next);
                let free = state.buddy.is_free(next);
                let wrong = free && (C::CHECKED && word.kind() != Kind::Free || word.is_out_of_service());
                if wrong {
                    return Err(Invalid::Word(arena.pfn(next)));
                }
                let step = if C::CHECKED && word.is_out() { word.order().frames() as u32 } else { 1 };
                if C::CHECKED && word.is_out() {
                    lent += step as usize;
                    if let Some(inside) = state.buddy.first_free_in(next, step) {
                        return Err(Invalid::Word(arena.pfn(inside)));
                    }
                }
                next += step;
            }
            Ok(lent)
        })
    }
}
