//! `PAGEMILL_CONF`: each option changes what it says, in a process of its own; what is none is one line, and the
//! program runs.
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use pagemill_hosted::{Format, Pagemill, options};

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// Runs one of the tests that are ignored here with these options.
fn with(conf: &str, test: &str) -> Output {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    program.env("PAGEMILL_CONF", conf).output().expect("a process")
}

/// The same, for one that must pass; answers what it wrote to its error output.
fn passes(conf: &str, test: &str) -> String {
    let output = with(conf, test);
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && out.contains("1 passed"), "{conf}, {test}: {out}{errors}");
    errors
}

/// Little and large, up and down.
#[test]
#[ignore = "run by others"]
fn it_lives() {
    let held: Vec<Vec<u8>> = (0..2000).map(|n| vec![n as u8; n * 7]).collect();
    assert!(held.iter().enumerate().all(|(n, block)| block.iter().all(|&byte| byte == n as u8)));
    assert_eq!(vec![1u8; 20 * MIB].len(), 20 * MIB);
    drop(held);
    common::adds_up(&A);
    // SAFETY: a look at what the system told the process when it began.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        println!("with more rights");
    }
}

#[test]
fn what_is_no_option_is_one_line_and_the_program_runs() {
    let bad = [
        ("thp:sometimes", "option `thp` is `sometimes`, expected late"),
        ("limit:much", "option `limit` is `much`, expected bytes"),
        ("abort", "option `abort` has no value"),
        ("lg_chunk:20", "there is no option `lg_chunk`, expected one of stats_print"),
        ("decay_ms:0", "option `decay_ms` is `0`, expected milliseconds"),
    ];
    for (conf, expected) in bad {
        let lines = passes(conf, "it_lives");
        let ours: Vec<_> = lines.lines().filter(|line| line.starts_with("pagemill: ")).collect();
        assert!(ours.len() == 1 && ours[0].contains(expected), "{conf}: {lines}");
    }
    let lines = passes(&bad.map(|(conf, _)| conf).join(","), "it_lives");
    assert_eq!(
        lines.lines().filter(|line| line.starts_with("pagemill: PAGEMILL_CONF: ")).count(),
        bad.len(),
        "{lines}"
    );
    for fine in ["", ",,", "level:fast,abort:true", "numa:local"] {
        assert_eq!(passes(fine, "it_lives"), "", "{fine}");
    }
}

#[test]
#[ignore = "run by others"]
fn it_frees_twice() {
    let layout = Layout::new::<[u64; 5]>();
    // SAFETY: the layout has a size.
    let object = unsafe { A.alloc(layout) };
    // SAFETY: allocated with this layout.
    unsafe { A.dealloc(object, layout) };
    // SAFETY: none; this is what is to be found.
    unsafe { A.dealloc(object, layout) };
    it_lives();
}

#[test]
fn abort_false_goes_on_after_a_wrong_free() {
    let ended = with("abort:true", "it_frees_twice");
    assert!(!ended.status.success(), "{ended:?}");
    for output in [ended.stderr, passes("abort:false", "it_frees_twice").into_bytes()] {
        let text = String::from_utf8_lossy(&output);
        assert_eq!(text.lines().filter(|line| line.starts_with("pagemill: ")).count(), 1, "{text}");
    }
}

#[test]
#[ignore = "run by others"]
fn it_drops_all_but_100_mib() {
    let keep: Vec<Vec<u8>> = (0..1000).map(|_| vec![1; MIB / 10]).collect();
    let drop_these: Vec<Vec<u8>> = (0..600).map(|_| vec![1; MIB / 10]).collect();
    drop(drop_these);
    // A share of 100 MiB; what is less than 8 MiB is never looked at.
    let bound = (100 * MIB / 1000 * options().dirty_per_mille()).max(8 * MIB);
    let dirty = A.stats().dirty_bytes;
    let slack = 8 * MIB;
    assert!(dirty < bound + slack && dirty + slack > bound.min(60 * MIB), "{dirty} dirty, bound {bound}");
    assert!(keep.iter().flatten().all(|&byte| byte == 1));
}

#[test]
fn dirty_share_is_what_stays() {
    ["dirty_share:0", "dirty_share:1/4", "dirty_share:50%", "dirty_share:100"]
        .into_iter()
        .for_each(|conf| assert_eq!(passes(conf, "it_drops_all_but_100_mib"), ""));
}

#[test]
#[ignore = "run by others"]
fn it_finds_an_end() {
    let mut held: Vec<Vec<u8>> = Vec::with_capacity(1000);
    while held.len() < 1000 {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            break;
        }
        held.push(block);
    }
    assert!((10..=40).contains(&held.len()), "{} MiB", held.len());
    drop(held);
    it_lives();
}

#[test]
fn reserve_is_all_there_is() {
    assert_eq!(passes("reserve:40m", "it_finds_an_end"), "");
}

#[test]
#[ignore = "run by others"]
fn it_finds_its_limit() {
    let limit = options().limit().expect("there is one");
    assert_eq!(A.stats().limit_bytes, Some(limit));
    it_finds_an_end();
    assert!(A.stats().used_bytes <= limit);
    options().set("limit", "none").expect("there always is");
    assert_eq!(vec![1u8; 100 * MIB].len(), 100 * MIB);
    let held = vec![1u8; 60 * MIB];
    let error = options().set("limit", "50m").expect_err("more is in use");
    assert!(error.to_string().contains("option `limit`: ") && error.to_string().contains("in use"), "{error}");
    assert_eq!((options().limit(), held.len()), (None, 60 * MIB));
    assert_eq!(vec![1u8; 100 * MIB].len(), 100 * MIB);
}

#[test]
fn limit_is_the_most_there_is() {
    assert_eq!(passes("limit:40m", "it_finds_its_limit"), "");
    // Without what the test itself needs it cannot run, and says so.
    let output = with("limit:4k", "it_lives");
    assert!(!output.status.success(), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("memory allocation of"), "{errors}");
}

/// Lines of the thread in the background's doing.
fn thread_names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it");
    let name = |task: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(task.ok()?.path().join("comm")).ok().map(|name| name.trim().to_owned())
    };
    tasks.filter_map(name).collect()
}

/// Waits until there is such a thread, or none; for a minute.
fn awaits_background(is_there: bool) -> bool {
    (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        thread_names().iter().any(|name| name == "pagemill") == is_there
    })
}

#[test]
#[ignore = "run by others"]
fn it_has_a_thread_in_the_background() {
    assert!(awaits_background(true), "{:?}", thread_names());
    options().set("background_thread", "false").expect("it ends");
    assert!(awaits_background(false));
    for period in ["86400000", "5"] {
        options().set("decay_ms", period).expect("a period");
    }
    assert!(awaits_background(false), "nobody wants it");
    options().set("background_thread", "true").expect("a thread");
    assert!(awaits_background(true));
    // One that sleeps for a day follows at once.
    options().set("decay_ms", "86400000").expect("a period");
    options().set("background_thread", "false").expect("it ends");
    assert!(awaits_background(false));
}

#[test]
#[ignore = "run by others"]
fn it_has_no_thread_in_the_background() {
    drop((0..600).map(|_| vec![1u8; MIB / 10]).collect::<Vec<_>>());
    assert!(!thread_names().iter().any(|name| name == "pagemill"));
}

#[test]
fn background_thread_is_one() {
    passes("background_thread:true,decay_ms:10", "it_has_a_thread_in_the_background");
    passes("background_thread:true,decay_ms:86400000", "it_has_a_thread_in_the_background");
    passes("decay_ms:10", "it_has_no_thread_in_the_background");
}

/// Bytes of huge pages of a heap that holds so many.
fn huge_bytes(held: usize) -> Option<usize> {
    let enabled = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
    if enabled.contains("[never]") {
        return None;
    }
    let held = vec![1u8; held];
    let bytes = A.stats().system.expect("Linux tells").huge_bytes;
    assert!(held.iter().all(|&byte| byte == 1));
    Some(bytes)
}

#[test]
#[ignore = "run by others"]
fn it_gets_no_huge_pages() {
    assert_eq!(huge_bytes(40 * MIB).unwrap_or(0), 0);
    options().set("thp", "always").expect("a choice");
    assert!(huge_bytes(200 * MIB).is_none_or(|bytes| bytes > 0));
}

#[test]
#[ignore = "run by others"]
fn it_gets_huge_pages_when_it_is_no_longer_small() {
    assert_eq!(huge_bytes(5 * MIB).unwrap_or(0), 0);
    assert!(huge_bytes(60 * MIB).is_none_or(|bytes| bytes > 0));
}

#[test]
#[ignore = "run by others"]
fn it_gets_huge_pages_at_once() {
    assert!(huge_bytes(5 * MIB).is_none_or(|bytes| bytes > 0));
}

#[test]
fn thp_says_which_pages() {
    passes("thp:never", "it_gets_no_huge_pages");
    passes("thp:late", "it_gets_huge_pages_when_it_is_no_longer_small");
    passes("thp:default", "it_gets_huge_pages_when_it_is_no_longer_small");
    passes("thp:always", "it_gets_huge_pages_at_once");
    // Where none are set aside there are others.
    passes("thp:explicit", "it_lives");
}

#[test]
fn numa_says_where_memory_comes_from() {
    for conf in ["numa:interleave", "numa:bind:0", "numa:preferred:0", "numa:interleave,thp:explicit"] {
        assert_eq!(passes(conf, "it_lives"), "", "{conf}");
    }
    let lines = passes("numa:bind:1000", "it_lives");
    assert_eq!(lines, "pagemill: PAGEMILL_CONF: option `numa`: the process has no memory of that node\n");
}

/// Whether the system can get pages before they are touched.
fn can_prefault() -> bool {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping wherever the kernel wants touches nothing that exists.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, flags, -1, 0) };
    // SAFETY: the page just mapped.
    page != libc::MAP_FAILED && unsafe { libc::madvise(page, 4096, libc::MADV_POPULATE_WRITE) } == 0
}

fn resident_bytes() -> usize {
    A.stats().system.expect("Linux tells").resident_bytes
}

#[test]
#[ignore = "run by others"]
fn it_has_pages_that_nobody_has_touched() {
    assert!(!can_prefault() || resident_bytes() >= 4 * MIB, "{}", resident_bytes());
    it_lives();
}

#[test]
#[ignore = "run by others"]
fn it_has_the_pages_that_were_touched() {
    assert!(resident_bytes() < 2 * MIB, "{}", resident_bytes());
    // In sum no more than a part of what is in use.
    let held: Vec<Vec<u8>> = (0..60_000).map(|n| vec![1; 1000 + n % 7]).collect();
    assert!(resident_bytes() < 72 * MIB, "{}", resident_bytes());
    options().set("prefault", "off").expect("an option");
    drop(held);
    it_lives();
}

#[test]
fn prefault_gets_pages_early() {
    assert_eq!(passes("prefault:4m,thp:never", "it_has_pages_that_nobody_has_touched"), "");
    assert_eq!(passes("prefault:1,thp:never", "it_has_the_pages_that_were_touched"), "");
    assert_eq!(passes("prefault:auto,thp:never", "it_has_the_pages_that_were_touched"), "");
    assert_eq!(passes("prefault:off,thp:never", "it_has_the_pages_that_were_touched"), "");
}

#[test]
fn what_address_space_there_is_bounds_a_reservation() {
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 600000 && exec \"$0\" --exact it_lives --ignored --nocapture --test-threads 1"])
        .arg(std::env::current_exe().expect("it runs"))
        .env("PAGEMILL_CONF", "reserve:1t,limit:200m,prefault:auto")
        .output()
        .expect("a process");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// A program with more rights than who starts it does not do what he wants.
#[test]
fn programs_with_more_rights_read_no_options() {
    // SAFETY: a number of the process.
    if unsafe { libc::geteuid() } != 0 {
        return println!("only root can give a program more rights");
    }
    let program = std::env::temp_dir().join(format!("pagemill-options-{}", std::process::id()));
    std::fs::copy(std::env::current_exe().expect("it runs"), &program).expect("a copy");
    for (rights, lines) in [(0o755, 1), (0o4755, 0)] {
        std::fs::set_permissions(&program, Permissions::from_mode(rights)).expect("it is ours");
        let mut command = Command::new(&program);
        command.args(["--exact", "it_lives", "--ignored", "--nocapture", "--test-threads", "1"]);
        match command.uid(65534).env("PAGEMILL_CONF", "nothing:1").current_dir("/").output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stderr);
                // A place where programs get no more rights is no place for this.
                let is_secure = String::from_utf8_lossy(&output.stdout).contains("more rights");
                let expected = if rights == 0o4755 && !is_secure { 1 } else { lines };
                assert_eq!(text.matches("pagemill: PAGEMILL_CONF").count(), expected, "{rights:o}: {text}");
            }
            Err(error) => println!("nobody else can run it there: {error}"),
        }
    }
    std::fs::remove_file(program).expect("it is there");
}

/// What a real parser makes of a line of JSON.
fn parsed(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

#[test]
fn stats_print_is_an_account_at_exit() {
    let text = passes("stats_print:true", "it_lives");
    for word in ["the heap of process ", "memory ", "given back", "node 0", "heap-16 ", "bytes lent of"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let json = parsed(&passes("stats_print:json,limit:300m", "it_lives"));
    let heap = &json["heaps"][0];
    assert_eq!((&heap["level"], &heap["limit_bytes"]), (&"checked".into(), &(300 * MIB).into()), "{json}");
    let number = |name: &str| heap[name].as_u64().unwrap_or_else(|| panic!("no {name} in {json}"));
    assert_eq!(number("memory_bytes"), number("used_bytes") + number("free_bytes"));
    assert!(number("mapped_bytes") >= number("memory_bytes") && number("lost_at_fork") == 0);
    assert!(heap["system"]["faults"].as_u64().is_some_and(|faults| faults > 100), "{json}");
    assert_eq!(heap["nodes"][0]["managed_bytes"], number("mapped_bytes"), "{json}");
    let classes = heap["classes"].as_array().expect("classes");
    let sum = |name: &str| classes.iter().map(|class| class[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(sum("slab_bytes"), number("slab_bytes"));
    assert!(sum("live") > 0 && sum("slots") >= sum("live") + sum("free"), "{json}");
}

#[test]
fn an_account_can_be_had_at_any_time() {
    let mut json = String::new();
    A.write_report(&mut json, Format::Json).expect("there is room");
    assert_eq!(parsed(&json)["heaps"].as_array().map(Vec::len), Some(1));
    // The other levels' heaps have never been used.
    let mut json = String::new();
    Pagemill::<pagemill::Fast>::new().write_report(&mut json, Format::Json).expect("there is room");
    assert_eq!(parsed(&json)["heaps"].as_array().map(Vec::len), Some(0));
    // Whoever has no room is told so.
    struct Full;
    impl std::fmt::Write for Full {
        fn write_str(&mut self, _: &str) -> std::fmt::Result {
            Err(std::fmt::Error)
        }
    }
    assert!(pagemill_hosted::write_report(&mut Full, Format::Text).is_err());
}
