//! Machines with nodes in several ranges, holes, borders within frames, and tables that are wrong.

use super::*;
use crate::acpi::tests::*;
use std::vec;
use std::vec::Vec;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(start, end).expect("ordered")
}

/// 640 KiB, a hole, then memory up to 64 MiB.
const USABLE: [(u64, u64); 2] = [(0, 0xa_0000), (0x10_0000, 0x400_0000)];

fn discover(tables: &[Vec<u8>]) -> Topology {
    let memory = machine(tables);
    let tables = Tables::locate(&&memory, 0);
    Topology::discover(tables.as_ref().map_err(|&error| error), usable(), 0)
}

fn usable() -> impl Iterator<Item = PhysRange> + Clone {
    USABLE.iter().map(|&(start, end)| range(start, end))
}

fn memory(topology: &Topology) -> Vec<(u64, u64, usize)> {
    topology.memory().iter().map(|piece| (piece.range.start(), piece.range.end(), piece.node)).collect()
}

fn cpus(topology: &Topology) -> Vec<(u32, usize)> {
    topology.cpus().iter().map(|cpu| (cpu.apic, cpu.node)).collect()
}

fn four_cpus() -> Vec<u8> {
    madt_table(&[madt_cpu(0, 1), madt_cpu(1, 1), madt_cpu(2, 1), madt_cpu(3, 1)])
}

#[test]
fn without_tables_there_is_one_cpu_and_one_node() {
    let topology = Topology::discover(Err(TableError::Missing), usable(), 7);
    assert_eq!(cpus(&topology), [(7, 0)]);
    assert_eq!(topology.node_count(), 1);
    assert_eq!(memory(&topology), [(0, 0xa_0000, 0), (0x10_0000, 0x400_0000, 0)]);
    assert_eq!(topology.distance(0, 0), LOCAL_DISTANCE);
    let missing = |signature| TopologyProblem::Table(signature, TableError::Missing);
    assert_eq!(topology.problems(), [missing(madt::SIGNATURE), missing(srat::SIGNATURE)]);
}

#[test]
fn a_node_in_two_ranges_and_one_without_cpus() {
    let srat = srat_table(&[
        srat_cpu(0, 5),
        srat_cpu(1, 5),
        srat_cpu(2, 2),
        srat_cpu(3, 2),
        srat_memory(0, 0xa_0000, 5, 1),
        srat_memory(0x10_0000, 0xf0_0000, 2, 1),
        srat_memory(0x100_0000, 0x100_0000, 9, 1),
        srat_memory(0x200_0000, 0x10_0000_0000, 5, 1),
    ]);
    let slit = slit_table(10, &[10; 100]);
    let topology = discover(&[four_cpus(), srat, slit]);
    // Numbered by domain: 2, 5, 9.
    assert_eq!((0..3).map(|node| topology.domain(node)).collect::<Vec<_>>(), [2, 5, 9]);
    assert_eq!(cpus(&topology), [(0, 1), (1, 1), (2, 0), (3, 0)]);
    let expected =
        [(0, 0xa_0000, 1), (0x10_0000, 0x100_0000, 0), (0x100_0000, 0x200_0000, 2), (0x200_0000, 0x400_0000, 1)];
    assert_eq!(memory(&topology), expected);
    assert_eq!(topology.problem_count(), 0);
}

#[test]
fn ranges_over_holes_hold_only_what_is_there() {
    let srat = srat_table(&[srat_memory(0, 0x20_0000, 0, 1), srat_memory(0x20_0000, 1 << 40, 1, 3)]);
    let topology = discover(&[four_cpus(), srat]);
    assert_eq!(memory(&topology), [(0, 0xa_0000, 0), (0x10_0000, 0x20_0000, 0), (0x20_0000, 0x400_0000, 1)]);
    assert_eq!(topology.problems()[0], TopologyProblem::CpuWithoutNode(0));
}

#[test]
fn a_border_within_a_frame_gives_it_to_the_node_above() {
    let srat = srat_table(&[srat_memory(0, 0x20_1800, 0, 1), srat_memory(0x20_1800, 1 << 40, 1, 1)]);
    let topology = discover(&[madt_table(&[]), srat]);
    assert_eq!(memory(&topology), [(0, 0xa_0000, 0), (0x10_0000, 0x20_1000, 0), (0x20_1000, 0x400_0000, 1)]);
}

#[test]
fn disputed_and_unclaimed_memory_is_told() {
    let srat = srat_table(&[srat_memory(0, 0x20_0000, 0, 1), srat_memory(0x18_0000, 0x18_0000, 1, 1)]);
    let topology = discover(&[madt_table(&[]), srat]);
    assert_eq!(
        memory(&topology),
        [(0, 0xa_0000, 0), (0x10_0000, 0x20_0000, 0), (0x20_0000, 0x30_0000, 1), (0x30_0000, 0x400_0000, 0)]
    );
    assert!(topology.problems().contains(&TopologyProblem::Disputed(range(0x18_0000, 0x20_0000))));
    assert!(topology.problems().contains(&TopologyProblem::Unclaimed(range(0x30_0000, 0x400_0000))));
}

#[test]
fn a_damaged_table_costs_only_what_it_says() {
    let good_srat = srat_table(&[srat_cpu(0, 0), srat_cpu(1, 1), srat_memory(0, 1 << 30, 0, 1)]);
    let torn_srat = srat_table(&[srat_cpu(0, 0), vec![1, 0]]);
    let topology = discover(&[four_cpus(), torn_srat]);
    assert_eq!((topology.node_count(), topology.cpus().len()), (1, 4));
    assert_eq!(topology.problems(), [TopologyProblem::Table(srat::SIGNATURE, TableError::EntryTooShort(64))]);

    let torn_madt = madt_table(&[madt_cpu(0, 1), madt_cpu(1, 1), vec![0, 99]]);
    let topology = discover(&[torn_madt, good_srat.clone()]);
    assert_eq!(cpus(&topology), [(0, 0)]);

    let topology = discover(&[four_cpus(), good_srat.clone(), slit_table(9, &[10; 3])]);
    assert_eq!((topology.node_count(), topology.distance(0, 1)), (2, REMOTE_DISTANCE));
    assert!(topology.problems().contains(&TopologyProblem::Table(slit::SIGNATURE, TableError::Matrix(9))));

    let torn_hmat = hmat_table(&[hmat_latency(2, 1000, &[10, 20, 30, 40]), vec![1, 0, 0, 0]]);
    let topology = discover(&[four_cpus(), good_srat, torn_hmat]);
    assert_eq!(topology.latency(0, 0), None);
}

#[test]
fn distances_and_latencies_by_node() {
    let srat = srat_table(&[srat_memory(0, 0x100_0000, 0, 1), srat_memory(0x100_0000, 1 << 40, 2, 1)]);
    let slit = slit_table(3, &[10, 9, 17, 9, 10, 9, 28, 9, 10]);
    let hmat = hmat_table(&[hmat_latency(3, 1000, &[10, 0, 60, 0, 0, 0, 70, 0, 20])]);
    let topology = discover(&[madt_table(&[]), srat, slit, hmat]);
    assert_eq!((topology.distance(0, 1), topology.distance(1, 0)), (17, 28));
    assert_eq!((topology.latency(0, 1), topology.latency(1, 1)), (Some(60_000), Some(20_000)));
    assert_eq!(topology.bandwidth(0, 0), None);
}

#[test]
fn senseless_distances_are_replaced() {
    let srat = srat_table(&[srat_memory(0, 0x100_0000, 0, 1), srat_memory(0x100_0000, 1 << 40, 1, 1)]);
    let topology = discover(&[madt_table(&[]), srat, slit_table(2, &[11, 3, 40, 10])]);
    assert_eq!((topology.distance(0, 0), topology.distance(0, 1), topology.distance(1, 0)), (10, 20, 40));
    assert!(topology.problems().contains(&TopologyProblem::Distance(0, 0)));
    assert!(topology.problems().contains(&TopologyProblem::Distance(0, 1)));
}

#[test]
fn more_nodes_than_fit_count_for_node_0() {
    let entries: Vec<_> = (0..=MAX_NODES as u64).map(|n| srat_memory(n * 0x10_0000, 0x10_0000, n as u32, 1)).collect();
    let topology = discover(&[madt_table(&[]), srat_table(&entries)]);
    assert_eq!(topology.node_count(), MAX_NODES);
    assert!(topology.problems().contains(&TopologyProblem::TooManyNodes(MAX_NODES as u32)));
    let total: u64 = topology.memory().iter().map(|piece| piece.range.bytes()).sum();
    assert_eq!(total, usable().map(PhysRange::bytes).sum::<u64>());
}
