//! What a small program has in memory of the library.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use common::{LEVELS, compile, remove, run_cases, with_library};

#[test]
fn a_process_has_the_code_of_its_level_in_memory() {
    let program = compile("resident.c", &[]);
    for level in LEVELS {
        assert_eq!(run_cases(&program, |_| with_library(&program, &format!("level:{level}"))), 2);
    }
    remove(&program);
}
