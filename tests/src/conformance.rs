//! What a heap allocator owes its callers, as a list of properties that anyone can run on theirs.
//!
//! ```
//! use pagemill_tests::conformance::{self, Limits, Threads};
//!
//! // Any `GlobalAlloc` will do: the allocator of the system, your own in a `static`, one that was made just now.
//! let allocator = std::alloc::System;
//! # let small = Limits { largest: 64 << 10, align: 4096, held: 1 << 20, blocks: 256, rounds: 1000, memory: None };
//! # conformance::check_global(&allocator, &small, &Threads(2), &mut |_| ()).unwrap();
//! # if false {
//! conformance::check_global(&allocator, &Limits::HOSTED, &Threads(4), &mut |property| println!("{property}")).unwrap();
//! # }
//! ```
//!
//! An allocator of a kernel runs the same with [`Limits::of_memory`] and [`Alone`], or [`Cpus`] of its machine; for one
//! that implements [`Allocator`] there is [`check_allocator`], which knows its wider promises as well. The answer is
//! the first [`Broken`] property: its name, the layout of the block, what the kit was about, and what it found.
//!
//! What is checked, for both: blocks are where and as long as they must be; bytes stay as they were written while
//! others come and go, grow, shrink, move to other threads; no two blocks share a byte; what is said to be zero is;
//! what cannot be is refused, and leaves all as it was; at the end of memory there is a `None`, and after the frees
//! there is memory again. The rules come from the documentation of the two traits. What they leave to the allocator
//! (how much longer a block is than asked for, whether it moves) is left to it here.
//!
//! **It asks for nothing but the allocator under test.** What the kit notes down lies in blocks of that allocator, next
//! to those it looks at, and so is under test as well. It is `no_std`, makes no thread but through the [`Crew`], keeps
//! to the [`Limits`], and ends with nothing lent. After a fault it stops, and leaves lent what it held: an allocator
//! known to be broken is asked for nothing more.
//!
//! **It trusts the allocator in one thing**, which no test can do without: that a block which was lent can be written
//! to. A fault may show as a crash all the same, in the allocator more often than in the kit.
//!
//! ```text
//! fault       what was found
//! pattern     what blocks are filled with
//! memory      the allocator under test, and its blocks                 [unsafe]
//! constant    requests whose layout the compiler knows                 [unsafe]
//! kit         what a property has at hand: limits, crew, layouts
//! store       where the kit keeps blocks: tables, chains               [unsafe]
//! single resize churn exhaust threads api     the properties, by theme
//! ```

mod api;
mod churn;
#[allow(unsafe_code, reason = "asks `GlobalAlloc` for memory")]
mod constant;
mod exhaust;
mod fault;
mod kit;
#[allow(unsafe_code, reason = "asks for memory, and writes to it")]
mod memory;
mod pattern;
mod resize;
mod single;
#[allow(unsafe_code, reason = "keeps blocks as data in other blocks")]
mod store;
mod threads;

use core::alloc::GlobalAlloc;
use core::fmt;

use allocator_api2::alloc::Allocator;

pub use fault::{Broken, Fault};
#[cfg(feature = "std")]
pub use kit::Threads;
pub use kit::{Alone, Cpus, Crew, Limits};

use kit::Kit;
use memory::{ByApi, ByGlobal, Subject};

/// Something that every allocator has to keep.
pub struct Property {
    /// Its name, an identifier.
    pub name: &'static str,
    body: fn(&Kit<'_>) -> Result<(), Broken>,
}

macro_rules! list {
    ($($theme:ident :: $name:ident,)*) => {
        &[$(Property { name: stringify!($name), body: $theme::$name }),*]
    };
}

/// What holds for every allocator, the plainest first.
pub const PROPERTIES: &[Property] = list![
    single::alignment,
    single::contents,
    single::constant_layouts,
    single::many_of_a_size,
    single::no_overlap,
    single::zeroed,
    single::impossible,
    resize::grow,
    resize::shrink,
    resize::back_and_forth,
    resize::refused,
    churn::churn,
    threads::freed_by_another,
    threads::churn_by_all,
    exhaust::exhaustion,
    exhaust::exhaustion_by_turns,
    exhaust::exhaustion_by_all,
];

/// What only an [`Allocator`] promises.
pub const API_PROPERTIES: &[Property] =
    list![api::zero_sized, api::excess, api::fitting_layouts, api::realigned, api::grown_zeroed,];

impl Property {
    /// Checks this property of an allocator, one of [`PROPERTIES`].
    pub fn check_global<A: GlobalAlloc + Sync>(
        &self,
        allocator: &A,
        limits: &Limits,
        crew: &dyn Crew,
    ) -> Result<(), Broken> {
        assert!(PROPERTIES.iter().any(|property| property.name == self.name), "{self:?} is beyond `GlobalAlloc`");
        self.check(&ByGlobal(allocator), limits, crew)
    }

    /// Checks this property of an allocator.
    pub fn check_allocator<A: Allocator + Sync>(
        &self,
        allocator: &A,
        limits: &Limits,
        crew: &dyn Crew,
    ) -> Result<(), Broken> {
        self.check(&ByApi(allocator), limits, crew)
    }

    fn check(&self, subject: &dyn Subject, limits: &Limits, crew: &dyn Crew) -> Result<(), Broken> {
        let kit = Kit::new(subject, *limits, crew);
        (self.body)(&kit).map_err(|broken| Broken { property: self.name, ..broken })
    }
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Property").field(&self.name).finish()
    }
}

/// Checks all that holds for a `GlobalAlloc`; `report` is told the name of each property before it is checked.
///
/// # Errors
/// The first property that does not hold.
pub fn check_global<A: GlobalAlloc + Sync>(
    allocator: &A,
    limits: &Limits,
    crew: &dyn Crew,
    report: &mut dyn FnMut(&str),
) -> Result<(), Broken> {
    PROPERTIES.iter().try_for_each(|property| {
        report(property.name);
        property.check_global(allocator, limits, crew)
    })
}

/// Checks all that holds for an `Allocator`; `report` is told the name of each property before it is checked.
///
/// # Errors
/// The first property that does not hold.
pub fn check_allocator<A: Allocator + Sync>(
    allocator: &A,
    limits: &Limits,
    crew: &dyn Crew,
    report: &mut dyn FnMut(&str),
) -> Result<(), Broken> {
    PROPERTIES.iter().chain(API_PROPERTIES).try_for_each(|property| {
        report(property.name);
        property.check_allocator(allocator, limits, crew)
    })
}
