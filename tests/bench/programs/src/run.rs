//! A run of a program: what it says, and what it took with all that it started and waited for.
#![allow(unsafe_code, reason = "wait4, which alone tells what one child took")]

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{io, mem, thread};

/// Nothing here takes so long; what does, hangs.
const LONGEST: Duration = Duration::from_secs(600);

/// How a run ended, and what it took.
pub(crate) struct Ran {
    pub succeeded: bool,
    pub out: String,
    pub err: String,
    /// Processor time, in seconds, of the program and the kernel.
    pub cpu: f64,
    /// The largest resident size of any of its processes, in KiB.
    pub peak: f64,
}

/// Runs a command to its end. What it writes goes to files in `dir`.
pub(crate) fn run(command: &mut Command, dir: &Path) -> Result<Ran, String> {
    wait(start(command, dir)?, dir)
}

/// Starts a command that is not waited for yet.
pub(crate) fn start(command: &mut Command, dir: &Path) -> Result<Child, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let file = |end: &str| File::create(dir.join(end)).map_err(|error| format!("{}: {error}", dir.display()));
    command.stdin(Stdio::null()).stdout(file("stdout")?).stderr(file("stderr")?).process_group(0);
    command.spawn().map_err(|error| format!("cannot start {name}: {error}"))
}

/// Waits for the end of what was started with this directory.
pub(crate) fn wait(child: Child, dir: &Path) -> Result<Ran, String> {
    let pid = child.id().cast_signed();
    let (status, usage) = end_of(pid).map_err(|error| format!("cannot wait: {error}"))?;
    let text = |end: &str| fs::read(dir.join(end)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let [out, err] = ["stdout", "stderr"].map(|end| text(end).unwrap_or_default());
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    Ok(Ran { succeeded: status == 0, out, err, cpu, peak: usage.ru_maxrss as f64 })
}

fn end_of(pid: libc::pid_t) -> io::Result<(libc::c_int, libc::rusage)> {
    let began = Instant::now();
    let mut status = 0;
    // SAFETY: numbers, of which all may be zero.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: both places may be written.
        let waited = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, &mut usage) };
        if waited == pid {
            return Ok((status, usage));
        }
        if waited < 0 {
            return Err(io::Error::last_os_error());
        }
        if began.elapsed() > LONGEST {
            // SAFETY: a group that was made for this child, which has not been waited for.
            unsafe { libc::kill(-pid, libc::SIGKILL) };
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_says_what_it_took() {
        let dir = std::env::temp_dir().join(format!("pagemill-run-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let script = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo out; echo err >&2; exit $0";
        let ran = |status: &str| run(Command::new("sh").args(["-c", script, status]), &dir).unwrap();
        let good = ran("0");
        assert!(good.succeeded && good.out == "out\n" && good.err == "err\n");
        assert!(good.cpu > 0.0 && good.peak > 0.0);
        assert!(!ran("3").succeeded);
        fs::remove_dir_all(&dir).unwrap();
    }
}
