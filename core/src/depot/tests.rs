use super::*;
use crate::testing::{Checked, Sim, bytes};

#[test]
fn a_shard_gives_small_objects_away_when_nobody_takes_from_it() {
    let plan = Depot::<Sim>::plan::<Checked>(Plan::new(), 2);
    let mut carver = Carver::new(bytes(plan.bytes()), plan.bytes()).unwrap();
    let depot = Depot::<Sim>::empty();
    depot.init::<Checked>(2, &mut carver);
    let pinned = Sim::pin().unwrap();
    for bytes in [64, 1024] {
        let class = SizeClass::all().find(|class| class.bytes() == bytes).unwrap();
        let batch: Vec<usize> = (1..=class.batch()).collect();
        let mut out = [0];
        let mut take = |cpu: usize| depot.take(&pinned, cpu, class, &mut out);
        assert_eq!(take(1), 0, "there is none");
        assert_eq!(depot.put(&pinned, 0, class, &batch), batch.len());
        let at_first = usize::from(class.is_larger());
        assert_eq!([take(1), take(1), take(1)], [at_first, 1, 1]);
        assert_eq!([take(0), take(1), take(0), take(1), take(1)], [1, at_first, 1, at_first, 1]);
    }
}
