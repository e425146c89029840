//! Maps no firmware should give, and some do.

use super::*;
use std::vec::Vec;

const LIMIT: u64 = 1 << 46;

fn entry(start: u64, bytes: u64, kind: u32) -> FirmwareEntry {
    FirmwareEntry { start, bytes, kind }
}

fn map(entries: &[FirmwareEntry]) -> MemoryMap {
    MemoryMap::from_firmware(entries.iter().copied(), LIMIT).expect("usable map")
}

fn usable(map: &MemoryMap) -> Vec<(u64, u64)> {
    map.usable().map(|range| (range.start(), range.end())).collect()
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(start, end).expect("ordered")
}

fn oddities(map: &MemoryMap) -> Vec<(usize, MapOddity)> {
    map.problems().iter().map(|problem| (problem.entry, problem.oddity)).collect()
}

#[test]
fn sorts_and_joins_neighbours() {
    let map = map(&[entry(0x5000, 0x1000, 1), entry(0x1000, 0x1000, 1), entry(0x2000, 0x1000, 1)]);
    assert_eq!(usable(&map), [(0x1000, 0x3000), (0x5000, 0x6000)]);
    assert_eq!(map.problem_count(), 0);
    assert_eq!(map.usable_bytes(), 0x3000);
}

#[test]
fn the_more_careful_entry_holds_where_two_overlap() {
    let map = map(&[entry(0, 0x10000, 1), entry(0x3800, 0x1000, 2), entry(0x3000, 0x4000, 3)]);
    assert_eq!(usable(&map), [(0, 0x3000), (0x7000, 0x10000)]);
    let kinds: Vec<_> = map.regions().iter().map(|region| region.kind).collect();
    use RegionKind::*;
    assert_eq!(kinds, [Usable, AcpiReclaimable, Reserved, AcpiReclaimable, Usable]);
    assert_eq!(oddities(&map), [(0, MapOddity::Contradicted)]);
}

#[test]
fn usable_twice_is_usable_once() {
    let map = map(&[entry(0, 0x4000, 1), entry(0x2000, 0x4000, 1), entry(0, 0x4000, 1)]);
    assert_eq!(usable(&map), [(0, 0x6000)]);
    assert_eq!(map.problem_count(), 0);
}

#[test]
fn a_wrapping_entry_gives_no_memory_but_still_forbids() {
    let map = map(&[entry(0, 0x8000, 1), entry(u64::MAX - 0xfff, 0x2000, 1), entry(0x4000, u64::MAX, 2)]);
    assert_eq!(usable(&map), [(0, 0x4000)]);
    assert!(oddities(&map).contains(&(1, MapOddity::Wraps)));
    assert!(oddities(&map).contains(&(2, MapOddity::Wraps)));
    assert_eq!(map.regions().last().map(|region| region.range.end()), Some(u64::MAX));
}

#[test]
fn only_whole_frames_are_usable() {
    let map = map(&[entry(0x800, 0x2000, 1), entry(0x4001, 0xffe, 1)]);
    assert_eq!(usable(&map), [(0x1000, 0x2000)]);
    assert_eq!(oddities(&map), [(0, MapOddity::Unaligned), (1, MapOddity::Unaligned)]);
}

#[test]
fn a_frame_described_in_two_halves_is_whole() {
    let map = map(&[entry(0, 0x1800, 1), entry(0x1800, 0x1800, 1)]);
    assert_eq!(usable(&map), [(0, 0x3000)]);
}

#[test]
fn empty_entries_are_ignored_and_noted() {
    let map = map(&[entry(0x1000, 0, 1), entry(0, 0x1000, 1), entry(0x500, 0, 2)]);
    assert_eq!(usable(&map), [(0, 0x1000)]);
    assert_eq!(oddities(&map), [(0, MapOddity::Empty), (2, MapOddity::Empty)]);
}

#[test]
fn memory_beyond_the_limit_is_dropped() {
    let map = map(&[entry(LIMIT - 0x1000, 0x4000, 1), entry(LIMIT + 0x10000, 0x1000, 1)]);
    assert_eq!(usable(&map), [(LIMIT - 0x1000, LIMIT)]);
    assert_eq!(oddities(&map), [(0, MapOddity::BeyondLimit), (1, MapOddity::BeyondLimit)]);
}

#[test]
fn unknown_kinds_are_reserved() {
    assert_eq!(RegionKind::from_e820(0), RegionKind::Reserved);
    assert_eq!(RegionKind::from_e820(6), RegionKind::Reserved);
    assert_eq!(RegionKind::from_e820(0xffff_ffff), RegionKind::Reserved);
    assert_eq!(RegionKind::from_e820(5), RegionKind::Bad);
}

#[test]
fn maps_that_cannot_be_used_are_errors() {
    let nothing = MemoryMap::from_firmware([entry(0, 0x1000, 2)], LIMIT);
    assert_eq!(nothing.err(), Some(MapError::NoMemory));
    assert_eq!(MemoryMap::from_firmware([], LIMIT).err(), Some(MapError::NoMemory));
    let many = (0..=MAX_REGIONS as u64).map(|i| entry(i * 0x2000, 0x1000, 1));
    assert_eq!(MemoryMap::from_firmware(many, LIMIT).err(), Some(MapError::TooManyRegions));
}

#[test]
fn many_oddities_are_counted_beyond_the_list() {
    let entries = (0..40).map(|_| entry(0, 0, 1)).chain([entry(0, 0x1000, 1)]);
    let map = MemoryMap::from_firmware(entries, LIMIT).expect("usable map");
    assert_eq!(map.problems().len(), MAX_PROBLEMS);
    assert_eq!(map.problem_count(), 40);
}

/// Byte by byte (in half frames), the map must agree with asking every entry.
#[test]
fn agrees_with_a_naive_twin() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..300 {
        let count = 1 + random(12);
        let entries: Vec<_> =
            (0..count).map(|_| entry(random(64) * 0x800, random(24) * 0x800, random(8) as u32)).collect();
        let kind_at = |at: u64| {
            let over = entries.iter().filter(|e| e.start <= at && at < e.start + e.bytes);
            over.map(|e| RegionKind::from_e820(e.kind)).max()
        };
        let Ok(map) = MemoryMap::from_firmware(entries.iter().copied(), LIMIT) else { continue };
        for frame in 0..48 {
            let at = frame * 0x1000;
            let whole = [at, at + 0x800].iter().all(|&half| kind_at(half) == Some(RegionKind::Usable));
            let listed = map.usable().any(|range| range.contains(super::PhysRange { start: at, end: at + 0x1000 }));
            assert_eq!(whole, listed, "frame {at:#x} of {entries:x?}");
        }
        assert!(map.regions().windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
    }
}

#[test]
fn subtract_cuts_in_any_order() {
    let ranges = [range(0, 0x10), range(0x20, 0x30), range(0x40, 0x50)];
    let cuts = [range(0x4, 0x6), range(0x2c, 0x44), range(0, 0x2), range(0x5, 0x8), range(0x8, 0x8)];
    let left: Vec<_> = subtract(ranges.iter().copied(), cuts.iter().copied()).collect();
    assert_eq!(left, [range(0x2, 0x4), range(0x8, 0x10), range(0x20, 0x2c), range(0x44, 0x50)]);
    let none: Vec<_> = subtract(ranges.iter().copied(), [PhysRange::ALL].iter().copied()).collect();
    assert_eq!(none, []);
}

#[test]
fn ranges_refuse_to_run_backwards_or_to_wrap() {
    assert_eq!(PhysRange::new(2, 1), None);
    assert_eq!(PhysRange::with_len(u64::MAX, 2), None);
    assert_eq!(range(0xfff, 0x1001).frames_inside(), None);
    assert_eq!(range(u64::MAX - 1, u64::MAX).frames_inside(), None);
    assert_eq!(range(0x1001, 0x1fff).covering(0x1000), range(0x1000, 0x2000));
    assert_eq!(range(5, u64::MAX).covering(0x1000), range(0, u64::MAX));
}
