//! A plug-in with a heap of its own, loaded and unloaded by a program that has another.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

use std::env;
use std::ffi::CString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;
use std::thread;

/// The library. Cargo makes no examples for a single test, so it is made here, in the profile of this test.
fn plugin() -> CString {
    let program = env::current_exe().expect("it runs");
    let dir = program.ancestors().nth(2).expect("it lies in `deps` of a profile");
    let profile = match dir.file_name().and_then(|name| name.to_str()).expect("a profile has a name") {
        "debug" => "dev",
        name => name,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--example", "plugin", "--profile", profile, "--target-dir"]);
    cargo.arg(dir.parent().expect("a profile lies in a target directory"));
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "the plug-in cannot be built");
    let library: PathBuf = dir.join("examples/libplugin.so");
    CString::new(library.into_os_string().into_encoded_bytes()).expect("a path")
}

/// What a thread that has used it calls at its end is code of the plug-in.
#[test]
fn a_thread_that_has_used_it_ends_after_it_was_unloaded() {
    let path = plugin();
    for count in 1..4 {
        // SAFETY: a library that does nothing when it is loaded but look after its heap.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{path:?} cannot be loaded");
        // SAFETY: the library is there.
        let sum = unsafe { libc::dlsym(library, c"pagemill_plugin_sum".as_ptr()) };
        assert!(!sum.is_null());
        // SAFETY: the function of this name is of this type.
        let sum = unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn(usize) -> usize>(sum) };
        let (has_used_it, is_unloaded) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            let user = scope.spawn(|| {
                assert_eq!(sum(100 * count), 100 * count * (100 * count - 1) / 2);
                has_used_it.wait();
                is_unloaded.wait();
            });
            has_used_it.wait();
            // SAFETY: nobody calls it any more, by whatever name.
            assert_eq!(unsafe { libc::dlclose(library) }, 0);
            is_unloaded.wait();
            // Its keys' destructors come before this, and after all else that it does.
            user.join().expect("no panic");
        });
    }
}
