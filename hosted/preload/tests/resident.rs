//! What a small program has in memory of the library.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use common::{LEVELS, compile, library, remove, run_cases, with_library};

/// Whether functions have names with their level in them, by which they are placed. Exported `RUSTFLAGS` replace those
/// of the workspace, which say so.
fn is_named_by_level() -> bool {
    let name = b"12WithHandlersE";
    let bytes = std::fs::read(library()).expect("the library is there");
    bytes.windows(name.len()).any(|window| window == name)
}

#[test]
fn a_process_has_the_code_of_its_level_in_memory() {
    if !is_named_by_level() {
        println!("functions are not named by their levels: SKIPPED");
        return;
    }
    let program = compile("resident.c", &[]);
    for level in LEVELS {
        assert_eq!(run_cases(&program, |_| with_library(&program, &format!("level:{level}"))), 2);
    }
    remove(&program);
}
