//! The conformance kit: what is right passes, and every fault is found by the properties that it breaks.

mod faulty;
#[cfg(target_os = "linux")]
mod heaps;
mod naive;

use std::alloc::System;

use faulty::{Fault, Faulty, MEMORY};
use naive::Naive;
use pagemill_tests::conformance::{self, API_PROPERTIES, Alone, Broken, Limits, PROPERTIES, Property, Threads};

/// Each fault, and properties that have to find it.
const FAULTS: &[(Fault, &[&str])] = &[
    (Fault::Misaligned, &["alignment"]),
    (Fault::ShortClass, &["contents"]),
    (Fault::ShortBitmap, &["many_of_a_size"]),
    (Fault::LentTwice, &["no_overlap", "churn"]),
    (Fault::Dirty, &["zeroed", "churn"]),
    (Fault::DirtyTail, &["zeroed"]),
    (Fault::Wraps, &["impossible", "refused"]),
    (Fault::GrowLoses, &["grow", "back_and_forth"]),
    (Fault::ShrinkLoses, &["shrink", "back_and_forth"]),
    (Fault::GrowsOver, &["grow", "back_and_forth"]),
    (Fault::ResizeMisaligns, &["grow", "shrink"]),
    (Fault::ResizeHalves, &["grow", "shrink", "back_and_forth"]),
    (Fault::RefusedIsFreed, &["refused", "exhaustion"]),
    (Fault::SometimesLoses, &["churn", "churn_by_all"]),
    (Fault::FreeWritesBehind, &["contents", "constant_layouts"]),
    (Fault::FreesNeighbour, &["contents", "many_of_a_size", "no_overlap", "exhaustion"]),
    (Fault::Leaks, &["exhaustion", "exhaustion_by_turns"]),
    (Fault::Forgets, &["alignment", "contents"]),
    (Fault::LastAgain, &["exhaustion", "exhaustion_by_turns", "exhaustion_by_all"]),
    (Fault::EndIsLent, &["exhaustion"]),
    (Fault::RemoteLost, &["exhaustion_by_all"]),
    (Fault::RemoteWrites, &["freed_by_another"]),
    (Fault::Race, &["freed_by_another"]),
];

const API_FAULTS: &[(Fault, &[&str])] = &[
    (Fault::EmptyMisaligned, &["zero_sized"]),
    (Fault::EmptyRefused, &["zero_sized"]),
    (Fault::ExcessShared, &["excess"]),
    (Fault::ExcessFreed, &["fitting_layouts"]),
    (Fault::GrowKeepsAlign, &["realigned"]),
    (Fault::GrowDirty, &["grown_zeroed"]),
    (Fault::GrowLoses, &["realigned", "grown_zeroed"]),
];

fn limits() -> Limits {
    Limits::of_memory(MEMORY)
}

fn property(name: &str) -> &'static Property {
    PROPERTIES.iter().chain(API_PROPERTIES).find(|property| property.name == name).expect(name)
}

#[test]
fn the_system_conforms() {
    let mut names = Vec::new();
    conformance::check_global(&System, &Limits::HOSTED, &Threads(4), &mut |name| names.push(name.to_owned())).unwrap();
    assert_eq!(names.len(), PROPERTIES.len());
}

#[test]
fn a_plain_heap_conforms_by_both_traits() {
    conformance::check_global(&Naive::new(MEMORY), &limits(), &Threads(3), &mut |_| ()).unwrap();
    let mut names = Vec::new();
    conformance::check_allocator(&Naive::new(MEMORY), &limits(), &Threads(3), &mut |name| names.push(name.to_owned()))
        .unwrap();
    assert_eq!(names.len(), PROPERTIES.len() + API_PROPERTIES.len());
}

#[test]
fn a_small_heap_conforms_alone() {
    let limits = Limits::of_memory(32 << 10);
    conformance::check_global(&Naive::new(32 << 10), &limits, &Alone, &mut |_| ()).unwrap();
    conformance::check_allocator(&Naive::new(32 << 10), &limits, &Alone, &mut |_| ()).unwrap();
}

#[test]
fn nothing_is_lent_at_the_end() {
    for property in PROPERTIES {
        let naive = Naive::new(MEMORY);
        property.check_global(&naive, &limits(), &Threads(2)).unwrap();
        assert!(naive.take(MEMORY, 1).is_some(), "{property:?}");
    }
    for property in PROPERTIES.iter().chain(API_PROPERTIES) {
        let naive = Naive::new(MEMORY);
        property.check_allocator(&naive, &limits(), &Threads(2)).unwrap();
        assert!(naive.take(MEMORY, 1).is_some(), "{property:?}");
    }
}

#[test]
fn every_fault_is_found_by_the_properties_that_it_breaks() {
    let found = |fault: Fault, name: &str, outcome: Result<(), Broken>| match outcome {
        Ok(()) => panic!("{fault:?} passes {name}"),
        Err(broken) => {
            println!("{fault:?}: {broken}");
            assert_eq!(broken.property, name);
        }
    };
    for &(fault, names) in FAULTS {
        for name in names {
            found(fault, name, property(name).check_global(&Faulty::new(fault), &limits(), &Threads(2)));
        }
    }
    for &(fault, names) in API_FAULTS {
        for name in names {
            found(fault, name, property(name).check_allocator(&Faulty::new(fault), &limits(), &Threads(2)));
        }
    }
}

#[test]
fn every_property_finds_a_fault() {
    let is_named = |faults: &[(Fault, &[&str])], name| faults.iter().any(|(_, names)| names.contains(&name));
    for property in PROPERTIES {
        assert!(is_named(FAULTS, property.name), "{property:?}");
    }
    for property in API_PROPERTIES {
        assert!(is_named(API_FAULTS, property.name), "{property:?}");
    }
}
