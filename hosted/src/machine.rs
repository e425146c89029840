//! An instance over a mapping: the memory that a topology describes, as one range of the process's address space.

use std::fmt;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use pagemill::{Checked, Config, CpuId, FrameCount, FrameSpan, Frames, NodeId, Pfn, SetupError, ZoneKind};

use crate::map::{MapError, Mapping};
use crate::numa::Topology;
use crate::tls::Hosted;

/// Why there is no machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MachineError {
    /// The system gives no memory.
    Map(MapError),
    /// The instance refuses what it was told.
    Setup(SetupError),
    /// The zones of this node do not add up to whole frames of its memory.
    Zones(usize),
}

impl fmt::Display for MachineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => error.fmt(f),
            Self::Setup(error) => error.fmt(f),
            Self::Zones(node) => write!(f, "the zones of node {node} are not its memory in whole frames"),
        }
    }
}

impl std::error::Error for MachineError {}

impl From<MapError> for MachineError {
    fn from(error: MapError) -> Self {
        Self::Map(error)
    }
}

impl From<SetupError> for MachineError {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

/// A machine to be: the topology, and what else is to be decided.
#[derive(Clone, Debug)]
pub struct MachineBuilder {
    topology: Topology,
    zones: Vec<(usize, ZoneKind, usize)>,
    watermarks: bool,
}

/// Where the memory begins: at a whole arena, so that the same topology gives the same zones every time.
const ALIGN: usize = 1 << 30;

impl MachineBuilder {
    /// A machine of this topology: one zone on each node, with default watermarks.
    pub fn new(topology: Topology) -> Self {
        Self { topology, zones: Vec::new(), watermarks: true }
    }

    /// The next bytes of `node`'s memory shall be a zone of `kind`. The zones of a node that has any must add up to its
    /// memory.
    pub fn zone(mut self, node: usize, kind: ZoneKind, bytes: usize) -> Self {
        self.zones.push((node, kind, bytes));
        self
    }

    /// Leaves all watermarks at zero: the last frame can be had by anyone.
    pub fn without_watermarks(self) -> Self {
        Self { watermarks: false, ..self }
    }

    /// Maps the memory and its metadata, which cost nothing until they are touched, and describes the machine to an
    /// instance. All of it stays for as long as the process lives.
    ///
    /// # Errors
    /// [`MachineError`] if the limits of the process are too small, or the description does not fit.
    pub fn build<C: Config + Sync>(self) -> Result<Machine<C>, MachineError> {
        let began = Instant::now();
        let ranges = self.ranges::<C>()?;
        let memory = Mapping::aligned(self.topology.bytes(), ALIGN)?;
        let first = memory.start().addr().get() / C::FRAME_BYTES;
        let frames: &'static Frames<'static, Hosted, C> = Box::leak(Box::new(Frames::new()));
        let count = self.topology.bytes() / C::FRAME_BYTES;
        let hull = span(first, count)?;
        let (cpus, nodes) = (self.topology.cpu_count(), self.topology.nodes.len());
        let base = Frames::<Hosted, C>::base_metadata_size(hull, cpus, nodes);
        frames.init(hull, cpus, nodes, Mapping::new(base)?.into_metadata())?;
        let mut next = first;
        for (node, kind, count) in ranges {
            let range = span(next, count)?;
            let metadata = Mapping::new(Frames::<Hosted, C>::memory_metadata_size(range))?;
            frames.add_memory(id(node)?, kind, range, &[], metadata.into_metadata())?;
            next += count;
        }
        self.describe(frames)?;
        Hosted::announce(frames);
        Ok(Machine { frames, memory: Box::leak(Box::new(memory)), topology: self.topology, took: began.elapsed() })
    }

    /// Nodes, kinds and frames of all ranges, by address.
    fn ranges<C: Config>(&self) -> Result<Vec<(usize, ZoneKind, usize)>, MachineError> {
        let mut ranges = Vec::new();
        for (number, node) in self.topology.nodes.iter().enumerate() {
            let mut zones: Vec<_> = self.zones.iter().filter(|zone| zone.0 == number).copied().collect();
            if zones.is_empty() {
                zones.push((number, node.kind, node.bytes));
            }
            let sum = zones.iter().try_fold(0usize, |sum, zone| sum.checked_add(zone.2));
            let whole = zones.iter().all(|zone| zone.2 != 0 && zone.2.is_multiple_of(C::FRAME_BYTES));
            if sum != Some(node.bytes) || !whole {
                return Err(MachineError::Zones(number));
            }
            ranges.extend(zones.iter().map(|&(node, kind, bytes)| (node, kind, bytes / C::FRAME_BYTES)));
        }
        match self.zones.iter().find(|zone| zone.0 >= self.topology.nodes.len()) {
            Some(zone) => Err(MachineError::Zones(zone.0)),
            None => Ok(ranges),
        }
    }

    fn describe<C: Config>(&self, frames: &Frames<'static, Hosted, C>) -> Result<(), MachineError> {
        for (from, node) in self.topology.nodes.iter().enumerate() {
            for &cpu in &node.cpus {
                frames.set_cpu_node(CpuId::new(cpu), id(from)?)?;
            }
            for (to, &distance) in node.distances.iter().enumerate() {
                frames.set_distance(id(from)?, id(to)?, distance)?;
            }
        }
        if self.watermarks {
            frames.set_default_watermarks();
        }
        Ok(())
    }
}

fn id(node: usize) -> Result<NodeId, SetupError> {
    NodeId::new(node as u32).ok_or(SetupError::TooManyNodes(NodeId::default()))
}

fn span(start: usize, count: usize) -> Result<FrameSpan, MachineError> {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).map_err(|_| MachineError::Zones(0))
}

/// An instance whose frames are pages of a mapping: frame number and address differ by the size of a frame alone.
pub struct Machine<C: Config = Checked> {
    frames: &'static Frames<'static, Hosted, C>,
    memory: &'static Mapping,
    topology: Topology,
    took: Duration,
}

impl<C: Config> Machine<C> {
    /// The instance.
    pub fn frames(&self) -> &'static Frames<'static, Hosted, C> {
        self.frames
    }

    /// What it was made of.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// How long it took to make.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The memory of a frame, for whoever holds the frame; `None` if it is none of this machine's.
    pub fn memory_of(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        let address = pfn.number().checked_mul(C::FRAME_BYTES)?;
        self.memory.at(address.checked_sub(self.memory.start().addr().get())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pagemill::{AllocFlags, Order};

    fn topology() -> Topology {
        Topology::parse("cpus 0 8M; 4M; distances 10 17 / 17 10").unwrap()
    }

    #[test]
    fn zones_lie_on_their_nodes_one_after_the_other() {
        let zones =
            MachineBuilder::new(topology()).zone(0, ZoneKind::Dma32, 2 << 20).zone(0, ZoneKind::Normal, 6 << 20);
        let machine = zones.build::<Checked>().unwrap();
        let infos: Vec<_> =
            machine.frames().zone_infos().map(|zone| (zone.node.index(), zone.kind, zone.free)).collect();
        assert_eq!(infos, [(0, ZoneKind::Dma32, 512), (0, ZoneKind::Normal, 1536), (1, ZoneKind::Normal, 1024)]);
        assert_eq!(machine.frames().distance(NodeId::ZERO, NodeId::new(1).unwrap()), Some(17));
        assert!(machine.frames().zone_infos().all(|zone| zone.watermarks.min > 0));
    }

    #[test]
    fn a_frame_has_memory() {
        let machine = MachineBuilder::new(topology()).without_watermarks().build::<Checked>().unwrap();
        let pfn = machine.frames().alloc_raw(Order::ZERO, AllocFlags::empty()).unwrap();
        let address = machine.memory_of(pfn).unwrap();
        assert_eq!(address.addr().get(), pfn.number() * 4096);
        assert_eq!(machine.memory_of(Pfn::new(1)), None);
        machine.frames().free_raw(pfn, FrameCount::new(1)).unwrap();
        machine.frames().drain_cpu();
    }

    #[test]
    fn a_description_that_does_not_fit_says_so() {
        let error = |builder: MachineBuilder| builder.build::<Checked>().err().unwrap();
        let short = MachineBuilder::new(topology()).zone(0, ZoneKind::Normal, 1 << 20);
        assert_eq!(error(short), MachineError::Zones(0));
        let nowhere = MachineBuilder::new(topology()).zone(7, ZoneKind::Normal, 1 << 20);
        assert_eq!(error(nowhere), MachineError::Zones(7));
        let mut huge = topology();
        huge.nodes[0].bytes = 1 << 60;
        assert!(matches!(error(MachineBuilder::new(huge)), MachineError::Map(_)));
    }
}
