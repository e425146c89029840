//! The depot: batches that change hands between CPUs by value.

use std::sync::Arc;
use std::vec::Vec;

use super::machine::{Bytes, Cpus, Tiny, on_cpu};
use super::runner::check;
use crate::carve::{Carver, Plan};
use crate::depot::Depot;
use crate::platform::Platform;
use crate::size_class::SizeClass;
use crate::sync::OwnerU32;

fn class() -> SizeClass {
    SizeClass::new(12).unwrap()
}

/// A depot, and what stands in the objects 1 to 4.
struct Objects {
    depot: Depot<'static, Cpus>,
    contents: [OwnerU32; 4],
    _bytes: Bytes,
}

impl Objects {
    fn new(shards: usize) -> Arc<Self> {
        let plan = Depot::<Cpus>::plan::<Tiny>(Plan::new(), shards);
        let (bytes, metadata) = Bytes::new(plan.bytes());
        let mut carver = Carver::new(metadata, plan.bytes()).unwrap();
        let depot = Depot::empty();
        depot.init::<Tiny>(shards, &mut carver);
        Arc::new(Self { depot, contents: [const { () }; 4].map(|()| OwnerU32::new(0)), _bytes: bytes })
    }

    fn write(&self, objects: &[usize]) {
        objects.iter().for_each(|&object| self.contents[object - 1].set(1));
    }

    /// Writes into objects and puts them in; answers those that found no room.
    fn put(&self, cpu: usize, batch: &[usize]) -> Vec<usize> {
        self.write(batch);
        let put = self.depot.put(&Cpus::pin().unwrap(), cpu, class(), batch);
        batch[put..].to_vec()
    }

    fn take(&self, cpu: usize, most: usize) -> Vec<usize> {
        let mut out = [0; 4];
        let taken = self.depot.take(&Cpus::pin().unwrap(), cpu, class(), &mut out[..most]);
        self.write(&out[..taken]);
        out[..taken].to_vec()
    }
}

/// Threads: one that puts a batch into its own shard; one whose shard is another, and one that has this shard too, both
/// of which take.
///
/// Property: every object is had by one of them at a time, with what the last one did done; none is lost.
///
/// * `batch_taken_twice`: what is taken stays there.
fn batches() {
    let objects = Objects::new(2);
    let mut all = objects.put(0, &[1, 2]);
    let takers: Vec<_> = (1..=2)
        .map(|cpu| {
            let objects = objects.clone();
            on_cpu(cpu, move || objects.take(cpu as usize, 2))
        })
        .collect();
    all.extend(objects.put(0, &[3, 4]));
    for taker in takers {
        all.extend(taker.join().unwrap());
    }
    for _ in 0..4 {
        all.extend(objects.take(0, 4));
    }
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4], "lost, or taken twice");
    assert_eq!(objects.depot.len(class()), 0);
}

#[test]
fn batches_change_hands_whole() {
    check("depot", &["batch_taken_twice"], batches);
}
