//! A word that CPUs wait for.

use core::sync::atomic::{AtomicBool, Ordering};

/// Raised once, by one CPU, for the others to see.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn is_raised(&self) -> bool {
        // Relaxed: it says only that waiting is over.
        self.0.load(Ordering::Relaxed)
    }

    /// Raises the flag when the answer is dropped: in a panic as well, so that nobody waits for a CPU that has failed.
    pub(crate) fn raise_at_end(&self) -> impl Drop + '_ {
        struct Raise<'a>(&'a Flag);
        impl Drop for Raise<'_> {
            fn drop(&mut self) {
                self.0.0.store(true, Ordering::Relaxed);
            }
        }
        Raise(self)
    }
}
