//! What C programs ask of the library at run time, by `pagemill.h`, and what whoever starts them does by
//! `PAGEMILL_CONF`.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use common::{LEVELS, compile, remove, run_cases, told, with_library, without_library};

#[test]
fn a_program_asks_and_changes() {
    let include = concat!("-I", env!("CARGO_MANIFEST_DIR"), "/../include");
    let program = compile("control.c", &[include]);
    assert_eq!(run_cases(&program, |_| without_library(&program)), 6);
    for level in LEVELS {
        run_cases(&program, |_| with_library(&program, &format!("level:{level},decay_ms:321")));
    }
    remove(&program);
}

#[test]
fn who_starts_a_program_gets_an_account_and_lines() {
    let program = compile("conformance.c", &[]);
    let case = common::cases(&program).into_iter().next().expect("there are some");
    let run = |options: &str| with_library(&program, options).arg(&case).output().expect("the program runs");
    for level in LEVELS {
        let output = run(&format!("stats_print:true,level:{level}"));
        assert!(output.status.success() && told(&output).contains(&format!("at level {level}")), "{}", told(&output));
        let output = run(&format!("stats_print:json,level:{level}"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with("{\"pagemill\":") && text.lines().count() == 1, "{text}");
    }
    let output = run("levle:fast,thp:maybe,limit:1g");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.lines().count() == 2, "{}", told(&output));
    assert!(text.contains("there is no option `levle`") && text.contains("option `thp` is `maybe`"), "{text}");
    remove(&program);
}
