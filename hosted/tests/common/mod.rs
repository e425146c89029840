//! What tests of whole processes share.

use std::thread;
use std::time::Duration;

use pagemill_hosted::{Level, Pagemill};

/// Checks that the heap adds up. It does while nothing moves, and the harness has threads that come and end: so it may
/// take a few looks until none of them is at it.
pub(crate) fn adds_up<L: Level>(heap: &Pagemill<L>) {
    let mut looks = 0;
    while let Err(wrong) = heap.heap().validate() {
        looks += 1;
        assert!(looks < 50, "a heap that does not add up: {wrong}");
        thread::sleep(Duration::from_millis(10));
    }
}
