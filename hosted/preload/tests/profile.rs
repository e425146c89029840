//! Heap profiles of C programs, read by a script that has nothing of what wrote them, and their leak reports.
//!
//! With `PAGEMILL_FULL=1` the cases of `conformance.c` run with every object a sample, too.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use common::{compile, is_full, remove, run_cases, told, with_library};

const MIB: f64 = 1048576.0;

/// Files beside a program, whose names begin so.
fn files(prefix: &Path) -> Vec<PathBuf> {
    let name = prefix.file_name().expect("a name").to_string_lossy().into_owned();
    let dir = fs::read_dir(prefix.parent().expect("a directory")).expect("a directory");
    let files = dir.map(|file| file.expect("a file").path());
    files.filter(|file| file.file_name().is_some_and(|own| own.to_string_lossy().starts_with(&name))).collect()
}

/// Bytes that are not yet freed, under a function; by what the script says, which is `"NAME": [a, b, c, d]`.
fn live(file: &Path, function: &str) -> f64 {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/read_profile.py");
    let output = Command::new("python3").arg(script).arg(file).output().expect("python3");
    assert!(output.status.success(), "{}", told(&output));
    let text = String::from_utf8(output.stdout).expect("text");
    let total = text.split("\"total\": ").nth(1).expect("sums");
    let Some(row) = total.split(&format!("\"{function}\": [")).nth(1) else { return 0.0 };
    let values = row.split(']').next().expect("the end of a row");
    values.split(", ").nth(3).expect("four values").parse().expect("a number")
}

fn assert_near(told: f64, truth: f64, what: &str) {
    assert!((told / truth - 1.0).abs() < 0.2, "{what}: {told} for {truth}");
}

#[test]
fn a_profile_tells_who_has_how_much() {
    let program = compile("profile.c", &[]);
    for level in ["checked", "hardened"] {
        let prefix = program.with_extension(level);
        let options = format!("prof:true,prof_sample:16k,level:{level},prof_prefix:{}", prefix.display());
        let output = with_library(&program, &options).output().expect("the program runs");
        assert!(output.status.success() && output.stderr.is_empty(), "{}", told(&output));
        let [file] = &files(&prefix)[..] else { panic!("{:?}", files(&prefix)) };
        let live = |function: &str| live(file, function);
        assert_near(live("keeps_small"), 200_000.0 * 112.0, level);
        assert_near(live("keeps_large"), 30.0 * MIB, level);
        assert_near(live("keeps_aligned"), 2000.0 * if level == "checked" { 8192.0 } else { 12288.0 }, level);
        assert_near(live("grows"), 100.0 * 256_000.0, level);
        assert_near(live("leaks"), 100_000.0 * 224.0, level);
        assert!(live("comes_and_goes") + live("freed_elsewhere") < 1000.0, "{level}");
    }
    remove(&program);
}

#[test]
fn a_leak_report_names_who_asked() {
    let program = compile("profile.c", &[]);
    let output = with_library(&program, "leak_report:true,prof_sample:32k").output().expect("the program runs");
    let lines = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && lines.starts_with("pagemill: never freed: about "), "{}", told(&output));
    for function in ["keeps_small", "keeps_large", "keeps_aligned", "grows", "leaks"] {
        assert!(lines.contains(&format!("at {function} (")), "{function}: {lines}");
    }
    assert!(!lines.contains("comes_and_goes") && !lines.contains("at malloc"), "{lines}");
    remove(&program);
}

#[test]
fn a_signal_writes_a_file() {
    let program = compile("profile.c", &[]);
    let prefix = program.with_extension("asked");
    let options = format!("prof:true,prof_sample:64k,prof_signal:10,prof_prefix:{}", prefix.display());
    let mut run = with_library(&program, &options).arg("signal").stderr(Stdio::piped()).spawn().expect("it runs");
    let end = Instant::now() + Duration::from_secs(60);
    let file = loop {
        assert!(run.try_wait().expect("it is there").is_none() && Instant::now() < end, "no file");
        let written = files(&prefix).into_iter().find(|file| fs::metadata(file).is_ok_and(|file| file.len() != 0));
        match written {
            Some(file) => break file,
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    // The file is written in one go; after that it is closed.
    thread::sleep(Duration::from_millis(200));
    run.kill().expect("it waits for a signal");
    run.wait().expect("it has ended");
    assert!(file.to_string_lossy().ends_with(".0.signal.pb.gz"), "{file:?}");
    assert_near(live(&file, "keeps_large"), 30.0 * MIB, "by a signal");
    remove(&program);
}

/// A sample that is freed twice, or inside, is seen as any other object is.
#[test]
fn wrong_frees_of_samples_are_seen() {
    let program = compile("wrong_frees.c", &[]);
    let prefix = program.with_extension("prof");
    let options = format!("prof:true,prof_sample:1,prof_prefix:{}", prefix.display());
    for kind in ["double_at_once", "double_after_ten", "inside_16", "realloc_of_what_is_free"] {
        for bytes in ["40", "1000"] {
            let run = |how: &str| {
                with_library(&program, &options).args([kind, bytes, how]).output().expect("the program runs")
            };
            let (right, wrong) = (run("right"), run("wrong"));
            assert!(right.status.success() && right.stderr.is_empty(), "{kind} {bytes}: {}", told(&right));
            let line = String::from_utf8_lossy(&wrong.stderr);
            assert!(!wrong.status.success() && line.contains("pagemill: "), "{kind} {bytes}: {}", told(&wrong));
        }
    }
    remove(&program);
}

#[test]
fn what_is_promised_holds_for_samples() {
    if !is_full() {
        return println!("PAGEMILL_FULL is not set: SKIPPED");
    }
    let program = compile("conformance.c", &[]);
    let prefix = program.with_extension("prof");
    for level in ["checked", "hardened", "fast"] {
        let options = format!("prof:true,prof_sample:1,level:{level},prof_prefix:{}", prefix.display());
        assert!(run_cases(&program, |_| with_library(&program, &options)) != 0);
    }
    remove(&program);
}
