//! Systems that say no: each request for memory is served or gets null, nothing crashes, nothing hangs, and afterwards the
//! heap adds up and serves.
#![cfg(target_os = "linux")]

use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, thread};

use pagemill_hosted::{Pagemill, WithHandlers};

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
    A.heap().validate().expect("a heap that adds up");
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
fn alone(test: &str, prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(["--exact", test, "--ignored", "--nocapture", "--test-threads", "1"]);
    // SAFETY: what runs between `fork` and `exec` only makes system calls, and allocates, which pagemill can there.
    unsafe { program.pre_exec(prepare) };
    let output = program.output().expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
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
    refuse(&[libc::SYS_open, libc::SYS_openat], libc::ENOENT).expect("a filter");
    assert_eq!(A.stats().system, None, "the system does not tell");
    live();
}

#[test]
fn neither_proc_nor_sys() {
    alone("it_lives_without_files", || Ok(()));
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

#[test]
fn little_may_be_locked() {
    alone("it_lives_locked", || set_limit(libc::RLIMIT_MEMLOCK, 64 << 10));
}

#[test]
fn little_address_space() {
    alone("it_lives", || set_limit(libc::RLIMIT_AS, 400 << 20));
}

/// Under strict overcommit what may be written counts when it is made so, as it does here.
#[test]
fn little_that_may_be_written() {
    alone("it_lives", || set_limit(libc::RLIMIT_DATA, 400 << 20));
}

#[test]
#[ignore = "thousands of threads"]
fn ten_thousand_threads() {
    const THREADS: usize = 10_000;
    let started = AtomicUsize::new(0);
    let (is_full, end) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let (started, is_full, end) = (&started, &is_full, &end);
        // Each starts the next, so that all are there at once and none is counted twice.
        fn start<'s>(
            scope: &'s thread::Scope<'s, '_>,
            left: usize,
            started: &'s AtomicUsize,
            is_full: &'s Barrier,
            end: &'s Barrier,
        ) {
            let work = move || {
                let held: Vec<Box<[usize; 8]>> = (0..20).map(|n| Box::new([n; 8])).collect();
                started.fetch_add(1, Ordering::Relaxed);
                start(scope, left - 1, started, is_full, end);
                while started.load(Ordering::Relaxed) != 0 {
                    thread::sleep(Duration::from_millis(50));
                }
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
        started.store(0, Ordering::Relaxed);
        end.wait();
    });
    live();
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
