//! How the shared library is linked.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // Never unloaded: threads have its words, and keys its destructors, until the process ends.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        // What calls `malloc` in here means this one.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic-functions");
        place_code();
        take_unwinder_in();
    }
}

/// Has what a process runs together lie together, if the linker understands how `text.ld` says so: `ld` and `lld` do.
fn place_code() {
    println!("cargo:rerun-if-changed=text.ld");
    let [flags, linker] = ["CARGO_ENCODED_RUSTFLAGS", "RUSTC_LINKER"].map(|name| env::var(name).unwrap_or_default());
    if ["mold", "gold", "wild"].iter().any(|other| flags.contains(other) || linker.contains(other)) {
        return;
    }
    let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-T,{directory}/text.ld");
}

/// Has the unwinder, which the standard library needs, within the library, if there is an archive of it: else each
/// process would load `libgcc_s`.
fn take_unwinder_in() {
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let linker = env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into());
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() != Ok("gnu") || env::var("HOST") != env::var("TARGET") {
        return;
    }
    let Ok(answer) = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output() else { return };
    let archive = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
    // What is not found is answered as it was asked for, without a directory.
    if Path::new(&archive).is_absolute() {
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}
