//! What programs take on pagemill and on other heaps: processor time and peak memory.

use crate::allocators::{self, Allocator};
use crate::args::Args;
use crate::programs::{self, Program};
use crate::row::{Record, Row};
use crate::table::{self, figure};
use crate::turns::{self, MEAN, Sample};

const CPU: &str = "cpu";
const PEAK: &str = "peak";

pub(crate) fn run(args: &Args) -> Result<(), String> {
    let allocators = allocators::all(&args.library);
    let mut record = Record::of("cargo real-programs --times", &args.measured);
    for program in programs::ALL.iter().filter(|program| args.wants(program.name) && (program.quick || !args.quick)) {
        if let Some(missing) = program.missing() {
            println!("{}: no {missing}: SKIPPED", program.name);
            continue;
        }
        println!("{}", program.name);
        record.rows.extend(turns::measure(&allocators, program.name, args.reps, |allocator| once(program, allocator))?);
    }
    let means = turns::means(&record.rows);
    record.rows.extend(means);
    print!("{}", table::markdown(&record, &allocators, "CPU s (peak MiB)", cell));
    if let Some(path) = args.csv("programs.csv") {
        record.write(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn once(program: &Program, allocator: &Allocator) -> Result<Vec<Sample>, String> {
    let ran = program.run(allocator)?;
    if !ran.succeeded {
        return Err(format!("it fails: {}", ran.err));
    }
    let cpu = Sample { metric: CPU, unit: "s", value: ran.cpu };
    Ok(vec![cpu, Sample { metric: PEAK, unit: "KiB", value: ran.peak }])
}

/// What a program took; of the mean, the ratios to glibc's.
fn cell(rows: &[&Row]) -> String {
    if rows.iter().any(|row| row.workload == MEAN) {
        let [best, glibc, peak] =
            ["cpu / best peer", "cpu / glibc", "peak / glibc"].map(|metric| figure(rows, metric, 1.0, 2));
        return format!("{best} × best, {glibc} × glibc ({peak} × glibc)");
    }
    format!("{} ({})", figure(rows, CPU, 1.0, 2), figure(rows, PEAK, 1024.0, 1))
}
