//! Every scenario on threads and a mapping: four CPUs, three nodes, one of them without a CPU, odd borders.

#[path = "../../hosted/examples/demo/world.rs"]
mod world;

use std::sync::{Mutex, PoisonError};

use pagemill_hosted::{Crew, MachineBuilder, Topology};
use pagemill_tests::scenarios;
use world::HostedWorld;

const MACHINE: &str = "cpus 0-1 98308K; cpus 2-3 65532K; 32M; distances 10 21 17 / 21 10 28 / 17 28 10";

/// Runs a scenario on a machine of its own, so that one that fails leaves nothing to the next.
fn run(name: &str) {
    // The CPUs of a machine are numbers that one crew has at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let topology = Topology::parse(MACHINE).unwrap();
    let cpus = topology.cpu_count() as u32;
    let machine = MachineBuilder::new(topology).build().unwrap();
    Crew::work(cpus, |crew| {
        let world = HostedWorld { machine: &machine, crew };
        let scenarios = scenarios::<HostedWorld<'_>>();
        scenarios.iter().find(|scenario| scenario.name == name).unwrap().run(&world);
    })
    .expect("no other thread of this program uses pagemill");
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(stringify!($name));
            }
        )*
    };
}

pagemill_tests::for_each_scenario!(tests);
