//! Measures page-frame allocators; `--help` says how.

use std::process::ExitCode;

use pagemill_bench::args::{Args, USAGE};
use pagemill_bench::csv::Record;
use pagemill_bench::{run, scale, summary};

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprint!("frames: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match act(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("frames: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn act(args: &Args) -> Result<(), String> {
    if args.help {
        print!("{USAGE}");
        return Ok(());
    }
    if args.summary {
        let path = args.csv.as_ref().ok_or("no record to summarise")?;
        print!("{}", summary::markdown(&Record::read(path)?));
        return Ok(());
    }
    if args.check {
        run::check(args);
        return Ok(());
    }
    let record = if args.scale { scale::measure(args) } else { run::measure(args) };
    let Some(path) = &args.csv else { return Ok(()) };
    record.write(path).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("\n{} figures in {}", record.rows.len(), path.display());
    Ok(())
}
