//! Programs of any language with another `malloc`: whether they say the same, what they take, and how long a pair is in
//! C.
//!
//! ```text
//!   compare   each program with glibc and at each level of libpagemill.so: the same output?
//!   times     the same programs beside the heaps of others, in turns
//!   pairs     malloc and free in a C loop beside the same, in turns
//! ```
//!
//! Called by `cargo real-programs` and `cargo bench-c`, which see to the library and to what is not installed.

mod allocators;
mod args;
mod compare;
mod pairs;
mod programs;
mod row;
mod run;
mod table;
mod times;
mod turns;

use std::process::ExitCode;

use args::{Args, Work};

fn main() -> ExitCode {
    let done = Args::parse(std::env::args().skip(1)).and_then(|args| match args.work {
        Work::Compare => compare::run(&args),
        Work::Times => times::run(&args),
        Work::Pairs => pairs::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
