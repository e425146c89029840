//! What an instance shows: as data, and as text in the forms that people know from `/proc`.

use core::fmt;

use crate::arena::Access;
use crate::config::Config;
use crate::frame::FrameSpan;
use crate::frames::Frames;
use crate::id::{CpuId, NodeId, NodeMask};
use crate::kind::ZoneKind;
use crate::node::Node;
use crate::order::Order;
use crate::platform::Platform;
use crate::stats::{NumaCounts, NumaStat};
use crate::zone::{Watermarks, Zone};

/// One zone, as `buddyinfo` and `zoneinfo` show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ZoneInfo {
    /// The node it is on.
    pub node: NodeId,
    /// What it is good for.
    pub kind: ZoneKind,
    /// From its first frame to its last, holes included.
    pub spanned: FrameSpan,
    /// Frames that exist.
    pub present: usize,
    /// Frames that exist and are neither reserved nor offline.
    pub managed: usize,
    /// Frames that are free in its trees; what lies in CPUs' pools is not among them.
    pub free: usize,
    /// Frames that are reserved.
    pub reserved: usize,
    /// Frames that are offline.
    pub offline: usize,
    /// The marks in force.
    pub watermarks: Watermarks,
    /// Maximal free blocks of each order.
    pub blocks: [usize; Order::COUNT],
}

impl ZoneInfo {
    /// How many free blocks there are, whatever their order.
    pub fn free_blocks(&self) -> usize {
        self.blocks.iter().sum()
    }

    /// Why a block of `order` is not to be had: towards 0 because memory is short, towards 1000 because it is in
    /// pieces. `None` if it is to be had. As Linux computes `fragmentation_index`, in thousandths.
    pub fn fragmentation_index(&self, order: Order) -> Option<u32> {
        if self.blocks[order.index()..].iter().any(|&count| count != 0) {
            return None;
        }
        let blocks = self.free_blocks();
        if blocks == 0 {
            return Some(0);
        }
        let pieces = (1000 + self.free as u128 * 1000 / order.frames() as u128) / blocks as u128;
        Some(1000u32.saturating_sub(pieces as u32))
    }

    /// Which part of the free memory is of no use for a block of `order`, in thousandths: 0 is none, 1000 is all.
    pub fn unusable_free_index(&self, order: Order) -> u32 {
        if self.free == 0 {
            return 1000;
        }
        let usable: usize = (order.index()..Order::COUNT).map(|log2| self.blocks[log2] << log2).sum();
        ((self.free - usable.min(self.free)) as u128 * 1000 / self.free as u128) as u32
    }
}

/// Text about an instance, made when it is printed.
pub struct FrameReport<'a, 'm, P: Platform, C: Config> {
    frames: &'a Frames<'m, P, C>,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Buddyinfo,
    Zoneinfo,
    Numastat,
    Nodes,
    Indices,
}

impl<'m, P: Platform, C: Config> Frames<'m, P, C> {
    /// Every zone that has memory. Takes each arena's lock for a moment.
    pub fn zone_infos(&self) -> impl Iterator<Item = ZoneInfo> {
        self.zones().filter_map(|zone| self.zone_info(zone))
    }

    fn zone_info(&self, zone: &Zone<'m, P, C>) -> Option<ZoneInfo> {
        let spanned = zone.spanned()?;
        let pinned = P::pin();
        let access = pinned.as_ref().map_or(Access::Try, Access::Wait);
        let mut blocks = [0; Order::COUNT];
        for arena in zone.arenas() {
            // An interrupt that finds an arena busy shows the zone without it.
            let _ = arena.with(access, |_, state| state.buddy.count_chunks(&mut blocks));
        }
        Some(ZoneInfo {
            node: zone.node,
            kind: zone.kind,
            spanned,
            present: zone.ledger.present_frames(),
            managed: zone.managed().get(),
            free: blocks.iter().enumerate().map(|(log2, &count)| count << log2).sum(),
            reserved: zone.ledger.reserved_frames(),
            offline: zone.ledger.offline_frames(),
            watermarks: zone.watermarks(),
            blocks,
        })
    }

    /// Where the allocations of a node went. A call that a pool served counts as one, whatever its size.
    pub fn numa_counts(&self, node: NodeId) -> NumaCounts {
        let Some(found) = self.nodes.get(node) else { return NumaCounts::default() };
        let get = |stat| found.counters.get(stat);
        let mut counts = NumaCounts {
            numa_hit: get(NumaStat::Hit),
            numa_miss: get(NumaStat::Miss),
            numa_foreign: get(NumaStat::Foreign),
            interleave_hit: get(NumaStat::InterleaveHit),
            local_node: get(NumaStat::Local),
            other_node: get(NumaStat::Other),
        };
        for pool in self.pools.all() {
            // A pool is filled from the nearest node that has memory.
            if self.nodes.nearest(pool.node(), NodeMask::ALL) == Some(node) {
                counts.numa_hit += pool.hits();
                let served = if pool.node() == node { &mut counts.local_node } else { &mut counts.other_node };
                *served += pool.hits();
            }
        }
        counts
    }

    /// How far one node is from another.
    pub fn distance(&self, from: NodeId, to: NodeId) -> Option<u8> {
        self.nodes.get(to)?;
        Some(self.nodes.get(from)?.distance(to))
    }

    /// How many nodes the instance was made for.
    pub fn node_count(&self) -> usize {
        self.nodes.all().len()
    }

    /// How many CPUs the instance was made for.
    pub fn cpu_count(&self) -> usize {
        self.pools.all().len()
    }

    /// The node a CPU is on.
    pub fn cpu_node(&self, cpu: CpuId) -> Option<NodeId> {
        Some(self.pools.all().get(cpu.index())?.node())
    }

    /// Free blocks by zone and order, as `/proc/buddyinfo` shows them.
    pub fn buddyinfo(&self) -> FrameReport<'_, 'm, P, C> {
        FrameReport { frames: self, what: What::Buddyinfo }
    }

    /// Sizes and marks of each zone, after `/proc/zoneinfo`.
    pub fn zoneinfo(&self) -> FrameReport<'_, 'm, P, C> {
        FrameReport { frames: self, what: What::Zoneinfo }
    }

    /// Hits and misses of each node, as `numastat` shows them.
    pub fn numastat(&self) -> FrameReport<'_, 'm, P, C> {
        FrameReport { frames: self, what: What::Numastat }
    }

    /// Nodes with their CPUs and distances, after `numactl --hardware`.
    pub fn nodes(&self) -> FrameReport<'_, 'm, P, C> {
        FrameReport { frames: self, what: What::Nodes }
    }

    /// Fragmentation and unusable-free indices of each zone by order, after `/sys/kernel/debug/extfrag`.
    pub fn indices(&self) -> FrameReport<'_, 'm, P, C> {
        FrameReport { frames: self, what: What::Indices }
    }
}

impl<P: Platform, C: Config> fmt::Display for FrameReport<'_, '_, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            What::Buddyinfo => buddyinfo(self.frames, f),
            What::Zoneinfo => zoneinfo(self.frames, f),
            What::Numastat => numastat(self.frames, f),
            What::Nodes => nodes(self.frames, f),
            What::Indices => indices(self.frames, f),
        }
    }
}

fn buddyinfo<P: Platform, C: Config>(frames: &Frames<'_, P, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{:23}", "order")?;
    for order in 0..=C::ARENA_ORDER {
        write!(f, "{order:>6}")?;
    }
    writeln!(f)?;
    for zone in frames.zone_infos() {
        write!(f, "Node {}, zone {:>8}   ", zone.node, zone.kind)?;
        for count in &zone.blocks[..=C::ARENA_ORDER as usize] {
            write!(f, "{count:>6}")?;
        }
        writeln!(f)?;
    }
    Ok(())
}

fn zoneinfo<P: Platform, C: Config>(frames: &Frames<'_, P, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for zone in frames.zone_infos() {
        let Watermarks { min, low, high } = zone.watermarks;
        writeln!(f, "Node {}, zone {:>8}   {:?}", zone.node, zone.kind, zone.spanned)?;
        writeln!(f, "  frames free {:>9}   min {min}   low {low}   high {high}", zone.free)?;
        writeln!(
            f,
            "      spanned {:>9}   present {}   managed {}   reserved {}   offline {}",
            zone.spanned.count(),
            zone.present,
            zone.managed,
            zone.reserved,
            zone.offline
        )?;
    }
    Ok(())
}

fn numastat<P: Platform, C: Config>(frames: &Frames<'_, P, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let row = |f: &mut fmt::Formatter<'_>, name, get: fn(&NumaCounts) -> u64| {
        write!(f, "{name:15}")?;
        for node in frames.nodes.all() {
            write!(f, "{:>12}", get(&frames.numa_counts(node.id)))?;
        }
        writeln!(f)
    };
    write!(f, "{:15}", "")?;
    for node in frames.nodes.all() {
        write!(f, "{:>11}{}", "node", node.id)?;
    }
    writeln!(f)?;
    row(f, "numa_hit", |counts| counts.numa_hit)?;
    row(f, "numa_miss", |counts| counts.numa_miss)?;
    row(f, "numa_foreign", |counts| counts.numa_foreign)?;
    row(f, "interleave_hit", |counts| counts.interleave_hit)?;
    row(f, "local_node", |counts| counts.local_node)?;
    row(f, "other_node", |counts| counts.other_node)
}

fn nodes<P: Platform, C: Config>(frames: &Frames<'_, P, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let all = frames.nodes.all();
    for node in all {
        write!(f, "node {} cpus:", node.id)?;
        for cpu in (0..frames.cpu_count() as u32).map(CpuId::new) {
            if frames.cpu_node(cpu) == Some(node.id) {
                write!(f, " {}", cpu.index())?;
            }
        }
        let bytes = present(node) as u128 * C::FRAME_BYTES as u128;
        writeln!(f, "\nnode {} size: {} KiB", node.id, bytes >> 10)?;
    }
    write!(f, "node distances:\nnode ")?;
    for to in all {
        write!(f, "{:>4}", to.id)?;
    }
    for from in all {
        write!(f, "\n{:>4}:", from.id)?;
        for to in all {
            write!(f, "{:>4}", from.distance(to.id))?;
        }
    }
    writeln!(f)
}

fn present<P: Platform, C: Config>(node: &Node<'_, P, C>) -> usize {
    node.zones.iter().map(|zone| zone.ledger.present_frames()).sum()
}

fn indices<P: Platform, C: Config>(frames: &Frames<'_, P, C>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for zone in frames.zone_infos() {
        write!(f, "Node {}, zone {:>8}  fragmentation", zone.node, zone.kind)?;
        for order in (0..=C::HUGE_ORDER).filter_map(Order::new) {
            match zone.fragmentation_index(order) {
                Some(index) => write!(f, " {}.{:03}", index / 1000, index % 1000)?,
                None => write!(f, " -1.000")?,
            }
        }
        write!(f, "\n{:22}  unusable free", "")?;
        for order in (0..=C::HUGE_ORDER).filter_map(Order::new) {
            let index = zone.unusable_free_index(order);
            write!(f, "  {}.{:03}", index / 1000, index % 1000)?;
        }
        writeln!(f)?;
    }
    Ok(())
}
