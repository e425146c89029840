//! Objects of other nodes that a CPU has freed, until there are enough of them to be worth a journey.

use crate::sync::{OwnerU32, OwnerUsize, const_fn};

/// How many go home together.
pub(crate) const PARCEL: usize = if cfg!(any(loom, shuttle)) { 2 } else { 64 };

/// Addresses in the order of the frees. Only its CPU changes it; others may look.
///
/// All zero bits are an empty one.
pub(crate) struct Outbox {
    len: OwnerU32,
    addresses: [OwnerUsize; PARCEL],
}

impl Outbox {
    const_fn! {
        pub(crate) const fn new() -> Self {
            Self {
                len: OwnerU32::new(0),
                #[cfg(not(loom))]
                addresses: [const { OwnerUsize::new(0) }; PARCEL],
                #[cfg(loom)]
                addresses: core::array::from_fn(|_| OwnerUsize::new(0)),
            }
        }
    }

    /// Puts an address in, unless there are enough already.
    pub(crate) fn put(&self, address: usize) -> bool {
        let len = self.len.get();
        let Some(place) = self.addresses.get(len as usize) else { return false };
        place.set(address);
        self.len.set(len + 1);
        true
    }

    /// Takes all out, in order of their addresses, so that neighbours go home as one. Answers how many there are.
    pub(crate) fn take(&self, out: &mut [usize; PARCEL]) -> usize {
        let count = self.len.get() as usize;
        self.len.set(0);
        for (out, address) in out.iter_mut().zip(&self.addresses[..count]) {
            *out = address.get();
        }
        out[..count].sort_unstable();
        count
    }

    /// What is in there.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.addresses[..self.len.get() as usize].iter().map(OwnerUsize::get)
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_out_in_order_and_once() {
        let outbox = Outbox::new();
        assert!((0..PARCEL).all(|n| outbox.put(8 * (PARCEL - n))));
        assert!(!outbox.put(1), "there are enough");
        assert_eq!(outbox.iter().count(), PARCEL);
        let mut out = [0; PARCEL];
        assert_eq!(outbox.take(&mut out), PARCEL);
        assert!(out.is_sorted() && out[0] == 8 && out[PARCEL - 1] == 8 * PARCEL);
        assert_eq!((outbox.take(&mut out), outbox.iter().count()), (0, 0));
    }
}
