//! Heap benchmarks: pagemill and its peers, each a program of its own, doing the same; `--help` says how.
//!
//! [`args`] says what to measure, [`allocators`] who, [`workers`] builds and runs them, [`rounds`] interleaves the runs
//! on [`ballast`], [`row`] is what is recorded, [`table`], [`markdown`] and [`report`] show it. What is done is in the
//! crate `heap-workloads`.

mod allocators;
mod args;
mod ballast;
mod markdown;
mod plot;
mod report;
mod rounds;
mod row;
mod table;
mod workers;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use heap_workloads::load::Set;
use heap_workloads::meter::CPU;

use args::{Args, Instead, USAGE};
use row::Record;
use workers::Case;

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(wrong) => {
            eprint!("bench-heap: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match act(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench-heap: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn act(args: &Args) -> Result<(), String> {
    match args.instead {
        Some(Instead::Help) => print!("{USAGE}"),
        Some(Instead::List) => print!("{}", args::names()),
        Some(Instead::Markdown) => {
            let record = Record::read(args.csv.as_deref().ok_or("no record to summarise")?)?;
            print!("{}", markdown::tables(&record));
        }
        Some(Instead::Summary) => {
            let record = Record::read(args.csv.as_deref().ok_or("no record to summarise")?)?;
            print!("{}", table::all(&record));
            write_report(args, &record)?;
        }
        None => {
            let record = measure(args)?;
            if let Some(path) = &args.csv {
                record.write(path).map_err(|e| cannot(path, &e))?;
                println!("{} figures in {}", record.rows.len(), path.display());
            }
            write_report(args, &record)?;
        }
    }
    Ok(())
}

fn write_report(args: &Args, record: &Record) -> Result<(), String> {
    let Some(path) = &args.report else { return Ok(()) };
    fs::write(path, report::html(record)).map_err(|e| cannot(path, &e))?;
    println!("plots in {}", path.display());
    Ok(())
}

fn cannot(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn measure(args: &Args) -> Result<Record, String> {
    for allocator in &args.allocators {
        for &build in &args.builds {
            eprintln!("building {} ({})", allocator.key, build.name());
            workers::build(allocator, build)?;
        }
    }
    let start = Instant::now();
    let mut record = Record::new(row::PROGRAM);
    let mut failures = Vec::new();
    for set in Set::ALL {
        let cases = cases(args, set);
        if cases.is_empty() {
            continue;
        }
        print!(
            "\n{}: CPU ns, medians of {} rounds, * the best peer\n{}",
            set.name(),
            args.reps,
            table::head(&args.allocators)
        );
        for case in &cases {
            let outcome = rounds::measure(&args.allocators, &args.builds, case, args.reps);
            print!("{}", table::lines(&outcome.rows, &args.allocators, CPU));
            for failure in outcome.failures {
                println!("  {failure}");
                failures.push(format!("{}, {} threads: {failure}", case.workload.name, case.threads));
            }
            record.rows.extend(outcome.rows);
        }
    }
    record.rows.extend(table::means(&record.rows));
    print!("{}", table::memory(&record));
    println!("\nmeasured in {} s", start.elapsed().as_secs());
    failures.iter().for_each(|failure| println!("no figures: {failure}"));
    Ok(record)
}

fn cases(args: &Args, set: Set) -> Vec<Case> {
    let mut cases = Vec::new();
    for &workload in args.workloads.iter().filter(|w| w.set == set) {
        for &threads in workload.threads {
            if args.threads.as_ref().is_none_or(|wanted| wanted.contains(&threads)) {
                cases.push(Case { workload, threads, hurry: args.hurry });
            }
        }
    }
    cases
}
