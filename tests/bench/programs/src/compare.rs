//! Does a program say the same on pagemill as on the C library's heap?

use crate::allocators::{Allocator, LEVELS};
use crate::args::Args;
use crate::programs::{self, Program};
use crate::run::Ran;

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let (mut same, mut otherwise) = (0, Vec::new());
    for program in programs::ALL.iter().filter(|program| args.wants(program.name) && (program.quick || !args.quick)) {
        if let Some(missing) = program.missing() {
            println!("{}: no {missing}: SKIPPED", program.name);
            continue;
        }
        match compare(program, args) {
            Ok(lines) => {
                println!("{}: the same {lines} lines as on glibc at {}", program.name, LEVELS.join(", "));
                same += 1;
            }
            Err(reason) => {
                println!("{}: FAILED", program.name);
                otherwise.push(format!("{}: {reason}", program.name));
            }
        }
    }
    println!("real-programs: {same} the same, {} not", otherwise.len());
    if otherwise.is_empty() { Ok(()) } else { Err(otherwise.join("\n")) }
}

/// Answers how many lines are the same.
fn compare(program: &Program, args: &Args) -> Result<usize, String> {
    let expected = program.run(&Allocator::glibc())?;
    if !expected.succeeded {
        return Err(format!("fails on glibc: {}", tail(&expected)));
    }
    let expected = normal(&expected);
    for level in LEVELS {
        let ran = program.run(&Allocator::pagemill(&args.library, level))?;
        if !ran.succeeded {
            return Err(format!("fails at {level}: {}", tail(&ran)));
        }
        let said = normal(&ran);
        if let Some(difference) = difference(&expected, &said) {
            return Err(format!("differs at {level}: {difference}"));
        }
    }
    Ok(expected.len())
}

/// The lines of both outputs, without what is never the same: how long something took.
fn normal(ran: &Ran) -> Vec<String> {
    let lines = ran.out.lines().chain(ran.err.lines());
    lines
        .map(|line| match line.split_once(" tests in ") {
            Some((start, time)) if line.starts_with("Ran ") && time.ends_with('s') => format!("{start} tests"),
            _ => line.to_owned(),
        })
        .collect()
}

/// The first line that is another.
fn difference(expected: &[String], said: &[String]) -> Option<String> {
    let place = (0..expected.len().max(said.len())).find(|&n| expected.get(n) != said.get(n))?;
    Some(format!("line {}: {:?} became {:?}", place + 1, expected.get(place), said.get(place)))
}

/// The last lines that a run wrote to its error output.
fn tail(ran: &Ran) -> String {
    let lines: Vec<_> = ran.err.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(out: &str, err: &str) -> Ran {
        Ran { succeeded: true, out: out.into(), err: err.into(), cpu: 0.0, peak: 0.0 }
    }

    #[test]
    fn how_long_tests_took_is_no_difference() {
        let [one, other] = [ran("a\nb", "Ran 5 tests in 0.1s"), ran("a\nb", "Ran 5 tests in 2.5s")];
        assert_eq!(difference(&normal(&one), &normal(&other)), None);
        let fewer = normal(&ran("a\nb", "Ran 4 tests in 0.1s"));
        assert!(difference(&normal(&one), &fewer).unwrap().starts_with("line 3: "));
        assert!(difference(&normal(&one), &normal(&ran("a", ""))).unwrap().starts_with("line 2: "));
    }
}
