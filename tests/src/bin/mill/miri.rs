//! `cargo miri-core`: the core crate's tests under Miri.

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::tools;
use std::process::Command;

/// Strict provenance is what makes index arithmetic in the core honest. Of the host's variables Miri shows the tests
/// only those forwarded here. Tags that are gone are looked for ten times as often as is usual: a step of the core makes
/// many, and each costs time until then.
const FLAGS: &str = "-Zmiri-strict-provenance -Zmiri-env-forward=PROPTEST_CASES \
                     -Zmiri-env-forward=PROPTEST_DISABLE_FAILURE_PERSISTENCE -Zmiri-provenance-gc=1000";
const TREE_BORROWS: &str = "-Zmiri-tree-borrows";

/// Tests with this word in their path start threads: they run under several seeds, hence schedules.
const CONCURRENT: &str = "concurrent";

/// Miri is some hundred times slower than the machine, so property tests keep to a few cases.
const CASES: usize = 4;

/// The layers of the heap, of which a test takes from seconds to minutes: of these the short form runs [`SHORT`].
const HEAP: &[&str] = &[
    "global::",
    "harden::tests",
    "heap::",
    "large::",
    "object::",
    "pool::tests",
    "reclaim::",
    "shadow::",
    "size_class::",
    "slab::",
    "stacks::",
    "tiny",
];

/// The tests of the heap's layers that the short form runs: each layer through its own calls. The list is kept by hand,
/// so that a test that has another name fails the run.
const SHORT: &[&str] = &[
    "global::tests::a_hook_that_returns_makes_wrong_frees_harmless",
    "global::tests::a_wrong_realloc_is_refused_and_changes_nothing",
    "global::tests::fresh_zeros_are_left_alone",
    "global::tests::global_alloc_answers_null_and_never_unwinds",
    "heap::corners::a_depot_is_emptied_though_others_fill_it",
    "heap::corners::a_kept_block_that_somebody_has_is_found",
    "heap::corners::a_large_object_may_take_several_arenas",
    "heap::tests::wrong_frees_are_told_apart",
    "large::tests::a_kept_block_serves_the_next_of_its_size",
    "large::tests::an_interrupt_never_waits",
    "large::tests::frames_and_large_objects_are_told_apart",
    "large::tests::growth_leaves_the_reserve_alone",
    "object::tests::a_cache_with_lent_objects_is_not_destroyed",
    "object::tests::a_memory_pool_refuses_wrong_frees",
    "object::tests::alignment_and_every_size",
    "object::tests::constructors_run_once_a_slot_and_destructors_when_its_slab_goes",
    "reclaim::tests::a_copy_of_the_process_reclaims_for_itself",
    "reclaim::tests::a_shrinker_that_is_added_again_is_not_asked_twice",
    "reclaim::tests::a_shrinker_that_takes_itself_away_is_idle_when_it_has_answered",
    "reclaim::tests::a_tag_counts_what_was_asked_for_in_its_name",
    "reclaim::tests::a_walk_follows_nobody_out_of_the_list",
    "shadow::tests::an_object_is_known_by_its_class_and_its_start_alone",
    "shadow::tests::neighbours_have_bytes_of_their_own",
    "shadow::tests::what_is_outside_is_not_lent",
    "size_class::tests::every_layout_finds_the_smallest_class_that_holds_and_aligns_it",
    "size_class::tests::what_is_larger_has_no_class",
    "slab::tests::a_slot_that_is_in_already_is_refused",
    "slab::tests::slots_leave_lowest_first_and_are_counted",
    "slab::tests::who_makes_a_full_slab_partial_or_a_used_one_empty_queues_it_once",
    "sync::stacks::tests::a_stack_gives_back_what_was_put_in_last_and_spills_what_was_first",
    "sync::stacks::tests::a_stack_moves_when_it_becomes_deep_and_back_with_what_it_holds",
    "sync::stacks::tests::limits_stay_between_what_is_there_and_what_there_is_room_for",
    "sync::stacks::tests::stacks_lie_side_by_side",
    "tiny::tests::a_race_of_two_frees_is_told_when_it_comes_to_light",
    "tiny::tests::a_wrong_free_names_what_is_there",
    "tiny::tests::an_interrupt_that_finds_the_lock_held_never_waits",
    "tiny::tests::another_region_serves_while_a_lock_is_held",
    "tiny::tests::realloc_stays_where_it_can_and_keeps_the_content",
    "tiny::tests::regions_are_refused_for_a_reason",
    "tiny::tests::sizes_from_nothing_to_everything",
    "tiny::tests::wrong_frees_change_nothing",
];

/// What the short form does not see: whether each byte of something mixed may be changed, instead of all of it. A look
/// at a pool would otherwise cost a look at each of its thousands of words, three quarters of the time.
const WHOLE: &str = "-Zmiri-tree-borrows-no-precise-interior-mut";

pub(crate) fn run(words: &[String]) -> Outcome {
    if let Some(word) = words.iter().find(|word| word.starts_with('-')) {
        return Err(Failure::usage(format!("mill miri-core: unexpected argument {word:?}")));
    }
    tools::miri()?;
    let flags = format!("{TREE_BORROWS} {WHOLE}");
    // Who names tests means them.
    if !words.is_empty() {
        return test("miri, tree borrows", &flags, CASES, words).map(drop);
    }
    cargo::finish(command(&flags, CASES).arg("--no-run"), "miri: building the tests")?;
    let tests = short_form(&flags)?;
    // Dealt out like cards, since neighbours take about as long.
    let hand = |first: usize| tests.iter().skip(first).step_by(2);
    let (mut one, mut other) = (command(&flags, CASES), command(&flags, CASES));
    let passed = libtest::run_both(
        (one.args(["--", "--exact"]).args(hand(0)), "miri, tree borrows"),
        (other.args(["--", "--exact"]).args(hand(1)), "miri, tree borrows, the other half"),
    )?;
    let passed: usize = passed.iter().sum();
    println!("miri, tree borrows: {passed} passed, 0 failed");
    deep(&flags)
}

/// The stacks as processes have them. Of the rest of the core Miri sees pools without deep stacks, of which a look is a
/// fifth as long.
fn deep(flags: &str) -> Outcome {
    let mut command = command(flags, CASES);
    let passed = libtest::run(command.args(["--features", "deep-pools", "--", "sync::stacks"]), "miri, deep stacks")?;
    println!("miri, deep stacks: {passed} passed, 0 failed");
    Ok(())
}

/// The tests of the short form: those of the frames' layers, and of the others those that are listed above.
fn short_form(flags: &str) -> Outcome<Vec<String>> {
    let mut list = command(flags, CASES);
    let lines = libtest::read_lines(list.args(["--quiet", "--", "--list"]), "miri: listing the tests", |_| ())?;
    let all: Vec<_> = lines.iter().filter_map(|line| line.strip_suffix(": test")).collect();
    if let Some(lost) = SHORT.iter().find(|test| !all.contains(test)) {
        return Err(Failure::new(format!("miri: there is no test {lost} (tests/src/bin/mill/miri.rs)")));
    }
    let is_chosen = |test: &&str| SHORT.contains(test) || !HEAP.iter().any(|layer| test.contains(layer));
    Ok(all.into_iter().filter(is_chosen).map(str::to_owned).collect())
}

/// The long form: both aliasing models, more cases, and many schedules of the concurrent tests.
pub(crate) fn full() -> Outcome {
    tools::miri()?;
    // Both need the same program, which is built once, before both would wait for its lock.
    cargo::finish(command(TREE_BORROWS, CASES).arg("--no-run"), "miri: building the tests")?;
    let (tree, stacked) = ("miri, tree borrows", "miri, stacked borrows");
    let passed = libtest::run_both((&mut command(TREE_BORROWS, 4 * CASES), tree), (&mut command("", CASES), stacked))?;
    for (model, passed) in [tree, stacked].into_iter().zip(passed) {
        println!("{model}: {passed} passed, 0 failed");
    }
    deep(TREE_BORROWS)?;
    let seeds = format!("{TREE_BORROWS} -Zmiri-many-seeds=0..16");
    // With many seeds every program prints as many summaries, so the count says only that something ran.
    test("miri, 16 seeds of the concurrent tests", &seeds, CASES, &[CONCURRENT.to_owned()]).map(drop)
}

fn test(what: &str, flags: &str, cases: usize, filter: &[String]) -> Outcome<usize> {
    let passed = libtest::run(command(flags, cases).arg("--").args(filter), what)?;
    println!("{what}: {passed} passed, 0 failed");
    Ok(passed)
}

fn command(flags: &str, cases: usize) -> Command {
    let mut command = cargo::nightly_cargo();
    command.args(["miri", "test", "-p", "pagemill", "--lib", "--tests"]);
    command.env("MIRIFLAGS", format!("{FLAGS} {flags}"));
    command.env("PROPTEST_CASES", cases.to_string()).env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    command
}
