//! A process that may not have much address space gets an error value, and goes on.
#![cfg(target_os = "linux")]

use std::process::Command;

use pagemill::Checked;
use pagemill_hosted::{MachineBuilder, MachineError, Topology};

fn machine(text: &str) -> Result<(), MachineError> {
    MachineBuilder::new(Topology::parse(text).unwrap()).build::<Checked>().map(|_| ())
}

/// Run by the test below, in a process of its own.
#[test]
#[ignore = "needs a limit on address space"]
fn under_a_limit() {
    let error = machine("cpus 0 64G").unwrap_err();
    assert!(matches!(error, MachineError::Map(map) if map.limit == Some(4_000_000 << 10)), "{error:?}");
    assert!(error.to_string().contains("ulimit -v"), "{error}");
    // What fits is served.
    machine("cpus 0 1G").unwrap();
}

#[test]
fn too_little_address_space_is_an_error_value() {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 4000000 && exec \"$0\" --exact under_a_limit --ignored --test-threads 1"])
        .arg(program)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
