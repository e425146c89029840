//! A worker: one allocator, one workload, one line for each figure.

use std::env;
use std::io::{Write, stdout};
use std::process::ExitCode;

use crate::list;
use crate::load::Load;
use crate::meter::{Meter, Sample};
use crate::os::{give_up_after, leave};

/// Who needs longer hangs.
pub const PATIENCE_SECONDS: u32 = 60;

/// What every worker's `main` is: `WORKLOAD THREADS HURRY`.
pub fn main() -> ExitCode {
    give_up_after(PATIENCE_SECONDS);
    match measure() {
        Ok(samples) => {
            let text: String = samples.iter().map(|sample| format!("{sample}\n")).collect();
            if stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).is_err() {
                return ExitCode::FAILURE;
            }
            leave()
        }
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::from(2)
        }
    }
}

fn measure() -> Result<Vec<Sample>, String> {
    let mut args = env::args().skip(1);
    let (Some(name), Some(threads), Some(hurry), None) = (args.next(), args.next(), args.next(), args.next()) else {
        return Err("usage: WORKLOAD THREADS HURRY".into());
    };
    let workload = list::find(&name).ok_or_else(|| format!("no workload is called {name}"))?;
    let number = |word: &str| word.parse().ok().filter(|&n| n > 0).ok_or_else(|| format!("not a number: {word}"));
    let load = Load { threads: number(&threads)?, hurry: number(&hurry)? };
    let mut meter = Meter::new();
    let units = (workload.run)(&load, &mut meter);
    Ok(meter.finish(units))
}
