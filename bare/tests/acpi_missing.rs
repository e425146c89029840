//! A machine that is no PC and has no ACPI: boot goes on with one CPU and one node, and says so, whatever there is.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!("-M microvm,acpi=off -smp 4");

pagemill_bare::kernel! {
    tests: [one_cpu_and_one_node, it_is_said, the_cpu_works];

    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use pagemill_bare::acpi::{TableError, madt, srat};
    use pagemill_bare::topology::{LOCAL_DISTANCE, TopologyProblem};
    use pagemill_bare::{machine, percpu, smp};

    fn one_cpu_and_one_node() {
        let topology = &machine::get().topology;
        assert_eq!((topology.node_count(), topology.cpus().len(), percpu::online()), (1, 1, 1));
        assert_eq!(topology.distance(0, 0), LOCAL_DISTANCE);
        let bytes: u64 = topology.memory().iter().map(|piece| piece.range.bytes()).sum();
        assert_eq!(bytes, machine::get().map.usable_bytes());
        assert!(topology.memory().iter().all(|piece| piece.node == 0));
    }

    fn it_is_said() {
        let missing = |signature| TopologyProblem::Table(signature, TableError::Missing);
        assert_eq!(machine::get().topology.problems(), [missing(madt::SIGNATURE), missing(srat::SIGNATURE)]);
    }

    fn the_cpu_works() {
        let ran = AtomicU32::new(0);
        smp::on_all(&|cpu| {
            ran.fetch_add(cpu + 1, Relaxed);
        });
        assert_eq!(ran.load(Relaxed), 1);
        smp::kick_others();
    }
}
