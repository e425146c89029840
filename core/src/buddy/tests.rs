//! What the buddy promises, case by case.

use super::{Buddy, End, WHOLE_ARENA};
use crate::config::{Config, Fast};
use crate::order::Order;
use crate::sync::AtomicU16;
use crate::tree::Tree;

const ARENA_FRAMES: u32 = 1 << 18;

/// Runs `body` on an arena of `trees` huge frames, all free.
fn with_free(trees: u32, body: impl FnOnce(&mut Buddy<'_, Fast>)) {
    let mut words = vec![Tree::EMPTY; trees as usize];
    let counts: Vec<AtomicU16> = (0..trees).map(|_| AtomicU16::new(0)).collect();
    let mut buddy = Buddy::new(&mut words, &counts, 0);
    buddy.free_range(0, trees << Fast::HUGE_ORDER).unwrap();
    body(&mut buddy);
    buddy.validate().unwrap();
}

fn order(log2: u32) -> Order {
    Order::new(log2).unwrap()
}

#[test]
fn the_whole_arena_is_one_block() {
    with_free(512, |buddy| {
        assert_eq!(buddy.orders_free(), 1 << 9 | WHOLE_ARENA);
        assert_eq!(buddy.take(order(18), End::Bottom, None), Some(0));
        assert_eq!((buddy.free_frames(), buddy.orders_free()), (0, 0));
        buddy.validate().unwrap();
        assert_eq!(buddy.free(0, order(18)), Ok(()));
        assert_eq!(buddy.free(0, order(18)), Err(0));
        assert_eq!(buddy.free_frames(), ARENA_FRAMES);
    });
}

#[test]
fn blocks_above_a_tree_are_aligned_in_the_arena() {
    with_free(512, |buddy| {
        assert_eq!(buddy.take(order(0), End::Bottom, None), Some(0));
        for above in 10..=17 {
            assert_eq!(buddy.take(order(above), End::Bottom, None), Some(1 << above), "order {above}");
        }
        assert_eq!(buddy.take(order(10), End::Bottom, None), None);
        assert_eq!(buddy.take(order(9), End::Top, None), Some(512));
    });
}

#[test]
fn single_frames_empty_one_tree_after_the_other() {
    with_free(3, |buddy| {
        for frame in 0..700 {
            assert_eq!(buddy.take(Order::ZERO, End::Bottom, None), Some(frame));
        }
        for frame in (1024..1536).rev() {
            assert_eq!(buddy.take(Order::ZERO, End::Top, None), Some(frame));
        }
        // A frame of the first tree comes before all that is left of the second.
        buddy.free(17, Order::ZERO).unwrap();
        assert_eq!(buddy.take(Order::ZERO, End::Bottom, None), Some(17));
    });
}

#[test]
fn larger_blocks_leave_what_is_whole() {
    with_free(4, |buddy| {
        assert_eq!(buddy.take(order(9), End::Bottom, None), Some(0));
        assert_eq!(buddy.take(order(9), End::Bottom, None), Some(512));
        buddy.free(512 + 64, order(3)).unwrap();
        buddy.free(32, order(4)).unwrap();
        // The smallest that holds it, though it lies higher.
        assert_eq!(buddy.take(order(2), End::Bottom, None), Some(512 + 64));
        assert_eq!(buddy.take(order(3), End::Bottom, None), Some(32));
        assert_eq!(buddy.take(order(8), End::Top, None), Some(2048 - 256));
    });
}

#[test]
fn a_refill_comes_in_few_pieces() {
    with_free(2, |buddy| {
        let mut pieces = Vec::new();
        assert_eq!(buddy.take_frames(64, End::Bottom, None, |start, count| pieces.push((start, count))), 64);
        assert_eq!(buddy.take_frames(100, End::Top, None, |start, count| pieces.push((start, count))), 100);
        assert_eq!(pieces, [(0, 64), (1024 - 64, 64), (1024 - 96, 32), (1024 - 100, 4)]);
    });
}

#[test]
fn a_refill_stays_in_its_tree_and_below_its_limit() {
    with_free(2, |buddy| {
        buddy.take_at(0, 510).unwrap();
        assert_eq!(buddy.take_frames(64, End::Bottom, None, |start, count| assert_eq!((start, count), (510, 2))), 2);
        let mut pieces = Vec::new();
        assert_eq!(buddy.take_frames(64, End::Bottom, Some(519), |start, count| pieces.push((start, count))), 7);
        assert_eq!(pieces, [(512, 4), (516, 2), (518, 1)]);
        assert_eq!(buddy.take_frames(64, End::Bottom, Some(519), |_, _| unreachable!()), 0);
    });
}

#[test]
fn every_split_of_a_block_can_be_freed_in_parts() {
    // Where each bit is set, a part ends: all ways to cut eight frames, freed from either side.
    for cuts in 0..1u32 << 7 {
        for backwards in [false, true] {
            with_free(1, |buddy| {
                assert_eq!(buddy.take(order(3), End::Bottom, None), Some(0));
                let mut parts = vec![(0, 1)];
                for frame in 1..8 {
                    match cuts >> (frame - 1) & 1 {
                        0 => parts.last_mut().unwrap().1 += 1,
                        _ => parts.push((frame, 1)),
                    }
                }
                if backwards {
                    parts.reverse();
                }
                for (start, count) in parts {
                    assert_eq!(buddy.free_range(start, count), Ok(()));
                    assert_eq!(buddy.free_range(start, count), Err(start));
                    buddy.validate().unwrap();
                }
                assert_eq!(buddy.orders_free(), 1 << 9);
            });
        }
    }
}

#[test]
fn a_second_free_is_refused_in_every_form() {
    with_free(4, |buddy| {
        buddy.take_at(64, 64).unwrap();
        buddy.free(70, Order::ZERO).unwrap();
        let before = buddy.free_frames();
        assert_eq!(buddy.free(70, Order::ZERO), Err(70), "its own bit");
        assert_eq!(buddy.free(200, Order::ZERO), Err(200), "the bit of a block around it");
        assert_eq!(buddy.free(1024, order(3)), Err(1024), "the tree's bit");
        assert_eq!(buddy.free(64, order(6)), Err(70), "a bit inside it");
        assert_eq!(buddy.free(0, order(9)), Err(0), "a tree with something free");
        assert_eq!(buddy.free(0, order(11)), Err(0), "a run of trees");
        assert_eq!(buddy.free_range(65, 20), Err(70));
        assert_eq!(buddy.free_range(100, 100), Err(128));
        assert_eq!(buddy.free_frames(), before);
        assert_eq!(buddy.free_row(1, 0b1100_0001), 0b0100_0000, "only what was lent is freed");
        assert_eq!(buddy.free_frames(), before + 2);
        assert_eq!(buddy.free_row(0, 0b1000), 0, "a larger block shows when frames are merged");
        buddy.settle_all();
        assert_eq!((buddy.late_fault(), buddy.late_fault()), (Some(3), None));
        assert_eq!(buddy.free_frames(), before + 2);
    });
}

#[test]
fn loose_frames_are_merged_before_it_matters() {
    with_free(2, |buddy| {
        buddy.take(order(9), End::Bottom, None).unwrap();
        for row in 0..4 {
            assert_eq!(buddy.free_row(row, !0), 0);
        }
        assert_eq!(buddy.take(order(8), End::Bottom, None), Some(0), "four rows are a block of order 8");
        for row in 0..8 {
            assert_eq!(buddy.free_row(row, 1), 0);
        }
        assert_eq!(buddy.free_row(0, 1), 1);
        assert_eq!(buddy.take(Order::ZERO, End::Bottom, None), Some(0));
        for row in 0..8 {
            assert_eq!(buddy.free_row(row, if row == 0 { !0 } else { !1 }), 0);
        }
        assert_eq!(buddy.orders_free(), 1 << 9, "a tree that becomes whole is one at once");
    });
}

#[test]
fn runs_of_any_count_give_their_tail_back() {
    with_free(8, |buddy| {
        for count in [1, 3, 5, 64, 65, 511, 512, 513, 1500, 4096] {
            for end in [End::Bottom, End::Top] {
                let start = buddy.take_run(count, 0, end, None).unwrap();
                assert_eq!(buddy.free_frames(), 4096 - count);
                buddy.validate().unwrap();
                buddy.free_range(start, count).unwrap();
                assert_eq!(buddy.orders_free(), 1 << 9);
            }
        }
        assert_eq!(buddy.take_run(4097, 0, End::Bottom, None), None);
        assert_eq!(buddy.take_run(0, 0, End::Bottom, None), None);
    });
}

#[test]
fn a_run_of_some_trees_lies_close_behind_the_last() {
    with_free(8, |buddy| {
        for run in 0..5 {
            assert_eq!(buddy.take_run(700, 0, End::Bottom, None), Some(700 * run), "wherever a tree begins");
        }
        buddy.free_range(700, 1400).unwrap();
        assert_eq!(buddy.take_run(1300, 4, End::Bottom, None), Some(704));
        assert_eq!(buddy.take_run(300, 0, End::Bottom, Some(4000)), Some(3500), "the first that is free, in a tree");
        buddy.validate().unwrap();
        assert_eq!(buddy.free_frames(), 4096 - 5 * 700 + 1400 - 1300 - 300);
        assert_eq!(buddy.take_run(297, 0, End::Bottom, None), None, "the rest is apart");
        assert_eq!(buddy.take_run(296, 0, End::Bottom, None), Some(3800));
    });
}

#[test]
fn a_run_is_aligned_beyond_its_size_and_ends_below_its_limit() {
    with_free(8, |buddy| {
        assert_eq!(buddy.take_run(3, 0, End::Bottom, Some(3)), Some(0));
        assert_eq!(buddy.take_run(3, 10, End::Bottom, None), Some(1024));
        assert_eq!(buddy.take_run(3, 10, End::Bottom, Some(2050)), None);
        assert_eq!(buddy.take_run(3, 10, End::Bottom, Some(2051)), Some(2048));
        assert_eq!(buddy.take_run(3, 6, End::Top, Some(600)), Some(64), "the smallest block");
        assert_eq!(buddy.take_run(700, 9, End::Top, Some(4095)), Some(3072));
    });
}

#[test]
fn a_limit_cuts_a_block_in_the_middle() {
    with_free(2, |buddy| {
        assert_eq!(buddy.take(order(4), End::Top, Some(100)), Some(80));
        assert_eq!(buddy.take(Order::ZERO, End::Top, Some(600)), Some(599));
        assert_eq!(buddy.take(order(4), End::Bottom, Some(15)), None);
        assert_eq!(buddy.take(order(4), End::Bottom, Some(16)), Some(0));
        assert_eq!(buddy.take(Order::ZERO, End::Bottom, Some(0)), None);
    });
}

#[test]
fn named_frames_are_taken_whole_or_not_at_all() {
    with_free(3, |buddy| {
        assert_eq!(buddy.take_at(300, 1), Ok(()));
        assert_eq!(buddy.take_at(0, 1536), Err(300));
        assert_eq!(buddy.free_frames(), 1535);
        assert_eq!(buddy.take_at(301, 1235), Ok(()));
        assert_eq!(buddy.first_free_in(200, 1000), Some(200));
        assert_eq!(buddy.next_free_chunk(100, 1536), Some((100, 156)));
        assert_eq!(buddy.next_free_chunk(300, 1536), None);
    });
}
