//! The reserve of a memory pool: objects that are there when memory has ended.

use std::sync::Arc;

use super::machine::on_cpu;
use super::runner::check;
use crate::object::Reserve;
use crate::sync::OwnerU32;

/// A reserve of two places, and what stands in the objects 1 and 2.
struct Objects {
    reserve: Reserve<2>,
    contents: [OwnerU32; 2],
}

impl Objects {
    fn new(objects: &[usize]) -> Arc<Self> {
        let reserve = Reserve::new();
        objects.iter().for_each(|&object| assert!(reserve.put(object)));
        Arc::new(Self { reserve, contents: [(); 2].map(|()| OwnerU32::new(0)) })
    }

    /// Takes an object and writes into it.
    fn take(&self) -> Option<usize> {
        self.reserve.take().inspect(|&object| self.contents[object - 1].set(1))
    }

    /// Writes into an object and puts it in.
    fn put(&self, object: usize) {
        self.contents[object - 1].set(2);
        assert!(self.reserve.put(object), "there is room for what was taken, or never there");
    }
}

/// Threads: two that take an object each of the two there are; one of them brings it back and takes again.
///
/// Property: every object is had by one of them, with what the last one did to it done; nobody goes without.
///
/// * `reserve_taken_relaxed`: what the last one did to the object may come later;
/// * `reserve_taken_plain`: both take the same.
fn taken() {
    let objects = Objects::new(&[1, 2]);
    let other = {
        let objects = objects.clone();
        on_cpu(1, move || {
            let first = objects.take().expect("there are two");
            objects.put(first);
            objects.take().expect("as before")
        })
    };
    let mine = objects.take().expect("there are two");
    let theirs = other.join().unwrap();
    assert_ne!(mine, theirs, "both have it");
    assert_eq!(objects.reserve.len(), 0);
}

/// Threads: one that brings a second object and takes one; one that takes one.
///
/// Property: neither goes without, though what the one seeks may be brought behind its back and taken ahead of it.
///
/// * `reserve_unclaimed`: who looks without a claim finds nothing in either place, while there was always one.
fn claimed() {
    let objects = Objects::new(&[1]);
    let other = {
        let objects = objects.clone();
        on_cpu(1, move || {
            objects.put(2);
            objects.take()
        })
    };
    let mine = objects.take();
    let theirs = other.join().unwrap();
    assert!(mine.is_some() && theirs.is_some() && mine != theirs, "{mine:?} {theirs:?}");
}

#[test]
fn every_object_is_taken_once() {
    check("reserve_taken", &["reserve_taken_relaxed", "reserve_taken_plain"], taken);
}

#[test]
fn nobody_goes_without_while_there_is_one() {
    check("reserve_claimed", &["reserve_unclaimed"], claimed);
}
