//! Levels of the process's heap beside those of the core.

use std::marker::PhantomData;

use pagemill::{Checked, Config};

/// A level for programs whose signal handlers allocate or free, which may interrupt the allocator anywhere. It notes
/// for each request that it is under way, which costs a nanosecond a pair.
#[derive(Debug)]
pub struct WithHandlers<L = Checked>(PhantomData<L>);

impl<L: Config> Config for WithHandlers<L> {
    const CHECKED: bool = L::CHECKED;
    const HARDENED: bool = L::HARDENED;
    const POISON: u8 = L::POISON;
    const QUARANTINE_OBJECTS: usize = L::QUARANTINE_OBJECTS;
    const QUARANTINE_BYTES: usize = L::QUARANTINE_BYTES;
}
