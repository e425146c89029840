//! Profiles and leak reports, each of a process of its own that is known to have what it has.
#![cfg(all(target_os = "linux", feature = "profile"))]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::OsStr;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use std::{env, fs, mem, process, thread};

use pagemill_hosted::{Fast, Hardened, Pagemill, profile};
use serde_json::Value;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// The directory of one test's files, gone with it.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("pagemill-profile-{}-{test}", process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn prefix(&self) -> PathBuf {
        self.0.join("heap")
    }

    /// The files whose names have this in them.
    fn named(&self, part: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).expect("the directory").map(|file| file.expect("a file").path());
        let mut files: Vec<_> = files.filter(|file| file.to_string_lossy().contains(part)).collect();
        files.sort();
        files
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("nobody else removes it");
    }
}

/// Runs one of the tests that are ignored here with these options.
fn with(conf: &str, files: &Files, test: &str) -> Output {
    let mut program = Command::new(env::current_exe().expect("it runs"));
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    program.env("PAGEMILL_CONF", conf).env("FILES", files.prefix()).output().expect("a process")
}

/// The same, for one that must pass; answers what it wrote to its error output.
fn passes(conf: &str, files: &Files, test: &str) -> String {
    let output = with(conf, files, test);
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && out.contains("1 passed"), "{conf}, {test}: {out}{errors}");
    errors
}

/// Where a test in a process of its own is to write.
fn prefix() -> PathBuf {
    env::var_os("FILES").expect("who runs this says").into()
}

/// What another reader finds in a file.
struct Read(Value);

impl Read {
    fn of(path: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_profile.py");
        let output = Command::new("python3").arg(script).arg(path).output().expect("python3");
        assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
        Self(serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    /// The values of a function of this file, by what it is called here.
    fn values(&self, table: &str, function: &str) -> [f64; 4] {
        let (plain, generic) = (format!("profile::{function}"), format!("profile::{function}::<"));
        let rows = self.0[table].as_object().expect("functions").iter();
        let own = rows.filter(|(name, _)| **name == plain || name.starts_with(&generic));
        own.fold([0.0; 4], |sums, (_, row)| {
            [0, 1, 2, 3].map(|which| sums[which] + row[which].as_f64().expect("a number"))
        })
    }

    /// Bytes that are not yet freed, under a function.
    fn live(&self, function: &str) -> f64 {
        self.values("total", function)[3]
    }
}

fn assert_near(told: f64, truth: usize) {
    let truth = truth as f64;
    assert!((told / truth - 1.0).abs() < 0.2, "{told} for {truth}");
}

/// Each in a function of its own, which nothing else is called by.
macro_rules! named {
    ($($name:ident)*) => {$(
        #[inline(never)]
        fn $name<R>(work: impl FnOnce() -> R) -> R {
            black_box(work())
        }
    )*};
}
named!(keeps_small keeps_medium keeps_large lets_go leaks_behind_the_brief in_a_thread grows before_fork in_the_copy);

fn blocks(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    (0..count).map(|_| black_box(Vec::with_capacity(bytes))).collect()
}

#[test]
#[ignore = "run by others"]
fn it_has_much() {
    mem::forget(keeps_small(|| blocks(300_000, 112)));
    mem::forget(keeps_medium(|| blocks(6_000, 5_000)));
    mem::forget(keeps_large(|| blocks(60, MIB)));
    for _ in 0..20 {
        drop(lets_go(|| blocks(5_000, 320)));
    }
    leaks_behind_the_brief(|| {
        for _ in 0..200_000 {
            let brief = blocks(3, 48);
            drop(brief);
            mem::forget(black_box(Box::new([0u8; 48])));
        }
    });
}

#[test]
fn a_file_at_exit_tells_who_has_how_much() {
    let files = Files::new("exit");
    let conf = format!("prof:true,prof_sample:16k,prof_prefix:{}", files.prefix().display());
    assert_eq!(passes(&conf, &files, "it_has_much"), "");
    let written = files.named(".0.exit.pb.gz");
    assert_eq!(written.len(), 1, "{:?}", files.named(""));
    let read = Read::of(&written[0]);
    // The vectors of vectors are theirs as well.
    let vector = |count: usize| 24 * count;
    assert_near(read.live("keeps_small"), 300_000 * 112 + vector(300_000));
    assert_near(read.live("keeps_medium"), 6_000 * 5_120 + vector(6_000));
    assert_near(read.live("keeps_large"), 60 * MIB);
    assert_near(read.live("leaks_behind_the_brief"), 200_000 * 48);
    assert_eq!(read.live("lets_go"), 0.0);
    assert_near(read.values("total", "lets_go")[1], 20 * (5_000 * 320 + vector(5_000)));
    assert_near(read.values("total", "leaks_behind_the_brief")[2], 200_000);
    assert_eq!(
        read.0["types"].to_string(),
        r#"[["alloc_objects","count"],["alloc_space","bytes"],["inuse_objects","count"],["inuse_space","bytes"]]"#
    );
    assert_eq!((read.0["period"].as_u64(), read.0["default"].as_str()), (Some(16 << 10), Some("inuse_space")));
    let program = fs::canonicalize(env::current_exe().expect("it runs")).expect("a file");
    assert_eq!(read.0["program"].as_str().map(Path::new), Some(program.as_path()));
    let innermost = read.0["own"].as_object().expect("functions").keys();
    let allocator: Vec<_> = innermost.filter(|name| name.contains("pagemill")).collect();
    assert!(allocator.is_empty(), "who asks is innermost, not who is asked: {allocator:?}");
}

#[test]
fn a_program_whose_path_is_no_text_is_found() {
    let files = Files::new("path");
    let copy = files.0.join(OsStr::from_bytes(b"copy-\xff"));
    fs::copy(env::current_exe().expect("it runs"), &copy).expect("a copy");
    let conf = format!("prof:true,prof_sample:16k,prof_prefix:{}", files.prefix().display());
    // The harness wants to be called by a name that is text.
    let mut program = Command::new(&copy);
    let program = program.arg0("copy").args(["--exact", "it_has_much", "--ignored"]).env("PAGEMILL_CONF", conf);
    assert!(program.output().expect("a process").status.success());
    let read = Read::of(&files.named(".0.exit.pb.gz")[0]);
    let told = read.0["program"].as_str().expect("a path");
    assert!(told.ends_with("/copy-\u{fffd}") && read.0["build_id"] != "", "{told}");
    assert_near(read.live("keeps_large"), 60 * MIB);
}

#[test]
fn a_leak_report_names_who_asked() {
    let files = Files::new("leaks");
    let lines = passes("leak_report:true,prof_sample:32k", &files, "it_has_much");
    assert!(lines.starts_with("pagemill: never freed: about "), "{lines}");
    let first = lines.lines().nth(1).expect("the most");
    assert!(first.starts_with("  ") && first.contains(" MiB in "), "{first}");
    for name in ["keeps_large", "keeps_small", "keeps_medium", "leaks_behind_the_brief"] {
        assert!(lines.contains(&format!("at profile::{name}")), "{name}: {lines}");
    }
    assert!(!lines.contains("lets_go"), "{lines}");
    assert!(files.named("").is_empty(), "nobody asked for a file");
}

#[test]
#[ignore = "run by others"]
fn it_frees_a_sample_twice() {
    profile().start(1).expect("bytes");
    let layout = Layout::new::<[u64; 5]>();
    // SAFETY: the layout has a size.
    let object = unsafe { A.alloc(layout) };
    assert!(profile().totals().samples != 0);
    // SAFETY: allocated with this layout.
    unsafe { A.dealloc(object, layout) };
    // SAFETY: none; this is what is to be found.
    unsafe { A.dealloc(object, layout) };
}

#[test]
fn a_sample_that_is_freed_twice_is_found() {
    let output = with("", &Files::new("twice"), "it_frees_a_sample_twice");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("pagemill: "), "{errors}");
}

#[test]
#[ignore = "run by others"]
fn it_grows() {
    profile().start(16 << 10).expect("bytes");
    let file = |name: &str| prefix().with_extension(name);
    let first = grows(|| blocks(50_000, 160));
    profile().dump(file("first")).expect("a file");
    let second = grows(|| blocks(25_000, 160));
    drop(keeps_small(|| blocks(1_000, 160)));
    profile().dump_growth(file("more")).expect("a file");
    drop(first);
    profile().dump_growth(file("less")).expect("a file");
    drop(second);
    profile().stop();
    mem::forget(keeps_large(|| blocks(5, MIB)));
    profile().dump(file("last")).expect("a file");
    assert_eq!(profile().totals().sample_bytes, 0);
}

#[test]
fn growth_is_what_has_come_since_the_last_file() {
    let files = Files::new("growth");
    passes("", &files, "it_grows");
    let read = |name: &str| Read::of(&files.prefix().with_extension(name));
    assert_near(read("first").live("grows"), 50_000 * (160 + 24));
    let more = read("more");
    assert_near(more.live("grows"), 25_000 * (160 + 24));
    assert_eq!(more.live("keeps_small"), 0.0);
    assert_near(-read("less").live("grows"), 50_000 * (160 + 24));
    let last = read("last");
    assert_eq!((last.live("grows"), last.live("keeps_large")), (0.0, 0.0), "who has stopped sees frees alone");
}

#[test]
#[ignore = "run by others"]
fn it_lives_in_threads() {
    profile().start(16 << 10).expect("bytes");
    let (sender, receiver) = std::sync::mpsc::sync_channel(64);
    let other = thread::spawn(move || receiver.iter().filter(|block: &Vec<u8>| block.capacity() >= 64).count());
    thread::scope(|scope| {
        for number in 0..8 {
            let sender = sender.clone();
            scope.spawn(move || {
                for block in lets_go(|| blocks(40_000, 64 + number)) {
                    sender.send(block).expect("the other thread");
                }
                mem::forget(in_a_thread(|| blocks(10_000, 96)));
            });
        }
    });
    drop(sender);
    assert_eq!(other.join().expect("it counts"), 8 * 40_000);
    profile().dump(prefix()).expect("a file");
    A.heap().drain();
    profile().stop();
}

#[test]
fn what_other_threads_free_is_freed() {
    let files = Files::new("threads");
    passes("", &files, "it_lives_in_threads");
    let read = Read::of(&files.prefix());
    assert_near(read.live("in_a_thread"), 8 * 10_000 * (96 + 24));
    assert_eq!(read.live("lets_go"), 0.0);
}

#[test]
#[ignore = "run by others"]
fn it_is_asked_by_a_signal() {
    profile().start(16 << 10).expect("bytes");
    profile().dump_on_signal(libc::SIGUSR2, prefix()).expect("a handler");
    let refused = profile().dump_on_signal(libc::SIGKILL, prefix()).expect_err("nobody handles it");
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    let held = keeps_medium(|| blocks(3_000, 5_000));
    let path = prefix().parent().expect("a directory").to_owned();
    for number in 0..2 {
        // SAFETY: the handler has just been set.
        unsafe { libc::raise(libc::SIGUSR2) };
        let end = Instant::now() + Duration::from_secs(60);
        let name = format!("heap.{}.{number}.signal.pb.gz", process::id());
        // Written in one go, but not named then.
        while fs::metadata(path.join(&name)).map_or(0, |file| file.len()) == 0 {
            assert!(Instant::now() < end, "no {name}");
            thread::sleep(Duration::from_millis(20));
        }
    }
    // The other thread may be about to close the file.
    thread::sleep(Duration::from_millis(100));
    drop(held);
}

#[test]
fn a_signal_writes_a_file() {
    let files = Files::new("signal");
    passes("", &files, "it_is_asked_by_a_signal");
    let written = files.named(".signal.pb.gz");
    assert_eq!(written.len(), 2, "{written:?}");
    assert_near(Read::of(&written[1]).live("keeps_medium"), 3_000 * (5_120 + 24));
}

#[test]
#[ignore = "run by others"]
fn it_forks() {
    profile().start(4 << 10).expect("bytes");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let held = before_fork(|| blocks(20_000, 112));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(black_box(blocks(100, 320)));
                }
            });
        }
        for number in 0..40 {
            // SAFETY: the copy allocates, frees, writes a file and ends.
            match unsafe { libc::fork() } {
                0 => {
                    let more = in_the_copy(|| blocks(20_000, 112));
                    let written = number != 0 || profile().dump(prefix()).is_ok();
                    drop(more);
                    // SAFETY: a copy has nothing to do at the end.
                    unsafe { libc::_exit(if written { 0 } else { 1 }) };
                }
                copy => {
                    let mut status = 0;
                    // SAFETY: the status outlives the call.
                    assert_eq!(unsafe { libc::waitpid(copy, &mut status, 0) }, copy);
                    assert_eq!(status, 0);
                }
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(held);
}

#[test]
fn a_copy_goes_on_with_its_own_profile() {
    let files = Files::new("fork");
    passes("", &files, "it_forks");
    let read = Read::of(&files.prefix());
    assert_near(read.live("before_fork"), 20_000 * (112 + 24));
    assert_near(read.live("in_the_copy"), 20_000 * (112 + 24));
}

/// All levels at once: each has its heap, and there is one profile.
#[test]
#[ignore = "run by others"]
fn it_has_other_levels() {
    profile().start(16 << 10).expect("bytes");
    let lent = |heap: &dyn GlobalAlloc, count: usize, bytes: usize| {
        let layout = Layout::from_size_align(bytes, 8).expect("a layout");
        // SAFETY: the layout has a size.
        let lent: Vec<_> = (0..count).map(|_| unsafe { heap.alloc(layout) } as usize).collect();
        (lent, layout)
    };
    let (hardened, fast) = (Pagemill::<Hardened>::new(), Pagemill::<Fast>::new());
    let hard = keeps_small(|| lent(&hardened, 40_000, 104));
    let hard_large = keeps_medium(|| lent(&hardened, 40, MIB / 4));
    let small = lets_go(|| lent(&fast, 40_000, 112));
    let large = keeps_large(|| lent(&fast, 40, MIB / 4));
    profile().dump(prefix()).expect("a file");
    let free = |heap: &dyn GlobalAlloc, (lent, layout): (Vec<usize>, Layout)| {
        // SAFETY: lent by this heap for this layout.
        lent.into_iter().for_each(|object| unsafe { heap.dealloc(object as *mut u8, layout) });
    };
    free(&hardened, hard);
    free(&hardened, hard_large);
    free(&fast, small);
    free(&fast, large);
    hardened.heap().drain();
    fast.heap().drain();
    assert!(hardened.heap().validate().is_ok() && fast.heap().validate().is_ok());
    profile().dump(prefix().with_extension("freed")).expect("a file");
}

#[test]
fn other_levels_are_in_the_profile_as_far_as_they_say() {
    let files = Files::new("levels");
    passes("", &files, "it_has_other_levels");
    let read = Read::of(&files.prefix());
    let addresses = |count: usize| 8 * count;
    assert_near(read.live("keeps_small"), 40_000 * 112 + addresses(40_000));
    assert_near(read.live("keeps_medium"), 40 * MIB / 4);
    assert_near(read.live("keeps_large"), 40 * MIB / 4);
    assert!(read.live("lets_go") <= 2.0 * addresses(40_000) as f64, "small objects of `Fast` are not sampled");
    let freed = Read::of(&files.prefix().with_extension("freed"));
    for name in ["keeps_small", "keeps_medium", "keeps_large"] {
        assert_eq!(freed.live(name), 0.0, "{name}");
    }
}

#[test]
fn a_gap_of_nothing_is_refused() {
    assert_eq!(profile().start(0).expect_err("no gap").kind(), std::io::ErrorKind::InvalidInput);
}
