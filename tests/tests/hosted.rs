//! Every scenario on threads and a mapping: four CPUs, three nodes, one of them without a CPU, odd borders; and on the
//! smallest machine and on one of many CPUs.

#![cfg(target_os = "linux")]

#[path = "../../hosted/examples/demo/world.rs"]
mod world;

use std::sync::{Mutex, PoisonError};

use pagemill_hosted::{Crew, MachineBuilder, Topology};
use pagemill_tests::scenarios;
use world::HostedWorld;

const MACHINE: &str = "cpus 0-1 98308K; cpus 2-3 65532K; 32M; distances 10 21 17 / 21 10 28 / 17 28 10";
const SMALL: &str = "cpus 0 16M";
const WIDE: &str = "cpus 0-3,8 33M; cpus 4-7 16M; cpus 9-15 47M; 1M; 8M far";

/// Runs scenarios on a machine of their own, so that one that fails leaves nothing to the next.
fn run(machine: &str, chosen: impl Fn(&str) -> bool) {
    // The CPUs of a machine are numbers that one crew has at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let topology = Topology::parse(machine).unwrap();
    let cpus = topology.cpu_count() as u32;
    let machine = MachineBuilder::new(topology).build().unwrap();
    let ran = Crew::work(cpus, |crew| {
        let world = HostedWorld { machine: &machine, crew, effort: 1 << 16 >> (cpus / 4) };
        let scenarios = scenarios::<HostedWorld<'_>>();
        let chosen = scenarios.iter().filter(|scenario| chosen(scenario.name));
        chosen.inspect(|scenario| println!("{}", scenario.name)).map(|scenario| scenario.run(&world)).count()
    });
    assert_ne!(ran.expect("no other thread of this program uses pagemill"), 0);
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run(MACHINE, |name| name == stringify!($name));
            }
        )*
    };
}

pagemill_tests::for_each_scenario!(tests);

#[test]
fn all_on_one_cpu_with_16_mib() {
    run(SMALL, |_| true);
}

#[test]
fn all_on_sixteen_cpus() {
    run(WIDE, |_| true);
}
