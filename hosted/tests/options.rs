//! `PAGEMILL_CONF`: each option changes what it says, in a process of its own; what is none is one line, and the program runs.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::process::{Command, Output};

use pagemill_hosted::{Pagemill, options};

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// Runs one of the tests that are ignored here with these options.
fn with(conf: &str, test: &str) -> Output {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    program.env("PAGEMILL_CONF", conf).output().expect("a process")
}

/// The same, for one that must pass; answers what it wrote to its error output.
fn passes(conf: &str, test: &str) -> String {
    let output = with(conf, test);
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && out.contains("1 passed"), "{conf}, {test}: {out}{errors}");
    errors
}

/// Little and large, up and down.
#[test]
#[ignore = "run by others"]
fn it_lives() {
    let held: Vec<Vec<u8>> = (0..2000).map(|n| vec![n as u8; n * 7]).collect();
    assert!(held.iter().enumerate().all(|(n, block)| block.iter().all(|&byte| byte == n as u8)));
    assert_eq!(vec![1u8; 20 * MIB].len(), 20 * MIB);
    drop(held);
    A.heap().validate().expect("a heap that adds up");
}

#[test]
fn what_is_no_option_is_one_line_and_the_program_runs() {
    let bad = [
        ("thp:sometimes", "option `thp` is `sometimes`, expected late"),
        ("limit:much", "option `limit` is `much`, expected bytes"),
        ("abort", "option `abort` has no value"),
        ("lg_chunk:20", "there is no option `lg_chunk`, expected one of stats_print"),
        ("decay_ms:0", "option `decay_ms` is `0`, expected milliseconds"),
    ];
    for (conf, expected) in bad {
        let lines = passes(conf, "it_lives");
        let ours: Vec<_> = lines.lines().filter(|line| line.starts_with("pagemill: ")).collect();
        assert!(ours.len() == 1 && ours[0].contains(expected), "{conf}: {lines}");
    }
    let lines = passes(&bad.map(|(conf, _)| conf).join(","), "it_lives");
    assert_eq!(
        lines.lines().filter(|line| line.starts_with("pagemill: PAGEMILL_CONF: ")).count(),
        bad.len(),
        "{lines}"
    );
    for fine in ["", ",,", "level:fast,abort:true", "numa:local"] {
        assert_eq!(passes(fine, "it_lives"), "", "{fine}");
    }
}

#[test]
#[ignore = "run by others"]
fn it_frees_twice() {
    let layout = Layout::new::<[u64; 5]>();
    // SAFETY: the layout has a size.
    let object = unsafe { A.alloc(layout) };
    // SAFETY: allocated with this layout.
    unsafe { A.dealloc(object, layout) };
    // SAFETY: none; this is what is to be found.
    unsafe { A.dealloc(object, layout) };
    it_lives();
}

#[test]
fn abort_false_goes_on_after_a_wrong_free() {
    let ended = with("abort:true", "it_frees_twice");
    assert!(!ended.status.success(), "{ended:?}");
    for output in [ended.stderr, passes("abort:false", "it_frees_twice").into_bytes()] {
        let text = String::from_utf8_lossy(&output);
        assert_eq!(text.lines().filter(|line| line.starts_with("pagemill: ")).count(), 1, "{text}");
    }
}

#[test]
#[ignore = "run by others"]
fn it_drops_all_but_100_mib() {
    let keep: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; MIB / 10]).collect();
    let drop_these: Vec<Vec<u8>> = (0..600).map(|_| vec![1; MIB / 10]).collect();
    drop(drop_these);
    // A share of 100 MiB; what is less than 8 MiB is never looked at.
    let bound = (100 * MIB / 1000 * options().dirty_per_mille()).max(8 * MIB);
    let dirty = A.stats().dirty_bytes;
    let slack = 8 * MIB;
    assert!(dirty < bound + slack && dirty + slack > bound.min(60 * MIB), "{dirty} dirty, bound {bound}");
    assert!(keep.iter().flatten().all(|&byte| byte == 1));
}

#[test]
fn dirty_share_is_what_stays() {
    ["dirty_share:0", "dirty_share:1/4", "dirty_share:50%", "dirty_share:100"]
        .into_iter()
        .for_each(|conf| assert_eq!(passes(conf, "it_drops_all_but_100_mib"), ""));
}

#[test]
#[ignore = "run by others"]
fn it_finds_an_end() {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(1000);
    while held.len() < 1000 {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            break;
        }
        held.push(block);
    }
    assert!((10..=40).contains(&held.len()), "{} MiB", held.len());
    drop(held);
    it_lives();
}

#[test]
fn reserve_is_all_there_is() {
    assert_eq!(passes("reserve:40m", "it_finds_an_end"), "");
}
