//! The C interface: what a C program gets from each function, and that its compiler takes the header.
#![cfg(target_os = "linux")]

use std::ffi::{CStr, CString, c_char, c_int};
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::Command;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

pagemill_hosted::export_c!();

mod declared {
    use super::{c_char, c_int};

    // As the header has them.
    unsafe extern "C" {
        pub(super) fn pagemill_get(name: *const c_char, value: *mut c_char, bytes: usize) -> c_int;
        pub(super) fn pagemill_set(name: *const c_char, value: *const c_char) -> c_int;
        pub(super) safe fn pagemill_report(file: c_int, format: c_int) -> c_int;
        pub(super) fn pagemill_stat(name: *const c_char, value: *mut u64) -> c_int;
        pub(super) safe fn pagemill_trim() -> usize;
        #[cfg(feature = "profile")]
        pub(super) fn pagemill_dump(path: *const c_char) -> c_int;
    }
}

fn get(name: &str, bytes: usize) -> (c_int, String) {
    let name = CString::new(name).expect("no 0");
    let mut value = [b'?' as c_char; 64];
    // SAFETY: a string, and more room than is said.
    let error = unsafe { declared::pagemill_get(name.as_ptr(), value.as_mut_ptr(), bytes) };
    value[63] = 0;
    // SAFETY: a string that ends there at the latest.
    let text = unsafe { CStr::from_ptr(value.as_ptr()) };
    (error, text.to_string_lossy().into_owned())
}

fn set(name: &str, value: &str) -> c_int {
    let [name, value] = [name, value].map(|text| CString::new(text).expect("no 0"));
    // SAFETY: two strings.
    unsafe { declared::pagemill_set(name.as_ptr(), value.as_ptr()) }
}

fn stat(name: &str) -> Result<u64, c_int> {
    let name = CString::new(name).expect("no 0");
    let mut value = 0;
    // SAFETY: a string, and a place for the number.
    let error = unsafe { declared::pagemill_stat(name.as_ptr(), &mut value) };
    if error == 0 { Ok(value) } else { Err(error) }
}

#[test]
fn options_are_told_and_changed() {
    assert_eq!(set("dirty_share", "1/4"), 0);
    assert_eq!(get("dirty_share", 64), (0, "25.0%".into()));
    assert_eq!(get("dirty_share", 3), (libc::ERANGE, "25".into()));
    assert_eq!(get("dirty_share", 1), (libc::ERANGE, String::new()));
    assert_eq!(get("dirty_share", 0).0, libc::EINVAL);
    assert_eq!(get("prof_prefix", 64), (0, "pagemill".into()));
    assert_eq!(get("nothing", 64).0, libc::ENOENT);
    assert_eq!(
        [set("nothing", "1"), set("limit", "x"), set("level", "fast")],
        [libc::ENOENT, libc::EINVAL, libc::EPERM]
    );
    let held = vec![1u8; 80 << 20];
    assert_eq!([set("limit", "20m"), set("limit", "300m")], [libc::EBUSY, 0]);
    assert_eq!((get("limit", 64), stat("limit_bytes")), ((0, (300 << 20).to_string()), Ok(300 << 20)));
    drop(held);
    assert_eq!(set("limit", "none"), 0);
    assert_eq!(stat("limit_bytes"), Ok(u64::MAX));
    let null = std::ptr::null();
    // SAFETY: null is allowed.
    assert_eq!(unsafe { declared::pagemill_set(c"limit".as_ptr(), null) }, libc::EINVAL);
    // SAFETY: as above.
    assert_eq!(unsafe { declared::pagemill_get(null, std::ptr::null_mut(), 5) }, libc::EINVAL);
    // SAFETY: as above.
    assert_eq!(unsafe { declared::pagemill_stat(c"faults".as_ptr(), std::ptr::null_mut()) }, libc::EINVAL);
}

#[test]
fn numbers_have_names() {
    let held = vec![1u8; 30 << 20];
    for name in ["memory_bytes", "mapped_bytes", "used_bytes", "resident_bytes"] {
        assert!(stat(name).is_ok_and(|bytes| bytes >= held.len() as u64), "{name}: {:?}", stat(name));
    }
    for name in ["free_bytes", "dirty_bytes", "kept_bytes", "given_back_bytes", "moved_bytes", "lost_at_fork"] {
        assert!(stat(name).is_ok(), "{name}");
    }
    for name in ["huge_bytes", "locked_bytes", "swapped_bytes", "mappings", "faults"] {
        assert!(stat(name).is_ok(), "{name}");
    }
    assert_eq!(stat("faults_of_mine"), Err(libc::ENOENT));
    let before = stat("given_back_bytes").expect("a number");
    drop(held);
    assert!(declared::pagemill_trim() > 0);
    assert!(stat("given_back_bytes").is_ok_and(|bytes| bytes >= before + (20 << 20)));
}

#[test]
fn an_account_goes_to_a_file() {
    for (format, beginning) in [(0, "pagemill "), (1, "{\"pagemill\":")] {
        let mut files = [0; 2];
        // SAFETY: room for both.
        assert_eq!(unsafe { libc::pipe(files.as_mut_ptr()) }, 0);
        // SAFETY: opened just now, and nobody else's.
        let [mut from, to] = files.map(|file| unsafe { std::fs::File::from_raw_fd(file) });
        assert_eq!(declared::pagemill_report(to.as_raw_fd(), format), 0);
        drop(to);
        let mut text = String::new();
        from.read_to_string(&mut text).expect("what was written");
        assert!(text.starts_with(beginning), "{text}");
    }
    assert_eq!([declared::pagemill_report(-1, 0), declared::pagemill_report(2, 7)], [libc::EIO, libc::EINVAL]);
}

#[test]
#[cfg(feature = "profile")]
fn profiles_are_written() {
    let path = std::env::temp_dir().join(format!("pagemill-c-{}.pb.gz", std::process::id()));
    let name = CString::new(path.to_str().expect("a plain path")).expect("no 0");
    assert_eq!(set("prof", "true"), 0);
    let held = vec![1u8; 10 << 20];
    // SAFETY: a string.
    let error = unsafe { declared::pagemill_dump(name.as_ptr()) };
    assert_eq!((error, set("prof", "false"), held.len()), (0, 0, 10 << 20));
    let written = std::fs::read(&path).expect("a file");
    assert!(written.starts_with(&[0x1f, 0x8b]), "compressed by gzip");
    std::fs::remove_file(path).expect("it is there");
    // SAFETY: a string.
    let error = unsafe { declared::pagemill_dump(c"/nowhere/at/all".as_ptr()) };
    assert_eq!(error, libc::ENOENT);
}

#[test]
fn compilers_take_the_header() {
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    let program =
        "#include <pagemill.h>\n#include <pagemill.h>\nint main(void) { return pagemill_report(2, PAGEMILL_JSON); }\n";
    let path = std::env::temp_dir().join(format!("pagemill-header-{}.c", std::process::id()));
    std::fs::write(&path, program).expect("a place for it");
    for (compiler, language) in [("cc", ["-x", "c", "-std=c99"]), ("c++", ["-x", "c++", "-std=c++11"])] {
        let mut compiler = Command::new(compiler);
        compiler.args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-I", include]).args(language);
        match compiler.arg(&path).output() {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => println!("no {compiler:?}: {error}"),
        }
    }
    std::fs::remove_file(path).expect("it is there");
}
