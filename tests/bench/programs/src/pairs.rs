//! A pair of malloc and free in a C loop.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::allocators::{self, Allocator};
use crate::args::Args;
use crate::row::{Record, Row};
use crate::run;
use crate::table::{self, figure};
use crate::turns::{self, MEAN, Sample};

/// Bytes of a block, and blocks that are allocated before the first of them is freed.
const CASES: [(usize, usize); 9] =
    [(16, 1), (64, 1), (256, 1), (1024, 1), (8192, 1), (64, 100), (64, 1000), (1024, 100), (40_000, 1)];
/// Pairs of a run; of large blocks, for which some ask the system each time, so many times fewer.
const PAIRS: usize = 10_000_000;
const FEWER: usize = 200;
const LARGE: usize = 32 << 10;

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let allocators = allocators::all(&args.library);
    let dir = std::env::temp_dir().join(format!("pagemill-pairs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let done = compile(&dir).and_then(|program| measure(args, &allocators, &program, &dir));
    // What is not there need not go.
    let _ = std::fs::remove_dir_all(&dir);
    done
}

fn measure(args: &Args, allocators: &[Allocator], program: &Path, dir: &Path) -> Result<(), String> {
    let mut record = Record::of("cargo bench-c", &args.measured);
    let pairs = if args.quick { PAIRS / 20 } else { PAIRS };
    for (bytes, batch) in CASES {
        let name = if batch == 1 { format!("pair-{bytes}") } else { format!("batch-{bytes}x{batch}") };
        let pairs = if bytes > LARGE { pairs / FEWER } else { pairs };
        let once = |allocator: &Allocator| {
            let mut command = Command::new(program);
            command.args([bytes, batch, pairs / batch].map(|number| number.to_string()));
            allocator.serve(&mut command);
            let ran = run::run(&mut command, dir)?;
            let value = ran.out.trim().parse().map_err(|_| format!("no figure: {}{}", ran.out, ran.err))?;
            Ok(vec![Sample { metric: "cpu", unit: "ns", value }])
        };
        record.rows.extend(turns::measure(allocators, &name, args.reps, once)?);
    }
    let means = turns::means(&record.rows);
    record.rows.extend(means);
    print!("{}", table::markdown(&record, allocators, "CPU ns a pair, C", cell));
    if let Some(path) = args.csv("c-pairs.csv") {
        record.write(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn cell(rows: &[&Row]) -> String {
    if rows.iter().any(|row| row.workload == MEAN) {
        let [best, glibc] = ["cpu / best peer", "cpu / glibc"].map(|metric| figure(rows, metric, 1.0, 2));
        return format!("{best} × best, {glibc} × glibc");
    }
    figure(rows, "cpu", 1.0, 2)
}

fn compile(dir: &Path) -> Result<PathBuf, String> {
    let program = dir.join("pairs");
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    // A compiler that knows `malloc` leaves pairs out.
    compiler.args(["-O2", "-fno-builtin", "-o"]).arg(&program);
    compiler.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/c/pairs.c"));
    match compiler.status() {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("the C compiler: {status}")),
        Err(error) => Err(format!("there is no C compiler: {error}")),
    }
}
