//! Link arguments of the kernels. They stand here and not in a configuration file, because an exported `RUSTFLAGS`
//! replaces the flags of a configuration file without a word.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=link.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let script = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("link.ld");
    // Kernels are the test targets of this package; whoever depends on the library links as he likes.
    for argument in [
        &format!("-T{}", script.display()),
        // The target's default is a static-pie, whose start nobody would relocate.
        "--no-pie",
        // Segments may share pages in the file: otherwise it is padded to 2 MiB.
        "-zmax-page-size=4096",
        "--build-id=none",
    ] {
        println!("cargo::rustc-link-arg-tests={argument}");
    }
}
