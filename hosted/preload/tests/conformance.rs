//! The functions of C and the operators of C++, each by the rules of its manual, at every level; the C library's own
//! heap is the control.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::{LEVELS, archive, compile, has_cpp, remove, run_cases, told, with_library, without_library};

fn at_every_level(source: &str) {
    let program = compile(source, &[]);
    assert!(run_cases(&program, |_| without_library(&program)) > 0);
    for level in LEVELS {
        run_cases(&program, |_| with_library(&program, &format!("level:{level}")));
    }
    remove(&program);
}

#[test]
fn functions() {
    at_every_level("conformance.c");
}

#[test]
fn operators() {
    if has_cpp() {
        at_every_level("operators.cpp");
    }
}

/// What rustc says an archive of Rust needs.
const OF_AN_ARCHIVE: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

#[test]
fn an_archive_in_c_and_in_cpp() {
    let archive = archive();
    let mut arguments = vec![archive.to_str().expect("a path of this project is text")];
    arguments.extend(OF_AN_ARCHIVE);
    let program = compile("archive.c", &arguments);
    for level in LEVELS {
        let on_archive = |_: &str| {
            let mut command = without_library(&program);
            command.env("PAGEMILL_CONF", format!("level:{level}"));
            command
        };
        assert_eq!(run_cases(&program, on_archive), 2);
    }
    for act in ["double", "new"] {
        let output = without_library(&program).arg(act).output().expect("the program runs");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{act}: {}", told(&output));
        let is_said = told(&output).contains("pagemill: bad free: 0x");
        assert_eq!(is_said, act == "double", "{act}: {}", told(&output));
    }
    remove(&program);
    if has_cpp() {
        let program = compile("operators.cpp", &arguments);
        run_cases(&program, |_| without_library(&program));
        remove(&program);
    }
}

/// Statically linked, nothing is loaded and nothing can be put before it.
#[test]
fn an_archive_in_a_static_program() {
    let archive = archive();
    let arguments = ["-static", "-DSTATIC", archive.to_str().expect("text"), "-lgcc_eh", "-lpthread", "-lm"];
    let program = compile("archive.c", &arguments);
    run_cases(&program, |_| without_library(&program));
    remove(&program);
}
