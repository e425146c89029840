//! Machines that do not exist: any memory map, over the world's CPUs.

use pagemill::{Config, CpuId, FrameCount, FrameSpan, Frames, Metadata, NodeId, Pfn, ZoneKind};

use crate::home::Home;
use crate::world::World;

/// Frames `start..start + count`.
pub(crate) fn span(start: usize, count: usize) -> FrameSpan {
    FrameSpan::new(Pfn::new(start), FrameCount::new(count)).unwrap()
}

/// Node `number`.
pub(crate) fn node(number: usize) -> NodeId {
    NodeId::new(number as u32).unwrap()
}

/// A range of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) node: usize,
    pub(crate) kind: ZoneKind,
    pub(crate) start: usize,
    pub(crate) frames: usize,
}

impl Range {
    /// Ordinary memory.
    pub(crate) const fn normal(node: usize, start: usize, frames: usize) -> Self {
        Self { node, kind: ZoneKind::Normal, start, frames }
    }

    pub(crate) fn span(self) -> FrameSpan {
        span(self.start, self.frames)
    }
}

/// The description of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sim<'a> {
    pub(crate) nodes: usize,
    /// The CPUs are spread over so many nodes, from the first on.
    pub(crate) nodes_with_cpus: usize,
    pub(crate) ranges: &'a [Range],
    pub(crate) reserved: &'a [FrameSpan],
    pub(crate) distances: &'a [(usize, usize, u8)],
}

impl<'a> Sim<'a> {
    /// One node with these ranges.
    pub(crate) const fn one_node(ranges: &'a [Range]) -> Self {
        Self::nodes(1, ranges)
    }

    /// So many nodes, all with CPUs, all equally far.
    pub(crate) const fn nodes(nodes: usize, ranges: &'a [Range]) -> Self {
        Self { nodes, nodes_with_cpus: nodes, ranges, reserved: &[], distances: &[] }
    }

    /// From the lowest frame to the highest.
    pub(crate) fn hull(&self) -> FrameSpan {
        let start = self.ranges.iter().map(|range| range.start).min().unwrap();
        let end = self.ranges.iter().map(|range| range.start + range.frames).max().unwrap();
        span(start, end - start)
    }

    /// Runs `work` on an instance of this machine, and asserts that every frame came home.
    pub(crate) fn run<W: World, C: Config + Sync>(&self, world: &W, work: impl Fn(&Frames<'_, W::P, C>)) {
        let cpus = world.cpus() as usize;
        let base = Frames::<W::P, C>::base_metadata_size(self.hull(), cpus, self.nodes);
        let sizes = self.ranges.iter().map(|range| Frames::<W::P, C>::memory_metadata_size(range.span()));
        let bytes = base + sizes.sum::<usize>();
        let given = world.with_metadata(bytes, &mut |metadata| {
            let frames = Frames::<W::P, C>::new();
            let (first, rest) = metadata.split_at(base).ok().unwrap();
            frames.init(self.hull(), cpus, self.nodes, first).unwrap();
            self.describe(&frames, rest);
            let home = Home::of(world, &frames);
            assert_eq!(home.lent(), 0);
            work(&frames);
            home.assert_again(world, &frames);
        });
        assert!(given, "no room for {bytes} bytes of metadata");
    }

    fn describe<'m, P: pagemill::Platform, C: Config>(&self, frames: &Frames<'m, P, C>, mut rest: Metadata<'m>) {
        for range in self.ranges {
            let needed = Frames::<P, C>::memory_metadata_size(range.span());
            let (mine, others) = rest.split_at(needed).ok().unwrap();
            rest = others;
            frames.add_memory(node(range.node), range.kind, range.span(), self.reserved, mine).unwrap();
        }
        for &(from, to, distance) in self.distances {
            frames.set_distance(node(from), node(to), distance).unwrap();
            frames.set_distance(node(to), node(from), distance).unwrap();
        }
        for cpu in 0..frames.cpu_count() {
            let home = node(cpu % self.nodes_with_cpus);
            frames.set_cpu_node(CpuId::new(cpu as u32), home).unwrap();
        }
    }
}
