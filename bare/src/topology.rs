//! CPUs, nodes, which memory belongs to which node, how far nodes are apart. Pure: tables in, data out.
//!
//! Whatever the tables say, there is a topology in the end: at worst one CPU and one node with all memory. What was
//! missing or wrong is told as [`TopologyProblem`]s.

use core::fmt;

use crate::acpi::hmat::{self, Quantity};
use crate::acpi::slit::Distances;
use crate::acpi::srat::Affinities;
use crate::acpi::{Signature, TableError, Tables, hmat::Figure, madt, slit, srat};
use crate::fixed_vec::FixedVec;
use crate::memory_map::{FRAME_BYTES, PhysRange, subtract};

/// CPUs this kernel can start.
pub const MAX_CPUS: usize = 64;
/// Nodes this kernel can tell apart.
pub const MAX_NODES: usize = 16;
/// Pieces the memory of all nodes may fall into.
pub const MAX_NODE_RANGES: usize = 128;
/// Problems that are kept.
pub const MAX_PROBLEMS: usize = 16;

/// The distance of a node from itself.
pub const LOCAL_DISTANCE: u8 = 10;
/// The distance of two nodes when nobody says.
pub const REMOTE_DISTANCE: u8 = 20;

/// A CPU, before it has a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cpu {
    /// Number of its local APIC.
    pub apic: u32,
    /// Index of its node.
    pub node: usize,
}

/// Usable memory of one node, in whole frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NodeRange {
    /// Which frames.
    pub range: PhysRange,
    /// Index of their node.
    pub node: usize,
}

/// Something that was missing or wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TopologyProblem {
    /// A table could not be used.
    Table(Signature, TableError),
    /// The SRAT names more than [`MAX_NODES`] domains; the memory of this one counts for node 0.
    TooManyNodes(u32),
    /// Two nodes claim the same memory; the first one in the table has it.
    Disputed(PhysRange),
    /// Usable memory that no node claims; it counts for node 0.
    Unclaimed(PhysRange),
    /// This CPU's node is not told; it counts for node 0.
    CpuWithoutNode(u32),
    /// Memory beyond [`MAX_NODE_RANGES`] pieces is left out.
    TooManyRanges(PhysRange),
    /// The SLIT says nothing sensible about the distance of these two domains.
    Distance(u32, u32),
}

impl Default for TopologyProblem {
    fn default() -> Self {
        Self::Table(*b"    ", TableError::Missing)
    }
}

impl fmt::Display for TopologyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(signature, error) => {
                write!(f, "ACPI table {}: {error}", signature.escape_ascii())
            }
            Self::TooManyNodes(domain) => write!(f, "no room for proximity domain {domain}, taken for node 0"),
            Self::Disputed(range) => write!(f, "{range} is claimed by two nodes, the first has it"),
            Self::Unclaimed(range) => write!(f, "{range} is claimed by no node, taken for node 0"),
            Self::CpuWithoutNode(apic) => write!(f, "CPU with APIC {apic} has no node, taken for node 0"),
            Self::TooManyRanges(range) => write!(f, "{range} is left out: too many pieces"),
            Self::Distance(from, to) => write!(f, "no sensible distance from domain {from} to {to}"),
        }
    }
}

/// The machine, as far as its tables tell. Nodes are numbered by ascending proximity domain.
#[derive(Clone, Debug)]
pub struct Topology {
    cpus: FixedVec<Cpu, MAX_CPUS>,
    domains: FixedVec<u32, MAX_NODES>,
    memory: FixedVec<NodeRange, MAX_NODE_RANGES>,
    distance: [[u8; MAX_NODES]; MAX_NODES],
    latency: [[u64; MAX_NODES]; MAX_NODES],
    bandwidth: [[u64; MAX_NODES]; MAX_NODES],
    problems: FixedVec<TopologyProblem, MAX_PROBLEMS>,
    problem_count: usize,
}

type Srat = Affinities<{ 2 * MAX_CPUS }, MAX_NODE_RANGES>;

impl Topology {
    /// Reads the machine from its tables: `usable` memory ascending and in whole frames, `boot_cpu` the APIC number of
    /// the CPU that asks, which is there whatever the tables say.
    pub fn discover(
        tables: Result<&Tables<'_>, TableError>,
        usable: impl Iterator<Item = PhysRange> + Clone,
        boot_cpu: u32,
    ) -> Self {
        let mut topology = Self::empty();
        let find = |signature| tables?.find(signature);
        topology.read_cpus(find(madt::SIGNATURE), boot_cpu);
        let srat = match find(srat::SIGNATURE).and_then(Srat::parse) {
            Ok(srat) => srat,
            Err(error) => {
                topology.note(TopologyProblem::Table(srat::SIGNATURE, error));
                Srat::default()
            }
        };
        topology.number_nodes(&srat);
        topology.place_cpus(&srat);
        topology.place_memory(&srat, usable);
        // Without nodes there is nothing to be told about them.
        if !srat.memory.is_empty() {
            topology.read_distances(find(slit::SIGNATURE));
            topology.read_performance(find(hmat::SIGNATURE));
        }
        topology
    }

    /// CPUs in the order they are to be numbered: the boot CPU first.
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// How many nodes there are; at least one.
    pub fn node_count(&self) -> usize {
        self.domains.len()
    }

    /// The proximity domain of a node.
    pub fn domain(&self, node: usize) -> u32 {
        self.domains[node]
    }

    /// All usable memory by node, ascending by address.
    pub fn memory(&self) -> &[NodeRange] {
        &self.memory
    }

    /// How far the memory of node `to` is from node `from`, [`LOCAL_DISTANCE`] being near.
    pub fn distance(&self, from: usize, to: usize) -> u8 {
        self.distance[from][to]
    }

    /// Access latency from `from` to the memory of `to`, if told: picoseconds.
    pub fn latency(&self, from: usize, to: usize) -> Option<u64> {
        Some(self.latency[from][to]).filter(|&value| value != 0)
    }

    /// Access bandwidth from `from` to the memory of `to`, if told: MB/s.
    pub fn bandwidth(&self, from: usize, to: usize) -> Option<u64> {
        Some(self.bandwidth[from][to]).filter(|&value| value != 0)
    }

    /// The first [`MAX_PROBLEMS`] problems.
    pub fn problems(&self) -> &[TopologyProblem] {
        &self.problems
    }

    /// How many problems there were in all.
    pub fn problem_count(&self) -> usize {
        self.problem_count
    }

    fn empty() -> Self {
        let mut distance = [[REMOTE_DISTANCE; MAX_NODES]; MAX_NODES];
        for (node, row) in distance.iter_mut().enumerate() {
            row[node] = LOCAL_DISTANCE;
        }
        Self {
            cpus: FixedVec::new(),
            domains: FixedVec::new(),
            memory: FixedVec::new(),
            distance,
            latency: [[0; MAX_NODES]; MAX_NODES],
            bandwidth: [[0; MAX_NODES]; MAX_NODES],
            problems: FixedVec::new(),
            problem_count: 0,
        }
    }

    fn read_cpus(&mut self, table: Result<&[u8], TableError>, boot_cpu: u32) {
        let mut listed = FixedVec::<u32, MAX_CPUS>::new();
        if let Err(error) = table.and_then(|table| madt::cpus(table, &mut listed)) {
            self.note(TopologyProblem::Table(madt::SIGNATURE, error));
            // A damaged list is not a list of CPUs to wake; one that is only too long is good as far as it goes.
            if error != TableError::TooMany {
                listed.clear();
            }
        }
        let others = listed.iter().copied().filter(|&apic| apic != boot_cpu);
        for apic in core::iter::once(boot_cpu).chain(others).take(MAX_CPUS) {
            // Cannot be full: no more than MAX_CPUS are taken.
            let _ = self.cpus.push(Cpu { apic, node: 0 });
        }
    }

    /// Gives each domain that has memory or CPUs its number.
    fn number_nodes(&mut self, srat: &Srat) {
        let memory = srat.memory.iter().map(|entry| entry.domain);
        let cpus = srat.cpus.iter().filter(|entry| self.cpus.iter().any(|cpu| cpu.apic == entry.apic));
        let named = memory.chain(cpus.map(|entry| entry.domain));
        let mut domains = FixedVec::<u32, MAX_NODES>::new();
        for domain in named {
            if !domains.contains(&domain) && domains.push(domain).is_err() {
                // Counted once for each entry that names it: good enough for a report.
                self.problem_count += 1;
                let _ = self.problems.push(TopologyProblem::TooManyNodes(domain));
            }
        }
        if domains.is_empty() {
            // Cannot be full.
            let _ = domains.push(0);
        }
        domains.sort_unstable();
        self.domains = domains;
    }

    fn node_of(&self, domain: u32) -> usize {
        self.domains.iter().position(|&known| known == domain).unwrap_or(0)
    }

    fn place_cpus(&mut self, srat: &Srat) {
        if srat.memory.is_empty() && srat.cpus.is_empty() {
            return;
        }
        for index in 0..self.cpus.len() {
            let apic = self.cpus[index].apic;
            match srat.cpus.iter().find(|entry| entry.apic == apic) {
                Some(entry) => self.cpus[index].node = self.node_of(entry.domain),
                None => self.note(TopologyProblem::CpuWithoutNode(apic)),
            }
        }
    }

    /// Cuts usable memory along the nodes' borders. A frame across a border belongs to the node above it.
    fn place_memory(&mut self, srat: &Srat, usable: impl Iterator<Item = PhysRange> + Clone) {
        let mut claims = FixedVec::<NodeRange, MAX_NODE_RANGES>::new();
        for entry in &srat.memory {
            let down = |at: u64| if at == u64::MAX { at } else { at & !(FRAME_BYTES - 1) };
            let Some(range) = PhysRange::new(down(entry.range.start()), down(entry.range.end())) else { continue };
            let node = self.node_of(entry.domain);
            let dispute = claims.iter().filter(|other| other.node != node).find_map(|o| o.range.intersection(range));
            if let Some(disputed) = dispute {
                self.note(TopologyProblem::Disputed(disputed));
            }
            // Cannot be full: as long as the list it is made from.
            let _ = claims.push(NodeRange { range, node });
        }
        for (index, claim) in claims.iter().enumerate() {
            let earlier = claims[..index].iter().map(|claim| claim.range);
            for mine in subtract(core::iter::once(claim.range), earlier) {
                for range in usable.clone().filter_map(|range| range.intersection(mine)) {
                    self.own(range, claim.node);
                }
            }
        }
        for range in subtract(usable, claims.iter().map(|claim| claim.range)) {
            if !claims.is_empty() {
                self.note(TopologyProblem::Unclaimed(range));
            }
            self.own(range, 0);
        }
        self.memory.sort_unstable_by_key(|piece| piece.range);
        self.join_neighbours();
    }

    fn own(&mut self, range: PhysRange, node: usize) {
        if self.memory.push(NodeRange { range, node }).is_err() {
            self.note(TopologyProblem::TooManyRanges(range));
        }
    }

    fn join_neighbours(&mut self) {
        let mut joined = FixedVec::<NodeRange, MAX_NODE_RANGES>::new();
        for piece in &self.memory {
            match joined.last_mut() {
                Some(last) if last.node == piece.node && last.range.end() == piece.range.start() => {
                    last.range = PhysRange::new(last.range.start(), piece.range.end()).unwrap_or(last.range);
                }
                _ => {
                    // Cannot be full: no longer than the list it is made from.
                    let _ = joined.push(*piece);
                }
            }
        }
        self.memory = joined;
    }

    fn read_distances(&mut self, table: Result<&[u8], TableError>) {
        let distances = match table.and_then(Distances::parse) {
            Ok(distances) => distances,
            // Firmware without a SLIT has no more to say than near and far.
            Err(TableError::Missing) => return,
            Err(error) => return self.note(TopologyProblem::Table(slit::SIGNATURE, error)),
        };
        for from in 0..self.domains.len() {
            for to in 0..self.domains.len() {
                let (here, there) = (self.domains[from], self.domains[to]);
                match distances.get(here, there) {
                    Some(distance) if from != to || distance == LOCAL_DISTANCE => self.distance[from][to] = distance,
                    _ => self.note(TopologyProblem::Distance(here, there)),
                }
            }
        }
    }

    fn read_performance(&mut self, table: Result<&[u8], TableError>) {
        let table = match table {
            Ok(table) => table,
            Err(TableError::Missing) => return,
            Err(error) => return self.note(TopologyProblem::Table(hmat::SIGNATURE, error)),
        };
        let read = hmat::figures(table, |Figure { quantity, initiator, target, value }| {
            let index = |domain| self.domains.iter().position(|&known| known == domain);
            let (Some(from), Some(to)) = (index(initiator), index(target)) else { return };
            match quantity {
                Quantity::AccessLatency | Quantity::ReadLatency => self.latency[from][to] = value,
                Quantity::AccessBandwidth | Quantity::ReadBandwidth => self.bandwidth[from][to] = value,
                Quantity::WriteLatency | Quantity::WriteBandwidth => {}
            }
        });
        if let Err(error) = read {
            self.note(TopologyProblem::Table(hmat::SIGNATURE, error));
            // Half a table would make the other nodes look unknown.
            self.latency = [[0; MAX_NODES]; MAX_NODES];
            self.bandwidth = [[0; MAX_NODES]; MAX_NODES];
        }
    }

    fn note(&mut self, problem: TopologyProblem) {
        self.problem_count += 1;
        // A full list still counts.
        let _ = self.problems.push(problem);
    }
}

#[cfg(test)]
#[path = "topology/tests.rs"]
mod tests;
