//! Known ways to take a heap over: none of them gets anything, at any level, and what frees wrongly is stopped.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::{cases, compile, remove, told, with_library};

/// Those that need a wrong free, which is seen at the call.
const WRONG_FREES: [&str; 7] = [
    "double_free_around_another",
    "double_free_over_full_lists",
    "double_free_with_the_mark_erased",
    "double_free_by_realloc",
    "false_block",
    "false_large_block",
    "free_inside",
];

#[test]
fn no_attack_gets_anything() {
    let program = compile("attacks.c", &[]);
    let attacks = cases(&program);
    assert!(WRONG_FREES.iter().all(|name| attacks.iter().any(|attack| attack == name)));
    for attack in &attacks {
        for level in ["checked", "hardened"] {
            let output = with_library(&program, &format!("level:{level}")).arg(attack).output().expect("it runs");
            let stopped = output.status.signal().is_some_and(|signal| [libc::SIGABRT, libc::SIGSEGV].contains(&signal));
            let wanted =
                if WRONG_FREES.contains(&attack.as_str()) { stopped } else { stopped || output.status.success() };
            assert!(wanted, "{attack} at {level}: {}", told(&output));
            // Where freeing is all that is wrong, the line says so.
            if WRONG_FREES.contains(&attack.as_str()) {
                assert!(told(&output).contains("pagemill: bad free: 0x"), "{attack} at {level}: {}", told(&output));
            }
        }
    }
    remove(&program);
}
