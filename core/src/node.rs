//! Nodes: zones that are equally far from a set of CPUs, how far the nodes are from one another, and whose frame is
//! whose.

use crate::arena::{Access, Arena, Busy};
use crate::buddy::End;
use crate::carve::{Carver, Metadata, Plan};
use crate::config::{Config, Geometry};
use crate::error::SetupError;
use crate::extent::{self, Extent, Want};
use crate::flags::AllocFlags;
use crate::frame::{FrameSpan, Pfn};
use crate::id::{NodeId, NodeMask};
use crate::kind::ZoneKind;
use crate::ledger::Ledger;
use crate::platform::Platform;
use crate::policy::Route;
use crate::stats::{NodeCounters, NumaStat};
use crate::sync::{AtomicU32, AtomicUsize, Ordering, Publish, PublishSlice, const_fn};
use crate::zone::{Mark, Watermarks, Zone};

/// The distance of a node to itself; all others are further.
pub(crate) const LOCAL_DISTANCE: u8 = 10;
/// The distance between nodes that nothing is said about.
pub(crate) const REMOTE_DISTANCE: u8 = 20;

/// One node.
pub(crate) struct Node<'m, P: Platform, C: Config> {
    pub(crate) id: NodeId,
    pub(crate) zones: [Zone<'m, P, C>; ZoneKind::COUNT],
    /// Distances to all nodes, by their number.
    distances: &'m [AtomicU32],
    /// All nodes, nearest first.
    fallback: &'m [AtomicU32],
    /// Its share under weighted interleave.
    weight: AtomicU32,
    pub(crate) counters: NodeCounters,
}

impl<'m, P: Platform, C: Config> Node<'m, P, C> {
    fn new(id: NodeId, distances: &'m [AtomicU32], fallback: &'m [AtomicU32]) -> Self {
        Self {
            id,
            zones: ZoneKind::ALL.map(|kind| Zone::new(id, kind)),
            distances,
            fallback,
            weight: AtomicU32::new(1),
            counters: NodeCounters::new(),
        }
    }

    pub(crate) fn zone(&self, kind: ZoneKind) -> &Zone<'m, P, C> {
        &self.zones[kind.index()]
    }

    pub(crate) fn distance(&self, to: NodeId) -> u8 {
        self.distances[to.index()].load(Ordering::Relaxed) as u8
    }

    pub(crate) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Nodes from here, nearest first.
    pub(crate) fn fallback(&self) -> impl Iterator<Item = usize> {
        self.fallback.iter().map(|node| node.load(Ordering::Relaxed) as usize)
    }

    pub(crate) fn has_memory(&self) -> bool {
        self.zones.iter().any(Zone::is_populated)
    }
}

/// Why no frames came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Miss {
    /// No allowed zone has them above its mark.
    Empty,
    /// Some zone may, but its lock is held and the caller may not wait.
    Busy,
}

/// All nodes of a machine, and the directory from frames to arenas.
pub(crate) struct Nodes<'m, P: Platform, C: Config> {
    nodes: PublishSlice<'m, Node<'m, P, C>>,
    /// The first arena of each aligned stretch of the span; others of the stretch follow by `next_in_slot`.
    directory: PublishSlice<'m, Publish<'m, Arena<'m, P, C>>>,
    first_slot: AtomicUsize,
}

/// The aligned stretches that `span` touches.
const fn slots<C: Config>(span: FrameSpan) -> (usize, usize) {
    let first = span.start().number() >> C::ARENA_ORDER;
    (first, ((span.end().number() - 1) >> C::ARENA_ORDER) - first + 1)
}

impl<'m, P: Platform, C: Config> Nodes<'m, P, C> {
    pub(crate) const fn new_plan(span: FrameSpan, nodes: usize, plan: Plan) -> Plan {
        let (_, slots) = slots::<C>(span);
        plan.and::<Publish<'static, Arena<'static, P, C>>>(slots)
            .and::<AtomicU32>(2 * nodes * nodes)
            .and::<Node<'static, P, C>>(nodes)
    }

    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                nodes: PublishSlice::empty(),
                directory: PublishSlice::empty(),
                first_slot: AtomicUsize::new(0),
            }
        }
    }

    /// Describes `count` nodes, all equally far and without memory yet.
    pub(crate) fn init(&self, span: FrameSpan, count: usize, carver: &mut Carver<'m>) {
        let () = Geometry::<C>::VALID;
        let (first, slots) = slots::<C>(span);
        self.first_slot.store(first, Ordering::Relaxed);
        let directory = carver.zeros::<Publish<_>>(slots);
        let rows: &'m [AtomicU32] = carver.zeros(2 * count * count);
        let nodes = carver.slice(count, |number| {
            let (distances, fallback) = rows[2 * number * count..][..2 * count].split_at(count);
            for (to, distance) in distances.iter().enumerate() {
                let far = if to == number { LOCAL_DISTANCE } else { REMOTE_DISTANCE };
                distance.store(u32::from(far), Ordering::Relaxed);
            }
            let id = NodeId::new(number as u32).unwrap_or_default();
            Node::new(id, distances, fallback)
        });
        for node in nodes {
            sort_fallback(node);
        }
        self.nodes.set(nodes);
        // Last: a directory with slots says that all else is there.
        self.directory.set(directory);
    }

    pub(crate) fn all(&self) -> &'m [Node<'m, P, C>] {
        self.nodes.slice()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&'m Node<'m, P, C>> {
        self.all().get(id.index())
    }

    /// Whether the instance has been initialised.
    pub(crate) fn is_ready(&self) -> bool {
        !self.directory.slice().is_empty()
    }

    /// The arena that manages a frame. A load or two, and one more for each range that shares the aligned stretch.
    #[inline]
    pub(crate) fn arena_of(&self, pfn: Pfn) -> Option<&'m Arena<'m, P, C>> {
        // Before the first slot: who sees the directory sees where it starts.
        let directory = self.directory.slice();
        let slot = (pfn.number() >> C::ARENA_ORDER).wrapping_sub(self.first_slot.load(Ordering::Relaxed));
        let mut next = directory.get(slot)?.get();
        while let Some(arena) = next {
            if arena.span().contains(pfn) {
                return Some(arena);
            }
            next = arena.next_in_slot.get();
        }
        None
    }

    /// The first range under management that overlaps `span`.
    fn overlap(&self, span: FrameSpan) -> Option<FrameSpan> {
        let zones = self.all().iter().flat_map(|node| &node.zones);
        zones.flat_map(Zone::extents).find_map(|extent| extent.span().intersection(span))
    }

    /// Brings `span` under management as memory of `kind` on `node`. Only under the registry lock.
    pub(crate) fn add(
        &self,
        node: NodeId,
        kind: ZoneKind,
        span: FrameSpan,
        reserved: &[FrameSpan],
        metadata: Metadata<'m>,
    ) -> Result<(), SetupError> {
        if !self.is_ready() {
            return Err(SetupError::State);
        }
        let home = self.get(node).ok_or(SetupError::NoSuchNode(node))?;
        let (first, count) = slots::<C>(span);
        let first = first.wrapping_sub(self.first_slot.load(Ordering::Relaxed));
        let directory = self.directory.slice();
        let slots = first.checked_add(count).and_then(|end| directory.get(first..end));
        let slots = slots.ok_or(SetupError::OutsideSpan(span))?;
        if let Some(overlap) = self.overlap(span) {
            return Err(SetupError::Overlap(overlap));
        }
        let zone = home.zone(kind);
        let mut carver = Carver::new(metadata, extent::metadata_bytes::<P, C>(span))?;
        let extent = Extent::carve(&mut carver, span, (node, kind), ledger_of(home, kind));
        zone.ledger.book_present(span.count().get(), 0);
        extent.open(reserved);
        for (slot, arena) in slots.iter().zip(extent.arenas()) {
            arena.next_in_slot.set(slot.get());
            slot.set(Some(arena));
        }
        zone.link(extent);
        Ok(())
    }

    /// Sets the distance from one node to another. Only under the registry lock.
    pub(crate) fn set_distance(&self, from: NodeId, to: NodeId, distance: u8) -> Result<(), SetupError> {
        let node = self.get(from).ok_or(SetupError::NoSuchNode(from))?;
        self.get(to).ok_or(SetupError::NoSuchNode(to))?;
        if distance < LOCAL_DISTANCE || (from == to) != (distance == LOCAL_DISTANCE) {
            return Err(SetupError::BadDistance(from, to));
        }
        node.distances[to.index()].store(u32::from(distance), Ordering::Relaxed);
        sort_fallback(node);
        Ok(())
    }

    /// Sets a node's share under weighted interleave.
    pub(crate) fn set_weight(&self, node: NodeId, weight: u32) -> Result<(), SetupError> {
        self.get(node).ok_or(SetupError::NoSuchNode(node))?.weight.store(weight.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// The nodes that exist.
    pub(crate) fn mask(&self) -> NodeMask {
        NodeMask::ALL.first(self.all().len())
    }

    /// The nearest node to `from` that has memory and is in `allowed`.
    pub(crate) fn nearest(&self, from: NodeId, allowed: NodeMask) -> Option<NodeId> {
        let node = self.get(from)?;
        let mut near = node.fallback().filter_map(|number| self.all().get(number));
        near.find(|node| allowed.contains(node.id) && node.has_memory()).map(|node| node.id)
    }

    /// Gives every zone the marks that Linux would, and its protection from requests that could go higher.
    pub(crate) fn set_linux_watermarks(&self) {
        let zones = || self.all().iter().flat_map(|node| &node.zones);
        let all_bytes = zones().map(|zone| zone.managed().get()).sum::<usize>() * C::FRAME_BYTES;
        for node in self.all() {
            for zone in &node.zones {
                zone.set_watermarks(Watermarks::linux(zone.managed().get(), all_bytes, C::FRAME_BYTES));
                self.protect(node, zone);
            }
        }
    }

    /// Sets what each lower zone keeps from requests that could have used the higher zones of its node: 1/256 of
    /// theirs.
    fn protect(&self, node: &Node<'m, P, C>, zone: &Zone<'m, P, C>) {
        const SHARE: usize = 256;
        let mut above = 0;
        for &kind in &ZoneKind::ALL[zone.kind.index() + 1..] {
            above += node.zone(kind).managed().get();
            // Far and movable memory is no substitute, so only ordinary kinds are protected.
            let frames = if zone.kind < ZoneKind::Normal { above / SHARE } else { 0 };
            zone.set_protection(kind, frames);
        }
    }

    /// Takes frames along `route`, from zones that stay above `mark`.
    pub(crate) fn take(
        &self,
        access: Access<'_, P>,
        want: &Want,
        flags: AllocFlags,
        mark: Mark,
        route: &Route,
    ) -> Result<(Pfn, NodeId), Miss> {
        let mut miss = Miss::Empty;
        let Some(start) = self.get(route.first) else { return Err(miss) };
        let kinds = kinds(flags);
        for number in start.fallback() {
            let Some(node) = self.all().get(number).filter(|node| route.allowed.contains(node.id)) else { continue };
            for &kind in kinds {
                let zone = node.zone(kind);
                if !zone.is_populated() {
                    continue;
                }
                let affords = || zone.affords(want.count, mark, kinds[0]);
                let taken = match affords() || zone.catch_up(access) == Ok(true) && affords() {
                    true => zone.take(access, want),
                    false => Ok(None),
                };
                match taken {
                    Ok(Some(pfn)) => return Ok((pfn, node.id)),
                    Ok(None) => {}
                    Err(Busy) => miss = Miss::Busy,
                }
            }
        }
        Err(miss)
    }

    /// Counts where an allocation that was meant for `route.first` came from.
    pub(crate) fn count(&self, route: &Route, from: NodeId, cpu_node: NodeId, frames: u64) {
        let (Some(meant), Some(node)) = (self.get(route.first), self.get(from)) else { return };
        if from == route.first {
            node.counters.add(NumaStat::Hit, frames);
            if route.interleaved {
                node.counters.add(NumaStat::InterleaveHit, frames);
            }
        } else {
            node.counters.add(NumaStat::Miss, frames);
            meant.counters.add(NumaStat::Foreign, frames);
        }
        node.counters.add(if from == cpu_node { NumaStat::Local } else { NumaStat::Other }, frames);
    }
}

fn ledger_of<'m, P: Platform, C: Config>(node: &'m Node<'m, P, C>, kind: ZoneKind) -> &'m Ledger {
    &node.zone(kind).ledger
}

/// The kinds of zone a request may use, best first.
pub(crate) fn kinds(flags: AllocFlags) -> &'static [ZoneKind] {
    use ZoneKind::{Dma, Dma32, Far, Movable, Normal};
    match () {
        () if flags.contains(AllocFlags::DMA) => &[Dma],
        () if flags.contains(AllocFlags::DMA32) => &[Dma32, Dma],
        () if flags.contains(AllocFlags::MOVABLE) => &[Movable, Normal, Dma32, Dma, Far],
        () if flags.contains(AllocFlags::FAR) => &[Far, Normal, Dma32, Dma],
        () => &[Normal, Dma32, Dma],
    }
}

/// Which end of a zone a request takes from.
pub(crate) fn end(flags: AllocFlags) -> End {
    if flags.contains(AllocFlags::MOVABLE) { End::Top } else { End::Bottom }
}

/// Orders all nodes by distance from `node`, itself first, ties by number.
fn sort_fallback<P: Platform, C: Config>(node: &Node<'_, P, C>) {
    let key = |number: usize| (node.distances[number].load(Ordering::Relaxed), number);
    let mut last = None;
    for place in node.fallback {
        let next = (0..node.distances.len()).map(key).filter(|&key| Some(key) > last).min();
        let Some(next) = next else { return };
        place.store(next.1 as u32, Ordering::Relaxed);
        last = Some(next);
    }
}
