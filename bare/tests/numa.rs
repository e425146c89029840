//! Four CPUs and three nodes: two with CPUs, one of memory alone; borders in the middle of large blocks, a node above
//! and below the hole under 4 GiB, distances that differ by direction, HMAT.
#![cfg_attr(target_os = "none", no_std, no_main)]

pagemill_bare::qemu_args!(
    "-machine hmat=on -smp 4 -m 3145728K \
     -object memory-backend-ram,id=m0,size=1048580K \
     -object memory-backend-ram,id=m1,size=1572860K \
     -object memory-backend-ram,id=m2,size=524288K \
     -numa node,nodeid=0,cpus=0-1,memdev=m0 \
     -numa node,nodeid=1,cpus=2-3,memdev=m1 \
     -numa node,nodeid=2,memdev=m2,initiator=0 \
     -numa dist,src=0,dst=1,val=21 -numa dist,src=1,dst=0,val=23 \
     -numa dist,src=0,dst=2,val=17 -numa dist,src=2,dst=0,val=17 \
     -numa dist,src=1,dst=2,val=28 -numa dist,src=2,dst=1,val=28 \
     -numa hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency=10 \
     -numa hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=25 \
     -numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-latency,latency=60 \
     -numa hmat-lb,initiator=1,target=0,hierarchy=memory,data-type=access-latency,latency=25 \
     -numa hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-latency,latency=10 \
     -numa hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=access-latency,latency=70 \
     -numa hmat-lb,initiator=0,target=2,hierarchy=memory,data-type=access-bandwidth,bandwidth=200M"
);

pagemill_bare::kernel! {
    tests: [
        nodes_and_cpus,
        distances_are_those_given,
        latencies_and_bandwidth,
        borders_are_where_they_were_put,
        all_memory_has_one_node,
        early_memory_on_a_node,
    ];

    use pagemill_bare::early::Owner;
    use pagemill_bare::topology::Topology;
    use pagemill_bare::{machine, percpu, physical, smp};

    const GIB: u64 = 1 << 30;

    fn topology() -> &'static Topology {
        &machine::get().topology
    }

    fn nodes_and_cpus() {
        assert_eq!(topology().problem_count(), 0, "{:?}", topology().problems());
        assert_eq!((topology().node_count(), percpu::online()), (3, 4));
        let nodes = [0, 1, 2, 3].map(|cpu| percpu::area(cpu).expect("a CPU").node());
        assert_eq!(nodes, [0, 0, 1, 1]);
        smp::on_all(&|cpu| assert_eq!(percpu::node(), nodes[cpu as usize]));
    }

    fn distances_are_those_given() {
        let row = |from| [0, 1, 2].map(|to| topology().distance(from, to));
        assert_eq!([0, 1, 2].map(row), [[10, 21, 17], [23, 10, 28], [17, 28, 10]]);
    }

    fn latencies_and_bandwidth() {
        let row = |from| [0, 1, 2].map(|to| topology().latency(from, to));
        assert_eq!(row(0), [Some(10_000), Some(25_000), Some(60_000)]);
        assert_eq!(row(1), [Some(25_000), Some(10_000), Some(70_000)]);
        assert_eq!(row(2), [None; 3]);
        assert_eq!(topology().bandwidth(0, 2), Some(200));
        assert_eq!(topology().bandwidth(0, 1), None);
    }

    fn borders_are_where_they_were_put() {
        let memory = topology().memory();
        let border = 1_048_580 << 10;
        let ends_at = |at, node| memory.iter().any(|piece| piece.range.end() == at && piece.node == node);
        let starts_at = |at, node| memory.iter().any(|piece| piece.range.start() == at && piece.node == node);
        assert!(ends_at(border, 0) && starts_at(border, 1), "{memory:x?}");
        // The second GiB border is that of the hole: node 1 goes on above it.
        let above = 4 * GIB + (1_048_580 + 1_572_860 - (2 << 20)) * 1024;
        assert!(starts_at(4 * GIB, 1) && ends_at(above, 1) && starts_at(above, 2), "{memory:x?}");
        for node in 0..2 {
            assert!(memory.iter().filter(|piece| piece.node == node).count() >= 2, "{memory:x?}");
        }
    }

    fn all_memory_has_one_node() {
        let memory = topology().memory();
        assert!(memory.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
        let bytes: u64 = memory.iter().map(|piece| piece.range.bytes()).sum();
        assert_eq!(bytes, machine::get().map.usable_bytes());
    }

    fn early_memory_on_a_node() {
        for node in 0..3 {
            let pieces = || topology().memory().iter().filter(move |piece| piece.node == node);
            let largest = pieces().max_by_key(|piece| piece.range.bytes()).expect("memory");
            let block = physical::alloc(1 << 20, 1 << 21, largest.range, Owner::Metadata).expect("room");
            assert!(largest.range.contains(block.range()));
            let bytes = block.into_zeroed_bytes();
            bytes.fill(0xa5);
            assert!(bytes.iter().all(|&byte| byte == 0xa5));
        }
    }
}
