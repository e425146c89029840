//! Systems that say no: each request for memory is served or gets null, nothing crashes, nothing hangs, and afterwards
//! the heap adds up and serves.
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex};
use std::{io, thread};

use pagemill_hosted::{Origin, Pagemill, Topology, WithHandlers};

type Level = WithHandlers<pagemill::Checked>;

#[global_allocator]
static A: Pagemill<Level> = Pagemill::new();

const MIB: usize = 1 << 20;

/// What every program does: little and large, up and down, on several threads.
fn live() {
    let work = |seed: usize| {
        for round in 0..3 {
            let mut held: Vec<Vec<u8>> = (0..4000).map(|n| vec![1; (n * 37 + seed + round) % 3000]).collect();
            held.push(vec![2; 9 * MIB]);
            held.extend((0..8).map(|n| vec![3; 40_000 * (n + 1)]));
            let mut growing = Vec::new();
            while growing.len() < 3 * MIB {
                growing.extend_from_slice(&[4; 10_000]);
            }
            held.retain(|block| block.len() % 2 == 0);
            assert!(held.iter().flatten().all(|&byte| (1..4).contains(&byte)));
            let zeroed = vec![0u8; 5 * MIB];
            assert!(zeroed.iter().all(|&byte| byte == 0) && growing.iter().all(|&byte| byte == 4));
        }
    };
    // Joined one by one, since that waits for their pools to be empty; the end of a scope does not.
    let threads: Vec<_> = (0..3).map(|seed| thread::spawn(move || work(seed))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
    A.trim();
    A.tick();
    assert!(A.stats().to_string().contains("memory"));
    common::adds_up(&A);
}

/// Makes the kernel refuse these calls, with this error, to the calling thread and all that comes of it.
fn refuse(calls: &[libc::c_long], error: libc::c_int) -> io::Result<()> {
    let statement = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first word of what the filter sees.
    let mut program = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for &call in calls {
        program.push(statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32));
        program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: a flag of the process.
    let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program is read during the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    if bound == 0 && set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Runs one of the tests that are ignored here in a process of its own, which `prepare` has made what it is.
/// Answers what it has printed.
fn alone(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> String {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    // SAFETY: what runs between `fork` and `exec` only makes system calls, and allocates, which pagemill can there.
    unsafe { program.pre_exec(prepare) };
    let output = program.output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
    text
}

/// Run by others, in a process that something was done to.
#[test]
#[ignore = "needs a system that says no"]
fn it_lives() {
    live();
}

#[test]
fn a_filter_that_refuses_advice_on_memory() {
    alone("it_lives", || refuse(&[libc::SYS_madvise], libc::EPERM));
}

#[test]
fn a_filter_that_refuses_moves_of_memory() {
    alone("it_lives", || refuse(&[libc::SYS_mremap], libc::ENOSYS));
}

#[test]
fn a_filter_that_refuses_placement_and_restartable_sequences() {
    alone("it_lives", || refuse(&[libc::SYS_mbind, libc::SYS_set_mempolicy, libc::SYS_rseq], libc::ENOSYS));
}

#[test]
fn a_filter_that_refuses_random_numbers() {
    alone("it_lives", || refuse(&[libc::SYS_getrandom], libc::ENOSYS));
}

#[test]
#[ignore = "changes what the process may do"]
fn it_lives_without_files() {
    // Younger machines have only the younger call.
    #[cfg(target_arch = "x86_64")]
    refuse(&[libc::SYS_open], libc::ENOENT).expect("a filter");
    refuse(&[libc::SYS_openat], libc::ENOENT).expect("another filter");
    assert_eq!(A.stats().system, None, "the system does not tell");
    live();
}

#[test]
fn files_that_nobody_may_open() {
    alone("it_lives_without_files", || Ok(()));
}

/// Lays an empty directory over `/proc` and `/sys`, for the calling process and all that comes of it.
fn hide_proc_and_sys() -> io::Result<()> {
    // SAFETY: the process gets a list of mounts of its own.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    let mount = |what: &CStr, place: &CStr, kind: &CStr, flags| {
        // SAFETY: three strings and no data, read during the call.
        unsafe { libc::mount(what.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) }
    };
    let hidden = unshared == 0
        && mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE) == 0
        && [c"/proc", c"/sys"].into_iter().all(|place| mount(c"none", place, c"tmpfs", 0) == 0);
    if hidden { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
#[ignore = "needs a system without them"]
fn it_lives_without_proc_and_sys() {
    assert!(!Path::new("/proc/self").exists() && !Path::new("/sys/devices").exists());
    assert_eq!(A.stats().system, None, "the system does not tell");
    assert_eq!(Topology::of_system().origin, Origin::Assumed);
    live();
}

#[test]
fn neither_proc_nor_sys() {
    // SAFETY: no pointer is involved.
    if unsafe { libc::geteuid() } != 0 {
        println!("only root can hide directories: see `files_that_nobody_may_open`");
        return;
    }
    alone("it_lives_without_proc_and_sys", hide_proc_and_sys);
}

#[test]
#[ignore = "locks all memory"]
fn it_lives_locked() {
    // SAFETY: a property of the process.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        println!("not allowed to lock all memory: {}", io::Error::last_os_error());
    }
    live();
}

#[test]
fn memory_that_is_locked() {
    alone("it_lives_locked", || Ok(()));
}

fn set_limit(which: libc::__rlimit_resource_t, bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the limit is read during the call.
    if unsafe { libc::setrlimit(which, &limit) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What root may do beyond its limits is a right that is taken from it here.
fn limit_locked(bytes: u64) -> io::Result<()> {
    const CAP_IPC_LOCK: libc::c_ulong = 14;
    // SAFETY: a property of the process. Who is not root has no such right.
    unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0) };
    set_limit(libc::RLIMIT_MEMLOCK, bytes)
}

#[test]
fn little_may_be_locked() {
    alone("it_lives_locked", || limit_locked(64 << 10));
}

/// A heap whose first request comes when everything new must be locked.
#[test]
#[ignore = "locks all memory"]
fn it_begins_locked() {
    static B: Pagemill<pagemill::Fast> = Pagemill::new();
    // SAFETY: a property of the process.
    assert_eq!(unsafe { libc::mlockall(libc::MCL_FUTURE) }, 0, "{}", io::Error::last_os_error());
    let layout = Layout::new::<[usize; 512]>();
    let counts = [(); 3].map(|()| {
        // SAFETY: the layout has bytes.
        let held: Vec<*mut u8> = (0..4096).map(|_| unsafe { B.alloc(layout) }).take_while(|o| !o.is_null()).collect();
        for &object in &held {
            // SAFETY: just lent.
            unsafe { object.write_bytes(1, layout.size()) };
            // SAFETY: as above, and not used any more.
            unsafe { B.dealloc(object, layout) };
        }
        held.len()
    });
    println!("served {counts:?}");
    assert!(counts.iter().all(|&count| count == counts[0]), "what was had once is there again: {counts:?}");
}

#[test]
fn a_heap_that_begins_when_little_may_be_locked() {
    let none = alone("it_begins_locked", || limit_locked(64 << 10));
    assert!(none.contains("served [0, 0, 0]"), "{none}");
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes the structure it is given, which outlives it.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) }, 0);
    if limit.rlim_max < 200 << 20 {
        println!("there is no right to lock 200 MiB");
        return;
    }
    let some = alone("it_begins_locked", || limit_locked(200 << 20));
    assert!(!some.contains("served [0, 0, 0]"), "{some}");
}

#[test]
fn little_address_space() {
    alone("it_lives", || set_limit(libc::RLIMIT_AS, 400 << 20));
}

/// A heap whose first request comes when the program has most of its address space.
#[test]
#[ignore = "maps most of a limited address space"]
fn it_begins_beside_much() {
    static B: Pagemill<pagemill::Fast> = Pagemill::new();
    let map = |bytes| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping wherever the kernel wants touches nothing that exists.
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) != libc::MAP_FAILED }
    };
    assert!(map(150 * MIB), "a quarter of what there may be was left beside the first heap");
    let layout = Layout::new::<[u8; 2 * MIB]>();
    // SAFETY: the layout has bytes.
    assert!(!unsafe { B.alloc(layout) }.is_null());
    let left = (0..).take_while(|_| map(MIB)).count();
    println!("{left} MiB are left");
    assert!(left >= 20, "{left}");
}

#[test]
fn much_is_left_beside_a_heap_that_comes_late() {
    alone("it_begins_beside_much", || set_limit(libc::RLIMIT_AS, 1 << 30));
}

/// Under strict overcommit what may be written counts when it is made so, as it does here.
#[test]
fn little_that_may_be_written() {
    alone("it_lives", || set_limit(libc::RLIMIT_DATA, 400 << 20));
}

/// The real thing, which is a property of the whole machine: in the long form only, by root, while little is committed,
/// and taken back by a shell that outlives the test.
#[test]
fn strict_overcommit() {
    const STRICT: &str = r#"
        file=/proc/sys/vm/overcommit_memory; before=$(cat $file) || exit 77
        set -- $(awk '/^CommitLimit|^Committed_AS/ { print $2 }' /proc/meminfo) "$@"
        [ "$(id -u)" = 0 ] && [ "$2" -lt $(($1 / 2)) ] || exit 77
        shift 2; trap 'echo "$before" > $file' EXIT; trap 'exit 1' INT TERM HUP
        echo 2 > $file || exit 77
        "$@""#;
    if std::env::var_os("PAGEMILL_FULL").is_none_or(|value| value.is_empty() || value == "0") {
        println!("not in the short form: see `little_that_may_be_written`");
        return;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", STRICT, "sh"]).arg(std::env::current_exe().expect("it runs"));
    let output = shell.args(["--exact", "it_lives", "--ignored", "--test-threads", "1"]).output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        println!("the machine's overcommit cannot be changed: {text}");
        return;
    }
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").map_or(0, |maps| maps.lines().count())
}

/// Large blocks that move, so that mappings split, and holes everywhere that are given back.
#[test]
#[ignore = "counts the mappings of the process"]
fn holes_and_moves() {
    let mut most = mappings();
    let before = most;
    let mut blocks: Vec<Vec<u8>> = (0..600).map(|_| vec![1; MIB]).collect();
    for round in 0..12 {
        for (number, block) in blocks.iter_mut().enumerate() {
            match (number + round) % 5 {
                // It can not grow where it is, as long as its neighbour is there.
                0 => block.reserve_exact(MIB * (1 + number % 3)),
                1 => *block = Vec::new(),
                2 => block.shrink_to(MIB / 2),
                3 if block.is_empty() => *block = vec![1; 64 << 10],
                _ if block.is_empty() => *block = vec![1; MIB],
                _ => {}
            }
            assert!(block.iter().step_by(4096).all(|&byte| byte == 1));
        }
        A.trim();
        most = most.max(mappings());
        assert!(A.stats().to_string().contains("memory"));
    }
    println!("{before} mappings before, {most} at most");
    // Linux allows 65530 by default.
    assert!(before > 0 && most < 10_000, "{most} mappings");
    drop(blocks);
    common::adds_up(&A);
}

#[test]
fn mappings_are_few() {
    alone("holes_and_moves", || Ok(()));
}

#[test]
#[ignore = "thousands of threads"]
fn ten_thousand_threads() {
    const THREADS: usize = 10_000;
    let started = AtomicUsize::new(0);
    let (is_full, end) = (Barrier::new(2), Gate::default());
    thread::scope(|scope| {
        let (started, is_full, end) = (&started, &is_full, &end);
        // Each starts the next, so that all are there at once and none is counted twice.
        fn start<'s>(
            scope: &'s thread::Scope<'s, '_>,
            left: usize,
            started: &'s AtomicUsize,
            is_full: &'s Barrier,
            end: &'s Gate,
        ) {
            let work = move || {
                let held: Vec<Box<[usize; 8]>> = (0..20).map(|n| Box::new([n; 8])).collect();
                started.fetch_add(1, Ordering::Relaxed);
                start(scope, left - 1, started, is_full, end);
                end.wait();
                assert!(held.iter().enumerate().all(|(n, words)| **words == [n; 8]));
            };
            let more = left > 0 && thread::Builder::new().stack_size(32 << 10).spawn_scoped(scope, work).is_ok();
            if !more {
                is_full.wait();
                end.wait();
            }
        }
        scope.spawn(move || start(scope, THREADS, started, is_full, end));
        is_full.wait();
        println!("{} threads", started.load(Ordering::Relaxed));
        assert!(started.load(Ordering::Relaxed) > 500, "the system gives no more");
        assert_eq!(A.heap().validate().err().filter(|error| error.to_string().contains("slab")), None);
        end.open();
    });
    live();
}

/// Closed until somebody opens it. Who waits there sleeps: of ten thousand that look again and again the last ones would
/// hardly start.
#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let is_open = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(is_open, |is_open| !*is_open).unwrap());
    }

    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

#[test]
fn as_many_threads_as_there_can_be() {
    alone("ten_thousand_threads", || Ok(()));
}

/// Objects that the handler got before there were no more.
static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn exhaust(_: libc::c_int) {
    let layout = Layout::new::<[usize; 4096]>();
    let mut last: *mut u8 = std::ptr::null_mut();
    loop {
        // SAFETY: the layout has bytes.
        let object = unsafe { A.alloc(layout) };
        if object.is_null() {
            break;
        }
        // SAFETY: just lent, and large enough for an address.
        unsafe { object.cast::<*mut u8>().write(last) };
        last = object;
        IN_HANDLER.fetch_add(1, Ordering::Relaxed);
    }
    while !last.is_null() {
        // SAFETY: written above.
        let next = unsafe { last.cast::<*mut u8>().read() };
        // SAFETY: lent above, and not used any more.
        unsafe { A.dealloc(last, layout) };
        last = next;
    }
}

#[test]
#[ignore = "limits the memory of the process"]
fn a_handler_uses_everything_up() {
    // SAFETY: an all-zero action is a valid one: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = exhaust as *const () as libc::sighandler_t;
    // SAFETY: the handler only allocates and frees, at a level that is made for it.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
    A.set_limit(40 * MIB).expect("little is in use");
    for _ in 0..20 {
        // SAFETY: the handler is installed.
        assert_eq!(unsafe { libc::raise(libc::SIGUSR1) }, 0);
    }
    let got = IN_HANDLER.load(Ordering::Relaxed);
    assert!(got > 20 * 500, "{got} objects of 32 KiB in 20 times 40 MiB");
    A.set_limit(usize::MAX).expect("there always is");
    live();
}

#[test]
fn exhaustion_in_a_signal_handler() {
    alone("a_handler_uses_everything_up", || Ok(()));
}
