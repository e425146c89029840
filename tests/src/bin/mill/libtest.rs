//! Runs of test programs: their output passes through, and the tests are counted, since a run of no test proves
//! nothing.

use crate::cargo;
use crate::failure::{Failure, Outcome};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

/// Runs tests and returns how many passed. `what` names the run in the reasons.
///
/// The output passes through as it comes, not line by line: libtest names a test before it runs it, and the one that
/// hangs is the one to see.
pub(crate) fn run(command: &mut Command, what: &str) -> Outcome<usize> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cargo::cannot_start(command, &error))?;
    pass_on(&mut child, what)
}

/// Runs two test programs at once, since each keeps one CPU busy for minutes, and returns how many tests passed in
/// each. The output of the second is shown when both have ended.
pub(crate) fn run_both(first: (&mut Command, &str), second: (&mut Command, &str)) -> Outcome<[usize; 2]> {
    let start = |command: &mut Command| {
        command.stdout(Stdio::piped()).spawn().map_err(|error| cargo::cannot_start(command, &error))
    };
    let mut behind = start(second.0.stderr(Stdio::piped()))?;
    let drains = [drain(behind.stdout.take()), drain(behind.stderr.take())];
    let passed = run(first.0, first.1);
    let status = behind.wait();
    let [stdout, stderr] = drains.map(|drain| drain.join().unwrap_or_default());
    let _ = io::stderr().write_all(&stderr);
    let _ = io::stdout().write_all(&stdout);
    match status {
        Ok(status) if status.success() => Ok([passed?, count(&String::from_utf8_lossy(&stdout), second.1)?]),
        Ok(status) => Err(Failure::new(format!("{}: failed ({status})", second.1))),
        Err(error) => Err(Failure::new(format!("{}: {error}", second.1))),
    }
}

/// Reads all that comes, so that whoever writes it never waits.
fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // What cannot be read any more is not there to be shown.
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut all));
        all
    })
}

fn pass_on(child: &mut Child, what: &str) -> Outcome<usize> {
    let mut stdout = child.stdout.take().expect("stdout was asked to be a pipe");
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
        let mut out = io::stdout().lock();
        // A closed stdout (`| head`) is no reason to stop the tests.
        let _ = out.write_all(&buffer[..count]).and_then(|()| out.flush());
    }
    finish(child, what)?;
    count(&String::from_utf8_lossy(&all), what)
}

/// How many tests passed by these lines; none is a failure.
fn count(output: &str, what: &str) -> Outcome<usize> {
    match output.lines().filter_map(passed_of).sum() {
        0 => Err(Failure::new(format!("{what}: no test ran"))),
        passed => Ok(passed),
    }
}

/// Runs a command, shows each line of its stdout to `see` as it comes, and returns them all.
pub(crate) fn read_lines(command: &mut Command, what: &str, mut see: impl FnMut(&str)) -> Outcome<Vec<String>> {
    let cannot = |error: std::io::Error| Failure::new(format!("{what}: {error}"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cargo::cannot_start(command, &error))?;
    let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = String::from_utf8_lossy(&line.map_err(cannot)?).into_owned();
        see(&line);
        lines.push(line);
    }
    finish(&mut child, what)?;
    Ok(lines)
}

fn finish(child: &mut Child, what: &str) -> Outcome {
    let status = child.wait().map_err(|error| Failure::new(format!("{what}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{what}: failed ({status})"))) }
}

/// The count in libtest's summary line, which the kernels write too.
fn passed_of(line: &str) -> Option<usize> {
    let (_, counts) = line.split_once("test result: ok. ")?;
    counts.split_once(" passed")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_are_counted() {
        assert_eq!(passed_of("test result: ok. 12 passed; 0 failed; 0 ignored"), Some(12));
        assert_eq!(passed_of("test result: FAILED. 12 passed; 1 failed"), None);
        assert_eq!(passed_of("test models::pool ... ok"), None);
    }

    #[test]
    fn a_run_of_no_test_fails() {
        let line = |n: &usize| format!("test result: ok. {n} passed; 0 failed");
        let count = |counts: &[usize]| count(&counts.iter().map(line).collect::<Vec<_>>().join("\n"), "sum");
        assert_eq!(count(&[0, 0]).unwrap_err().reason, "sum: no test ran");
        assert_eq!(count(&[3, 0, 4]).unwrap(), 7);
    }

    #[test]
    fn two_programs_run_at_once_and_both_count() {
        let of = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let passes = "echo 'test result: ok. 2 passed; 0 failed'";
        let both = |first: &str, second: &str| run_both((&mut of(first), "one"), (&mut of(second), "two"));
        assert_eq!(both(passes, passes).unwrap(), [2, 2]);
        assert_eq!(both("exit 3", passes).unwrap_err().reason, "one: failed (exit status: 3)");
        assert_eq!(both(passes, "exit 3").unwrap_err().reason, "two: failed (exit status: 3)");
        assert_eq!(both(passes, "true").unwrap_err().reason, "two: no test ran");
    }

    #[test]
    fn lines_are_returned_and_failures_named() {
        let lines = |script: &str| read_lines(Command::new("sh").args(["-c", script]), "script", |_| ());
        assert_eq!(lines("echo one; printf two").unwrap(), ["one", "two"]);
        assert_eq!(lines("echo one; exit 3").unwrap_err().reason, "script: failed (exit status: 3)");
    }
}
