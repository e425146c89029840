//! An instance over a mapping: the memory that a topology describes, as one range of the process's address space.

use std::fmt;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use pagemill::{Checked, Config, CpuId, FrameCount, FrameSpan, Frames, Heap, NodeId, Pfn, SetupError, ZoneKind};

use crate::fork;
use crate::map::{MapError, Mapping};
use crate::members::Member;
use crate::numa::{Origin, Topology};
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
        let frames: &'static Frames<'static, Hosted, C> = Box::leak(Box::new(Frames::new()));
        let count = self.topology.bytes() / C::FRAME_BYTES;
        let hull = span(0, count)?;
        let (cpus, nodes) = (self.topology.cpu_count(), self.topology.nodes.len());
        let base = Frames::<Hosted, C>::base_metadata_size(hull, cpus, nodes);
        frames.init(hull, cpus, nodes, Mapping::new(base)?.into_metadata())?;
        let mut next = 0;
        let mut bound = 0;
        for (node, kind, count) in ranges {
            let range = span(next, count)?;
            if self.topology.origin == Origin::System && nodes > 1 {
                let bytes = next * C::FRAME_BYTES..(next + count) * C::FRAME_BYTES;
                bound += usize::from(memory.prefer_node(bytes, self.topology.nodes[node].number));
            }
            let metadata = Mapping::new(Frames::<Hosted, C>::memory_metadata_size(range))?;
            frames.add_memory(id(node)?, kind, range, &[], metadata.into_metadata())?;
            next += count;
        }
        self.describe(frames)?;
        Hosted::announce(frames);
        let (memory, took) = (Box::leak(Box::new(memory)), began.elapsed());
        Ok(Machine { frames, memory, hull, bound, topology: self.topology, took })
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

/// An instance whose frames are the pages of a mapping, numbered from its beginning.
pub struct Machine<C: Config = Checked> {
    frames: &'static Frames<'static, Hosted, C>,
    memory: &'static Mapping,
    hull: FrameSpan,
    bound: usize,
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

    /// Ranges that the system has been told to place on their nodes: all, if the topology is the system's and has
    /// several nodes, and if the system takes it (`mbind`).
    pub fn bound_ranges(&self) -> usize {
        self.bound
    }

    /// A heap over this machine's frames, beside that of the process: for memory on certain nodes, by [`Heap::placed`].
    /// It stays for as long as the process lives; more than one share the frames. The child of a `fork` has a copy.
    ///
    /// # Errors
    /// If there is no memory for its metadata.
    pub fn heap(&self) -> Result<&'static Heap<'static, Hosted, C>, MachineError>
    where
        C: Sync,
    {
        let (cpus, nodes) = (self.topology.cpu_count(), self.topology.nodes.len());
        let heap: &'static Heap<'static, Hosted, C> = Box::leak(Box::new(Heap::new(self.frames)));
        let metadata = Mapping::new(Heap::<Hosted, C>::metadata_size(self.hull, cpus, nodes))?;
        self.memory.open_heap(heap, self.hull, cpus, nodes, metadata.into_metadata())?;
        for (number, node) in self.topology.nodes.iter().enumerate() {
            for &cpu in &node.cpus {
                heap.set_cpu_node(CpuId::new(cpu), id(number)?)?;
            }
        }
        Box::leak(Box::new(Member::new(heap))).join();
        fork::prepare();
        Ok(heap)
    }

    /// How long it took to make.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// The memory of a frame, for whoever holds the frame; `None` if it is none of this machine's.
    pub fn memory_of(&self, pfn: Pfn) -> Option<NonNull<u8>> {
        self.memory.at(pfn.number().checked_mul(C::FRAME_BYTES)?)
    }

    /// The frame of an address; `None` if it is none of this machine's.
    pub fn frame_of(&self, address: NonNull<u8>) -> Option<Pfn> {
        let offset = address.addr().get().checked_sub(self.memory.start().addr().get())?;
        (offset < self.memory.len()).then(|| Pfn::new(offset / C::FRAME_BYTES))
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "an object is freed")]
mod tests {
    use super::*;
    use pagemill::{AllocFlags, NodeMask, Order, Policy};
    use std::alloc::Layout;

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
        assert_eq!(machine.frame_of(address), Some(pfn));
        let beyond = Pfn::new(machine.topology().bytes() / 4096);
        assert_eq!((machine.memory_of(beyond), machine.frame_of(NonNull::dangling())), (None, None));
        machine.frames().free_raw(pfn, FrameCount::new(1)).unwrap();
        machine.frames().drain_cpu();
    }

    #[test]
    fn a_heap_over_a_machine_puts_objects_where_a_policy_says() {
        let machine = MachineBuilder::new(topology()).build::<Checked>().unwrap();
        assert_eq!(machine.bound_ranges(), 0, "the nodes are a text's");
        let heap = machine.heap().unwrap();
        let second = heap.placed(Policy::Bind(NodeMask::of(NodeId::new(1).unwrap())));
        for size in [24, 5000, 300_000] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            let object = second.alloc_zeroed(layout).unwrap();
            let frame = machine.frame_of(object).unwrap();
            assert_eq!(machine.frames().node_of(frame), NodeId::new(1));
            // SAFETY: lent so, and not used any more.
            unsafe { heap.free(object, layout) }.unwrap();
        }
        heap.drain();
        assert_eq!(heap.validate().unwrap().lent(), 0);
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
