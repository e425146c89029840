//! `heap-top FILE`: who has the memory, by a profile in the format of pprof.
//!
//! ```text
//! args     the command line
//! profile  the file: gzip, protocol buffers
//! table    sums by function, and stacks as flame graphs want them
//! ```
#![deny(unsafe_code)]

mod args;
mod profile;
mod table;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use args::{Args, Form, USAGE};
use profile::Profile;

fn main() -> ExitCode {
    let text = match Args::parse(std::env::args().skip(1)) {
        Ok(Some(args)) => run(&args),
        Ok(None) => Ok(USAGE.into()),
        Err(wrong) => {
            eprintln!("{wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match text {
        Ok(text) => match io::stdout().write_all(text.as_bytes()) {
            // Who has read enough of a list closes it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&error.to_string()),
            _ => ExitCode::SUCCESS,
        },
        Err(wrong) => failed(&wrong),
    }
}

fn failed(wrong: &str) -> ExitCode {
    eprintln!("heap-top: {wrong}");
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<String, String> {
    let mut profile = read(&args.file)?;
    if let Some(base) = &args.base {
        profile.subtract(read(base)?)?;
    }
    let which = profile.value(args.value.as_deref())?;
    Ok(match args.form {
        Form::List => table::list(&profile, which, args.lines, args.by_sum),
        Form::Folded => table::folded(&profile, which),
    })
}

fn read(path: &Path) -> Result<Profile, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Profile::parse(&bytes).ok_or_else(|| format!("{}: no profile in the format of pprof", path.display()))
}
