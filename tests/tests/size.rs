//! How much code a kernel takes up with what it uses of pagemill: whole programs for bare metal, built as a kernel
//! would be, with fat LTO. All their code and constants count, also what is not pagemill's own.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

const MILL: &str = env!("CARGO_BIN_EXE_mill");
const TARGET: &str = "x86_64-unknown-none";
const KIB: u64 = 1 << 10;

/// A program, how it is optimised, and the most bytes of code and constants it may have.
struct Limit {
    program: &'static str,
    opt_level: &'static str,
    bytes: u64,
}

const LIMITS: &[Limit] = &[
    // One CPU, one node, a heap: what the smallest kernels need. The promise is 24 KiB; it takes half of that.
    Limit { program: "size-tiny", opt_level: "s", bytes: 12 * KIB },
    Limit { program: "size-tiny", opt_level: "3", bytes: 24 * KIB },
    // Frames for one CPU and one node, and the full heap over them: no promise, but growth is seen.
    Limit { program: "size-frames", opt_level: "s", bytes: 48 * KIB },
    Limit { program: "size-heap", opt_level: "s", bytes: 96 * KIB },
];

struct Size {
    code: u64,
    constants: u64,
    /// Code in functions of pagemill, as far as they were not inlined into others.
    own: u64,
}

/// Builds programs for the bare target, in a directory of their own, so that no other build is replaced.
fn build(programs: &[&str], opt_level: &str) -> Vec<Size> {
    let target_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("size-{opt_level}"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    command.args(["build", "--quiet", "--release", "--package", "pagemill-tests", "--no-default-features"]);
    command.args(["--target", TARGET, "--target-dir"]).arg(&target_dir);
    for program in programs {
        command.args(["--bin", program]);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        // Flags of the outer run are meant for the host, and settings of a profile would be measured here.
        if name.ends_with("RUSTFLAGS") || name.starts_with("CARGO_PROFILE_") || name == "CARGO_BUILD_TARGET" {
            command.env_remove(&*name);
        }
    }
    command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", opt_level);
    assert!(command.status().unwrap().success(), "the programs do not build");
    let built = target_dir.join(TARGET).join("release");
    programs.iter().map(|program| size(&built.join(program))).collect()
}

fn size(program: &Path) -> Size {
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let sum = |kinds: &[SectionKind]| {
        let wanted = file.sections().filter(|section| kinds.contains(&section.kind()));
        wanted.map(|section| section.size()).sum()
    };
    let is_own = |name: &str| name.contains("pagemill");
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    Size {
        code: sum(&[SectionKind::Text]),
        constants: sum(&[SectionKind::ReadOnlyData, SectionKind::ReadOnlyString, SectionKind::ReadOnlyDataWithRel]),
        own: functions.filter(|symbol| symbol.name().is_ok_and(is_own)).map(|symbol| symbol.size()).sum(),
    }
}

#[test]
fn kernels_keep_to_their_limits() {
    let ensured = Command::new(MILL).args(["ensure", TARGET]).status().unwrap();
    assert!(ensured.success(), "there is no {TARGET} to build for");
    let mut too_large = Vec::new();
    for opt_level in ["s", "3"] {
        let limits: Vec<_> = LIMITS.iter().filter(|limit| limit.opt_level == opt_level).collect();
        let programs: Vec<_> = limits.iter().map(|limit| limit.program).collect();
        for (limit, size) in limits.iter().zip(build(&programs, opt_level)) {
            let Size { code, constants, own } = size;
            let what =
                format!("{}, opt-level {opt_level}: {code} bytes of code and {constants} of constants", limit.program);
            println!("{what}; {own} in functions of pagemill, of {} allowed", limit.bytes);
            assert!(code > 2 * KIB && own > KIB, "{what}: there is nothing in it");
            if code + constants > limit.bytes {
                too_large.push(what);
            }
        }
    }
    assert!(too_large.is_empty(), "{too_large:#?}");
}
