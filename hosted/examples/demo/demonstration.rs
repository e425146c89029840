//! The demonstration itself.

use std::process::ExitCode;

use crate::world::HostedWorld;
use pagemill::{Checked, ZoneKind};
use pagemill_hosted::{Crew, Machine, MachineBuilder, Topology};
use pagemill_tests::{World, show};

/// Two nodes with CPUs and one of memory alone, unequal distances, borders in the middle of huge frames.
const MACHINE: &str = "cpus 0-1 1048580K; cpus 2-3 1572860K; 524288K; distances 10 21 17 / 21 10 28 / 17 28 10";
/// So much of the first node shall be in reach of devices with 32 address bits.
const DMA32_BYTES: usize = 256 << 20;

pub(crate) fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match describe(&words).and_then(|topology| run(topology, words.is_empty())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(words: &[String]) -> Result<Topology, String> {
    match words {
        [] => Topology::parse(MACHINE).map_err(|error| error.to_string()),
        [word] if word == "system" => Ok(Topology::of_system()),
        [text] => Topology::parse(text).map_err(|error| error.to_string()),
        _ => Err("one word at most: `system`, or the description of a machine".to_owned()),
    }
}

fn run(topology: Topology, with_dma32: bool) -> Result<(), String> {
    let cpus = u32::try_from(topology.cpu_count()).map_err(|error| error.to_string())?;
    let bytes = topology.bytes();
    let first = topology.nodes.first().map_or(0, |node| node.bytes);
    let mut builder = MachineBuilder::new(topology);
    if with_dma32 {
        builder = builder.zone(0, ZoneKind::Dma32, DMA32_BYTES).zone(0, ZoneKind::Normal, first - DMA32_BYTES);
    }
    let machine: Machine<Checked> = builder.build().map_err(|error| error.to_string())?;
    let demonstrated = Crew::work(cpus, |crew| {
        let world = HostedWorld { machine: &machine, crew, effort: 1 << 17 };
        let took = machine.took();
        world.say(format_args!(
            "pagemill-hosted: {cpus} threads as CPUs, {} nodes, {} KiB, started in {} us\n",
            machine.topology().nodes.len(),
            bytes >> 10,
            took.as_micros()
        ));
        show::demonstrate(&world, || {});
    });
    demonstrated.ok_or_else(|| "some other thread has a number that the machine needs".to_owned())
}
