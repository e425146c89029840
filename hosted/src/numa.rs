//! Nodes, CPUs and distances: of the machine the process runs on, or as a text describes them.

use std::fmt;
use std::fs;
use std::path::Path;

use pagemill::{NodeId, ZoneKind};

/// Where a topology comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The system told.
    System,
    /// The system does not tell: one node has everything.
    Assumed,
    /// A text told.
    Text,
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// The number the system has for it.
    pub number: u32,
    /// Its CPUs, ascending.
    pub cpus: Vec<u32>,
    /// Its memory.
    pub bytes: usize,
    /// What its memory is good for.
    pub kind: ZoneKind,
    /// How far it is to each node, in the order of the nodes.
    pub distances: Vec<u8>,
}

/// The nodes of a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    /// The nodes, by number.
    pub nodes: Vec<NodeInfo>,
    /// Where this comes from.
    pub origin: Origin,
}

/// Why a description makes no topology.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TopologyError {
    /// No node, or more than there can be.
    NodeCount(usize),
    /// A word that means nothing here.
    Word(String),
    /// A node without memory.
    NoMemory(usize),
    /// No CPU at all, a CPU on two nodes, or one that is left out: CPUs are numbered from 0 without gaps.
    Cpus,
    /// Not one distance from every node to every node, or one that is no distance: 10 to itself, more to others.
    Distances,
}

impl fmt::Display for TopologyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeCount(count) => write!(f, "{count} nodes: there must be 1 to {}", NodeId::LIMIT),
            Self::Word(word) => write!(f, "{word:?} means nothing here"),
            Self::NoMemory(node) => write!(f, "node {node} has no memory"),
            Self::Cpus => f.write_str("every CPU from 0 on must be on exactly one node"),
            Self::Distances => f.write_str("every node needs a distance to every node: 10 to itself, more to others"),
        }
    }
}

impl std::error::Error for TopologyError {}

/// The distances of a machine that does not tell.
const LOCAL: u8 = 10;
const REMOTE: u8 = 20;

impl Topology {
    /// The machine's own, from `/sys/devices/system/node`; one node with all CPUs where there is none.
    pub fn of_system() -> Self {
        Self::read(Path::new("/sys/devices/system/node")).unwrap_or_else(Self::assumed)
    }

    fn assumed() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let node = NodeInfo {
            number: 0,
            cpus: (0..cpus).collect(),
            bytes: kib_of(&meminfo, "MemTotal:").unwrap_or(1 << 20) << 10,
            kind: ZoneKind::Normal,
            distances: vec![LOCAL],
        };
        Self { nodes: vec![node], origin: Origin::Assumed }
    }

    /// What a directory of nodes tells, or `None` if it tells nothing usable.
    fn read(root: &Path) -> Option<Self> {
        let online = parse_list(fs::read_to_string(root.join("online")).ok()?.trim())?;
        let mut nodes = Vec::new();
        for &number in &online {
            let place = root.join(format!("node{number}"));
            let read = |file: &str| fs::read_to_string(place.join(file)).ok();
            let distances = read("distance")?;
            nodes.push(NodeInfo {
                number,
                cpus: parse_list(read("cpulist")?.trim())?,
                bytes: kib_of(&read("meminfo")?, "MemTotal:")? << 10,
                kind: ZoneKind::Normal,
                distances: distances.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?,
            });
        }
        let complete = nodes.iter().all(|node| node.distances.len() == nodes.len());
        let usable = !nodes.is_empty() && nodes.len() <= NodeId::LIMIT && complete;
        usable.then_some(Self { nodes, origin: Origin::System })
    }

    /// The machine that a text describes: nodes apart by `;`, each with `cpus` and a list unless it has none, a size
    /// (`K`, `M`, `G`), and `far` if its memory is; then the distances from each node to all, apart by `/`, unless all
    /// are 20.
    ///
    /// ```
    /// # use pagemill_hosted::Topology;
    /// let text = "cpus 0-1 384M; cpus 2-3 320M; 128M far; distances 10 21 17 / 21 10 28 / 17 28 10";
    /// let topology = Topology::parse(text).unwrap();
    /// assert_eq!(topology.cpu_count(), 4);
    /// assert_eq!(topology.nodes[1].distances, [21, 10, 28]);
    /// ```
    ///
    /// # Errors
    /// [`TopologyError`] for a text that describes no machine.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let mut nodes = Vec::new();
        let mut table = None;
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.strip_prefix("distances") {
                Some(rows) => table = Some(parse_table(rows)?),
                None => nodes.push(parse_node(nodes.len(), part)?),
            }
        }
        let count = nodes.len();
        if count == 0 || count > NodeId::LIMIT {
            return Err(TopologyError::NodeCount(count));
        }
        let default = |from| (0..count).map(|to| if from == to { LOCAL } else { REMOTE }).collect();
        let table = table.unwrap_or_else(|| (0..count).map(default).collect());
        if table.len() != count {
            return Err(TopologyError::Distances);
        }
        for (node, distances) in nodes.iter_mut().zip(table) {
            node.distances = distances;
        }
        let topology = Self { nodes, origin: Origin::Text };
        topology.check()?;
        Ok(topology)
    }

    fn check(&self) -> Result<(), TopologyError> {
        let mut cpus: Vec<u32> = self.nodes.iter().flat_map(|node| node.cpus.iter().copied()).collect();
        cpus.sort_unstable();
        if cpus.is_empty() || cpus.iter().enumerate().any(|(place, &cpu)| place != cpu as usize) {
            return Err(TopologyError::Cpus);
        }
        for (from, node) in self.nodes.iter().enumerate() {
            let wrong = |(to, &distance): (usize, &u8)| distance < LOCAL || (distance == LOCAL) != (from == to);
            if node.distances.len() != self.nodes.len() || node.distances.iter().enumerate().any(wrong) {
                return Err(TopologyError::Distances);
            }
        }
        Ok(())
    }

    /// How many CPUs there are; one that the system leaves out counts if there is a higher number.
    pub fn cpu_count(&self) -> usize {
        let highest = self.nodes.iter().flat_map(|node| &node.cpus).max();
        highest.map_or(0, |&cpu| cpu as usize + 1)
    }

    /// All memory.
    pub fn bytes(&self) -> usize {
        self.nodes.iter().map(|node| node.bytes).sum()
    }
}

fn parse_node(place: usize, text: &str) -> Result<NodeInfo, TopologyError> {
    let mut node =
        NodeInfo { number: place as u32, cpus: Vec::new(), bytes: 0, kind: ZoneKind::Normal, distances: Vec::new() };
    let unknown = |word: &str| TopologyError::Word(word.to_owned());
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "cpus" => {
                let list = words.next().unwrap_or_default();
                node.cpus = parse_list(list).ok_or_else(|| unknown(list))?;
            }
            "far" => node.kind = ZoneKind::Far,
            size => node.bytes = parse_size(size).ok_or_else(|| unknown(size))?,
        }
    }
    if node.bytes == 0 { Err(TopologyError::NoMemory(place)) } else { Ok(node) }
}

fn parse_table(text: &str) -> Result<Vec<Vec<u8>>, TopologyError> {
    let distance = |word: &str| word.parse().map_err(|_| TopologyError::Word(word.to_owned()));
    text.split('/').map(|row| row.split_whitespace().map(distance).collect()).collect()
}

/// `384M` in bytes.
fn parse_size(word: &str) -> Option<usize> {
    let (number, unit) = word.split_at(word.len().checked_sub(1)?);
    let shift = match unit {
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// `0-1,4` as numbers, as the kernel writes lists; empty is a list too.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    /// No machine has more, and a wrong number must not cost memory.
    const MOST: u32 = 1 << 16;
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// The number behind `name` in a meminfo file, which counts in KiB.
fn kib_of(meminfo: &str, name: &str) -> Option<usize> {
    let line = meminfo.lines().find(|line| line.contains(name))?;
    line.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_at_least_one_node_and_one_cpu() {
        let topology = Topology::of_system();
        assert!(topology.cpu_count() >= 1 && topology.bytes() > 0);
        assert!(topology.nodes.iter().all(|node| node.distances.len() == topology.nodes.len()));
    }

    #[test]
    fn a_directory_without_nodes_is_one_node() {
        assert_eq!(Topology::read(Path::new("/nonexistent")), None);
        let assumed = Topology::assumed();
        assert_eq!((assumed.nodes.len(), assumed.origin), (1, Origin::Assumed));
    }

    #[test]
    fn nodes_are_read_as_linux_writes_them() {
        let root = std::env::temp_dir().join(format!("pagemill-numa-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("online", "0,2\n");
        for (node, cpus, distance) in [(0, "0-1\n", "10 21\n"), (2, "\n", "21 10\n")] {
            write(&format!("node{node}/cpulist"), cpus);
            write(&format!("node{node}/distance"), distance);
            write(&format!("node{node}/meminfo"), &format!("Node {node} MemTotal:    2048 kB\nNode 0 MemFree: 1 kB\n"));
        }
        let topology = Topology::read(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!((topology.nodes[1].number, topology.nodes[1].bytes), (2, 2 << 20));
        assert_eq!((&topology.nodes[0].cpus[..], &topology.nodes[1].cpus[..]), (&[0, 1][..], &[][..]));
        assert_eq!(topology.nodes[1].distances, [21, 10]);
    }

    #[test]
    fn a_text_that_is_no_machine_says_why() {
        let error = |text| Topology::parse(text).unwrap_err();
        assert_eq!(error(" ; "), TopologyError::NodeCount(0));
        assert_eq!(error("cpus 0 1M here"), TopologyError::Word("here".into()));
        assert_eq!(error("cpus 1-0 1M"), TopologyError::Word("1-0".into()));
        assert_eq!(error("cpus 0 99999999999999G"), TopologyError::Word("99999999999999G".into()));
        assert_eq!(error("cpus 0"), TopologyError::NoMemory(0));
        assert_eq!(error("1M"), TopologyError::Cpus);
        assert_eq!(error("cpus 0 1M; cpus 0 1M"), TopologyError::Cpus);
        assert_eq!(error("cpus 0 1M; cpus 2 1M"), TopologyError::Cpus);
        assert_eq!(error("cpus 0 1M; 1M; distances 10 20"), TopologyError::Distances);
        assert_eq!(error("cpus 0 1M; 1M; distances 10 10 / 10 10"), TopologyError::Distances);
        let fine = Topology::parse("cpus 0 1M; 1M").unwrap();
        assert_eq!(fine.nodes[1].distances, [REMOTE, LOCAL]);
    }
}
