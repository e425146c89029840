//! What the system sees of a process's heap: blocks that move, huge pages, a thread that gives back, and the account of
//! it.
#![cfg(target_os = "linux")]

mod common;

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use pagemill_hosted::{HugePages, Pagemill};

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// The tests look at the memory of the whole process.
static ALONE: Mutex<()> = Mutex::new(());

/// A word for each place, which no other has.
fn word(block: usize, place: usize) -> u64 {
    (block as u64) << 32 | place as u64
}

#[test]
fn blocks_that_grow_in_turn_keep_what_they_hold() {
    let _alone = ALONE.lock();
    A.trim();
    let mappings = A.stats().system.expect("Linux tells").mappings;
    let mut blocks: Vec<Vec<u64>> = (0..12).map(|_| Vec::new()).collect();
    let mut moved = 0;
    for words in [100, 50_000, 200_000, 400_000, 1_000_000, 1_500_000] {
        for (index, block) in blocks.iter_mut().enumerate() {
            block.reserve_exact(words - block.len());
            block.extend((block.len()..words).map(|place| word(index, place)));
        }
        moved = moved.max(A.stats().moved_bytes);
    }
    assert!(moved > 0, "some had to move");
    for (index, block) in blocks.iter().enumerate() {
        assert!(block.iter().enumerate().all(|(place, &found)| found == word(index, place)), "block {index}");
    }
    drop(blocks);
    A.trim();
    let stats = A.stats();
    // What shares a huge frame with others may be thought to be there still.
    assert!(stats.moved_bytes < moved, "{stats:?}");
    let system = stats.system.expect("Linux tells");
    // What is moved is a mapping of its own; what is free is none. New regions add a few.
    assert!(system.mappings <= mappings + 8, "{mappings}, then {}", system.mappings);
    common::adds_up(&A);
}

#[test]
fn what_has_moved_serves_others_and_is_zero_where_it_is_to_be() {
    let _alone = ALONE.lock();
    for round in 0..20u8 {
        let mut held: Vec<Vec<u8>> = (0..4).map(|_| vec![round | 1; MIB + 4096]).collect();
        for block in &mut held {
            block.resize(3 * MIB, round | 1);
            block.shrink_to(2 * MIB + 4096);
        }
        assert!(held.iter().flatten().all(|&byte| byte == round | 1));
        held.truncate(1);
        let zeroed = vec![0u8; 5 * MIB];
        assert!(zeroed.iter().all(|&byte| byte == 0));
    }
}

#[test]
fn the_account_adds_up() {
    let _alone = ALONE.lock();
    A.trim();
    let before = A.stats();
    let held = vec![3u8; 50 * MIB];
    let stats = A.stats();
    let more = stats.used_bytes.wrapping_sub(before.used_bytes);
    assert!((49 * MIB..55 * MIB).contains(&more), "{before:?}, then {stats:?}");
    assert_eq!(stats.used_bytes + stats.free_bytes, stats.memory_bytes);
    let (was, is) = (before.system.expect("Linux tells"), stats.system.expect("Linux tells"));
    assert!(is.resident_bytes >= was.resident_bytes + 45 * MIB, "{was:?}, then {is:?}");
    assert!(is.faults > was.faults && is.mappings > 0);
    drop(held);
    let text = A.stats().to_string();
    assert!(text.contains("given back") && text.contains("in huge pages"), "{text}");
}

#[test]
fn a_small_program_has_no_huge_pages_and_a_large_one_does() {
    let _alone = ALONE.lock();
    let modes = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let held = vec![1u8; 64 * MIB];
    let system = A.stats().system.expect("Linux tells");
    if modes.is_empty() || modes.contains("[never]") {
        assert_eq!(system.huge_bytes, 0);
    } else {
        // The system may have few free ones.
        println!("{} MiB of {} in huge pages", system.huge_bytes / MIB, held.len() / MIB);
    }
}

#[test]
#[ignore = "changes the pages of the whole process"]
fn pages_are_as_they_were_asked_for_or_as_the_system_has_them() {
    let _alone = ALONE.lock();
    for pages in [HugePages::Never, HugePages::Explicit, HugePages::Transparent] {
        A.set_huge_pages(pages);
        // More than there was, so that the heap must grow.
        let held = vec![5u8; A.stats().memory_bytes + 8 * MIB];
        let system = A.stats().system.expect("Linux tells");
        println!("{pages:?}: {} MiB of {} in huge pages", system.huge_bytes / MIB, held.len() / MIB);
        drop(held);
        A.trim();
        let zeroed = vec![0u8; 10 * MIB];
        assert!(zeroed.iter().all(|&byte| byte == 0));
    }
    common::adds_up(&A);
}

#[test]
fn pages_by_choice() {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    let test = "pages_are_as_they_were_asked_for_or_as_the_system_has_them";
    let output = program.args(["--exact", test, "--ignored", "--test-threads", "1"]).output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_thread_gives_back_what_a_burst_has_left() {
    let _alone = ALONE.lock();
    A.tick_in_background(Duration::from_millis(5)).expect("a thread");
    // Up and down until it is not given back at once.
    for _ in 0..6 {
        drop(vec![1u8; 200 * MIB]);
    }
    let start = Instant::now();
    while A.stats().dirty_bytes > 9 * MIB {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", A.stats());
        thread::sleep(Duration::from_millis(20));
    }
    A.tick_in_background(Duration::ZERO).expect("nothing is started");
}
