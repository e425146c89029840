//! Tables as they should be, and every way of damaging them.

use super::*;
use crate::acpi::hmat::{Figure, Quantity};
use std::vec;
use std::vec::Vec;

/// Physical memory made of pieces.
#[derive(Default)]
pub(crate) struct FakeMemory {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl FakeMemory {
    pub(crate) fn put(&mut self, at: u64, bytes: Vec<u8>) {
        self.pieces.push((at, bytes));
    }
}

impl<'a> PhysicalMemory<'a> for &'a FakeMemory {
    fn bytes(&self, range: PhysRange) -> Option<&'a [u8]> {
        self.pieces.iter().find_map(|(at, bytes)| {
            let from = usize::try_from(range.start().checked_sub(*at)?).ok()?;
            bytes.get(from..from.checked_add(range.bytes() as usize)?)
        })
    }
}

/// Makes `bytes` add up to zero by its byte `at`.
pub(crate) fn balance(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    bytes[at] = sum.wrapping_neg();
}

/// A table with good length and checksum.
pub(crate) fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes[8] = 2;
    bytes.extend(body);
    balance(&mut bytes, 9);
    bytes
}

pub(crate) fn madt_cpu(apic: u8, flags: u32) -> Vec<u8> {
    let mut entry = vec![0, 8, apic, apic];
    entry.extend(flags.to_le_bytes());
    entry
}

pub(crate) fn madt_table(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"APIC", &[vec![0; 8], entries.concat()].concat())
}

pub(crate) fn srat_cpu(apic: u8, domain: u32) -> Vec<u8> {
    let d = domain.to_le_bytes();
    vec![0, 16, d[0], apic, 1, 0, 0, 0, 0, d[1], d[2], d[3], 0, 0, 0, 0]
}

pub(crate) fn srat_memory(start: u64, bytes: u64, domain: u32, flags: u32) -> Vec<u8> {
    let mut entry = vec![1, 40];
    entry.extend(domain.to_le_bytes());
    entry.extend([0; 2]);
    entry.extend(start.to_le_bytes());
    entry.extend(bytes.to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(flags.to_le_bytes());
    entry.extend([0; 8]);
    entry
}

pub(crate) fn srat_table(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"SRAT", &[vec![0; 12], entries.concat()].concat())
}

pub(crate) fn slit_table(domains: u64, matrix: &[u8]) -> Vec<u8> {
    table(b"SLIT", &[&domains.to_le_bytes()[..], matrix].concat())
}

pub(crate) fn hmat_latency(domains: u32, base: u64, cells: &[u16]) -> Vec<u8> {
    let mut entry = vec![1, 0, 0, 0];
    entry.extend((32 + 8 * domains + 2 * cells.len() as u32).to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(domains.to_le_bytes());
    entry.extend(domains.to_le_bytes());
    entry.extend([0; 4]);
    entry.extend(base.to_le_bytes());
    for _ in 0..2 {
        (0..domains).for_each(|domain| entry.extend(domain.to_le_bytes()));
    }
    cells.iter().for_each(|cell| entry.extend(cell.to_le_bytes()));
    entry
}

pub(crate) fn hmat_table(entries: &[Vec<u8>]) -> Vec<u8> {
    table(b"HMAT", &[vec![0; 4], entries.concat()].concat())
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR ".to_vec();
    bytes.resize(15, 0);
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    balance(&mut bytes, 8);
    if revision >= 2 {
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.resize(36, 0);
        balance(&mut bytes, 32);
    }
    bytes
}

const ROOT: u64 = 0xf_5000;

/// A machine whose root pointer lies in the BIOS area and whose tables lie at 1 MiB, 64 KiB apart.
pub(crate) fn machine(tables: &[Vec<u8>]) -> FakeMemory {
    let mut memory = FakeMemory::default();
    let place = |index: usize| 0x10_0000 + 0x1_0000 * index as u64;
    let pointers: Vec<u8> = (1..=tables.len()).flat_map(|index| place(index).to_le_bytes()).collect();
    memory.put(ROOT, rsdp(2, 0, place(0)));
    memory.put(place(0), table(b"XSDT", &pointers));
    for (index, bytes) in tables.iter().enumerate() {
        memory.put(place(index + 1), bytes.clone());
    }
    memory
}

#[test]
fn follows_the_hint_and_searches_without_one() {
    let memory = machine(&[madt_table(&[])]);
    for hint in [0, ROOT, 0x1234, u64::MAX] {
        let tables = Tables::locate(&&memory, hint).expect("tables");
        assert!(tables.find(*b"APIC").is_ok());
        assert_eq!(tables.find(*b"SRAT"), Err(TableError::Missing));
        assert_eq!(tables.iter().count(), 3);
    }
    assert_eq!(Tables::locate(&&FakeMemory::default(), 0).err(), Some(TableError::Missing));
}

#[test]
fn an_old_or_damaged_root_pointer_leads_to_the_rsdt() {
    let mut memory = FakeMemory::default();
    let mut damaged = rsdp(2, 0x20_0000, 0x30_0000);
    damaged[30] ^= 1;
    memory.put(0xe_0010, damaged);
    memory.put(0x20_0000, table(b"RSDT", &0x40_0000_u32.to_le_bytes()));
    memory.put(0x40_0000, madt_table(&[]));
    let tables = Tables::locate(&&memory, 0).expect("tables");
    assert!(tables.find(*b"APIC").is_ok());

    let mut bad_xsdt = FakeMemory::default();
    bad_xsdt.put(0xe_0010, rsdp(2, 0x20_0000, 0x30_0000));
    bad_xsdt.put(0x20_0000, table(b"RSDT", &[]));
    bad_xsdt.put(0x30_0000, vec![0xff; 36]);
    assert!(Tables::locate(&&bad_xsdt, 0).is_ok());
}

#[test]
fn damaged_tables_are_told_apart_from_missing_ones() {
    let good = madt_table(&[madt_cpu(0, 1)]);
    let mut flipped = good.clone();
    flipped[45] ^= 0x10;
    let mut short = good.clone();
    short[4..8].copy_from_slice(&35_u32.to_le_bytes());
    let mut huge = good.clone();
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long = good.clone();
    long[4..8].copy_from_slice(&200_u32.to_le_bytes());
    for (bytes, error) in [
        (flipped, TableError::Checksum),
        (short, TableError::Length(35)),
        (huge, TableError::Length(u32::MAX)),
        (long, TableError::OutOfReach),
    ] {
        let memory = machine(&[bytes]);
        let tables = Tables::locate(&&memory, 0).expect("tables");
        assert_eq!(tables.find(*b"APIC"), Err(error));
    }
}

#[test]
fn more_tables_than_fit_are_counted() {
    let memory = machine(&vec![madt_table(&[]); MAX_TABLES]);
    let tables = Tables::locate(&&memory, 0).expect("tables");
    assert_eq!((tables.iter().count(), tables.dropped()), (MAX_TABLES, 2));
}

fn cpus_of(bytes: &[u8]) -> (Result<(), TableError>, Vec<u32>) {
    let mut cpus = FixedVec::<u32, 3>::new();
    let result = madt::cpus(bytes, &mut cpus);
    (result, cpus.to_vec())
}

#[test]
fn madt_lists_enabled_cpus_once() {
    let x2apic = [vec![9, 16, 0, 0], 300_u32.to_le_bytes().to_vec(), vec![1, 0, 0, 0], vec![0; 4]].concat();
    let other = vec![1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let entries = [madt_cpu(4, 1), other, madt_cpu(5, 0), madt_cpu(6, 2), madt_cpu(4, 1), x2apic];
    assert_eq!(cpus_of(&madt_table(&entries)), (Ok(()), vec![4, 300]));
    let many: Vec<_> = (0..4).map(|apic| madt_cpu(apic, 1)).collect();
    assert_eq!(cpus_of(&madt_table(&many)), (Err(TableError::TooMany), vec![0, 1, 2]));
}

#[test]
fn entries_that_do_not_fit_are_errors() {
    assert_eq!(cpus_of(&table(b"APIC", &[0; 7])).0, Err(TableError::TooShort));
    assert_eq!(cpus_of(&madt_table(&[vec![0, 0, 0, 0, 0, 0, 0, 0]])).0, Err(TableError::EntryTooShort(44)));
    assert_eq!(cpus_of(&madt_table(&[vec![7, 1, 0]])).0, Err(TableError::EntryTooShort(44)));
    assert_eq!(cpus_of(&madt_table(&[madt_cpu(1, 1), vec![0, 6, 0, 0, 0, 0]])).0, Err(TableError::EntryTooShort(52)));
    assert_eq!(cpus_of(&madt_table(&[madt_cpu(1, 1), vec![0, 9]])).0, Err(TableError::EntryPastEnd(52)));
    assert_eq!(cpus_of(&madt_table(&[vec![0]])).0, Err(TableError::EntryPastEnd(44)));
}

#[test]
fn srat_reads_wide_domains_and_skips_disabled_entries() {
    let x2apic =
        [vec![2, 24, 0, 0], 7_u32.to_le_bytes().to_vec(), 999_u32.to_le_bytes().to_vec(), vec![1], vec![0; 11]];
    let entries = [
        srat_cpu(3, 0x0102_0304),
        x2apic.concat(),
        srat_memory(0x1000, 0x2000, 9, 3),
        srat_memory(0, 0x1000, 9, 0),
        srat_memory(0x9000, 0, 9, 1),
        srat_memory(u64::MAX - 9, 100, 9, 1),
    ];
    let srat = srat::Affinities::<4, 4>::parse(&srat_table(&entries)).expect("good table");
    let cpus: Vec<_> = srat.cpus.iter().map(|cpu| (cpu.apic, cpu.domain)).collect();
    assert_eq!(cpus, [(3, 0x0102_0304), (999, 7)]);
    let memory: Vec<_> = srat.memory.iter().map(|m| (m.range.start(), m.range.end(), m.hot_pluggable)).collect();
    assert_eq!(memory, [(0x1000, 0x3000, true), (u64::MAX - 9, u64::MAX, false)]);
    let too_many = srat::Affinities::<1, 1>::parse(&srat_table(&entries));
    assert_eq!(too_many.err(), Some(TableError::TooMany));
}

#[test]
fn slit_is_bounded_by_its_table() {
    let bytes = slit_table(2, &[10, 21, 9, 10]);
    let distances = slit::Distances::parse(&bytes).expect("good table");
    assert_eq!(distances.get(0, 1), Some(21));
    assert_eq!(distances.get(1, 0), None);
    assert_eq!(distances.get(0, 2), None);
    assert_eq!(distances.get(u32::MAX, 0), None);
    assert_eq!(slit::Distances::parse(&slit_table(3, &[10; 8])), Err(TableError::Matrix(3)));
    assert_eq!(slit::Distances::parse(&slit_table(1 << 32, &[10; 8])), Err(TableError::Matrix(1 << 32)));
    assert_eq!(slit::Distances::parse(&slit_table(u64::MAX, &[10; 8])), Err(TableError::Matrix(u64::MAX)));
    assert_eq!(slit::Distances::parse(&table(b"SLIT", &[0; 7])), Err(TableError::TooShort));
}

fn figures_of(bytes: &[u8]) -> (Result<(), TableError>, Vec<Figure>) {
    let mut figures = Vec::new();
    let result = hmat::figures(bytes, |figure| figures.push(figure));
    (result, figures)
}

#[test]
fn hmat_gives_what_is_told() {
    let (result, figures) = figures_of(&hmat_table(&[hmat_latency(2, 1000, &[10, 0, u16::MAX, 60])]));
    let figure = |initiator, target, value| Figure { quantity: Quantity::AccessLatency, initiator, target, value };
    assert_eq!((result, &figures[..]), (Ok(()), &[figure(0, 0, 10_000), figure(1, 1, 60_000)][..]));
    let mut cache_side = hmat_latency(1, 1, &[5]);
    cache_side[8] = 1;
    assert_eq!(figures_of(&hmat_table(&[cache_side])), (Ok(()), vec![]));
    let huge = figures_of(&hmat_table(&[hmat_latency(1, u64::MAX, &[5])])).1;
    assert_eq!(huge[0].value, u64::MAX);
}

#[test]
fn hmat_is_bounded_by_its_entries() {
    let mut lying = hmat_latency(2, 1, &[1, 2, 3, 4]);
    lying[12..20].fill(0xff);
    assert_eq!(figures_of(&hmat_table(&[lying])).0, Err(TableError::Matrix(u64::from(u32::MAX))));
    let mut zero = hmat_latency(1, 1, &[1]);
    zero[4..8].fill(0);
    assert_eq!(figures_of(&hmat_table(&[zero])).0, Err(TableError::EntryTooShort(40)));
    let mut long = hmat_latency(1, 1, &[1]);
    long[4..8].fill(0xff);
    assert_eq!(figures_of(&hmat_table(&[long])).0, Err(TableError::EntryPastEnd(40)));
    assert_eq!(figures_of(&hmat_table(&[vec![1, 0, 0, 0, 8, 0, 0, 0]])).0, Err(TableError::EntryTooShort(40)));
}

/// Whatever single byte is wrong, and wherever a table ends: no parser panics.
#[test]
fn no_damage_makes_a_parser_panic() {
    let tables = [
        madt_table(&[madt_cpu(0, 1), madt_cpu(1, 1)]),
        srat_table(&[srat_cpu(0, 0), srat_memory(0, 0x1000, 0, 1)]),
        slit_table(2, &[10, 20, 20, 10]),
        hmat_table(&[hmat_latency(2, 1, &[1, 2, 3, 4])]),
    ];
    let parse_all = |bytes: &[u8]| {
        let _ = cpus_of(bytes);
        let _ = srat::Affinities::<2, 2>::parse(bytes);
        let _ = slit::Distances::parse(bytes).map(|distances| distances.get(1, 1));
        let _ = figures_of(bytes);
    };
    for good in &tables {
        for len in 0..=good.len() {
            parse_all(&good[..len]);
        }
        for at in 0..good.len() {
            for value in [0, 1, 7, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                parse_all(&bad);
                balance(&mut bad, 9);
                let memory = machine(&[bad]);
                let _ = Tables::locate(&&memory, 0).map(|tables| tables.iter().count());
            }
        }
    }
}
