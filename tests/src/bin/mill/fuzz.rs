//! `mill fuzz`: the core's fuzz targets, each for a while.

use crate::cargo;
use crate::failure::{Failure, Outcome};
use crate::libtest;
use crate::tools;
use std::process::Stdio;

const SECONDS: u32 = 60;

pub(crate) fn run(words: &[String]) -> Outcome {
    let mut wanted = None;
    let mut seconds = SECONDS;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => {
                let number = words.next().and_then(|number| number.parse().ok()).filter(|&number| number > 0);
                seconds = number.ok_or_else(|| Failure::usage("mill fuzz: --seconds wants a number"))?;
            }
            word if word.starts_with('-') || wanted.is_some() => {
                return Err(Failure::usage(format!("mill fuzz: unexpected argument {word:?}")));
            }
            word => wanted = Some(word),
        }
    }
    tools::fuzz()?;
    let targets = targets()?;
    let chosen: Vec<_> = targets.iter().filter(|target| wanted.is_none_or(|wanted| wanted == *target)).collect();
    if chosen.is_empty() {
        return Err(Failure::new(format!("fuzz: no such target; there are: {}", targets.join(", "))));
    }
    chosen.into_iter().try_for_each(|target| fuzz(target, seconds))
}

/// The names of the fuzz targets.
fn targets() -> Outcome<Vec<String>> {
    let mut command = cargo::nightly_cargo();
    command.args(["fuzz", "list", "--fuzz-dir", "core/fuzz"]);
    let lines = libtest::read_lines(&mut command, "fuzz: listing the targets", |_| ())?;
    Ok(lines.iter().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// Fuzzes one target. libFuzzer's log is long: it is shown when something was found.
fn fuzz(target: &str, seconds: u32) -> Outcome {
    let what = format!("fuzz {target}");
    let cargo_fuzz = |verb: &str| {
        let mut command = cargo::nightly_cargo();
        command.args(["fuzz", verb, "--fuzz-dir", "core/fuzz", target]);
        command
    };
    cargo::finish(&mut cargo_fuzz("build"), &format!("{what}: building"))?;
    let mut command = cargo_fuzz("run");
    command.args(["--", &format!("-max_total_time={seconds}")]).stdin(Stdio::null());
    let output = command.output().map_err(|error| cargo::cannot_start(&command, &error))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprint!("{log}");
        return Err(Failure::new(format!("{what}: failed ({})", output.status)));
    }
    match runs_of(&log) {
        Some(runs) if runs > 0 => println!("{what}: {runs} inputs in {seconds} s, 1 passed, 0 failed"),
        _ => return Err(Failure::new(format!("{what}: no input was run"))),
    }
    Ok(())
}

/// libFuzzer's last words: `Done 12345 runs in 61 second(s)`.
fn runs_of(log: &str) -> Option<u64> {
    log.lines().find_map(|line| line.strip_prefix("Done ")?.split_once(" runs in ")?.0.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_from_the_log() {
        assert_eq!(runs_of("#12 NEW\nDone 987 runs in 61 second(s)\n"), Some(987));
        assert_eq!(runs_of("#12 NEW\n"), None);
    }
}
