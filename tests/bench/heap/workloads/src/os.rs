//! What is asked of the system: CPU clocks, page faults, resident memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::mem::MaybeUninit;

/// What the process has used so far.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of all threads, in nanoseconds.
    pub cpu_ns: u64,
    /// The part of it spent in the kernel. The kernel divides by samples: short runs show multiples of a tick.
    pub kernel_ns: u64,
    /// Page faults served without a device.
    pub faults: u64,
}

impl Usage {
    /// What has been used up to now.
    pub fn now() -> Self {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is a valid place for the answer.
        let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        assert_eq!(failed, 0, "every process may ask for its usage");
        // SAFETY: zeroes are a `rusage`, and the call has filled it.
        let usage = unsafe { usage.assume_init() };
        let kernel_ns = usage.ru_stime.tv_sec as u64 * 1_000_000_000 + usage.ru_stime.tv_usec as u64 * 1000;
        Self { cpu_ns: process_ns(), kernel_ns, faults: usage.ru_minflt as u64 }
    }
}

fn process_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    assert_eq!(failed, 0, "there is such a clock");
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Ends the process with success, at once: what destructors and libraries would do at its end is not measured, and some
/// allocators crash there.
pub fn leave() -> ! {
    // SAFETY: the process ends here; files that are not yet written are those of the caller, which has none.
    unsafe { libc::_exit(0) }
}

/// Ends the process by a signal after so many seconds: an allocator that hangs must not stop the run.
pub fn give_up_after(seconds: u32) {
    // SAFETY: it sets a timer; the signal's default action is wanted.
    unsafe { libc::alarm(seconds) };
}

/// Does `work` in a forked child, and says whether it came to its end there within two seconds.
pub fn succeeds_in_fork(work: impl FnOnce()) -> bool {
    const SECONDS: u32 = 2;
    // SAFETY: the child does nothing but the work, which is what is tried out, and then goes.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "a process may be forked");
    if child == 0 {
        give_up_after(SECONDS);
        work();
        // SAFETY: it ends the child without running what the parent has left to do.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the answer.
    let ended = unsafe { libc::waitpid(child, &mut status, 0) };
    ended == child && status == 0
}

/// Memory of this program in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Resident {
    /// What is there now.
    pub now: u64,
    /// What of it is no file: the program itself and its libraries are the same for every allocator.
    pub anonymous: u64,
    /// The most that ever was since the program was started.
    ///
    /// The peak that `getrusage` tells is not this one: it starts at what the parent had when it made the child.
    pub peak: u64,
}

impl Resident {
    /// What the kernel tells, which may be wrong by a few pages for each CPU.
    pub fn now() -> Self {
        // A buffer on the stack, so that asking does not change the answer.
        let mut text = [0; 4096];
        let read = File::open("/proc/self/status").and_then(|mut file| file.read(&mut text)).unwrap_or(0);
        let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
        let told = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key))?;
            value.split_whitespace().next()?.parse().ok()
        };
        let told = |key: &str| told(key).unwrap_or(0);
        Self { now: told("VmRSS:"), anonymous: told("RssAnon:"), peak: told("VmHWM:") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_answers() {
        let resident = Resident::now();
        assert!(resident.anonymous > 0 && resident.now > resident.anonymous && resident.peak >= resident.now);
        let used = Usage::now();
        assert!(used.cpu_ns > 0 && used.faults > 0);
    }
}
