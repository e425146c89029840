//! Which nodes the system takes a heap's pages from, where somebody has a wish and there is a choice.
#![allow(unsafe_code, reason = "system calls on memory")]

use std::ops::Range;
use std::ptr;

use crate::errno::keeping_errno;
use crate::options::NumaChoice;
use crate::reserve::Reservation;

/// What the system may number at most.
const MOST_NODES: usize = 1024;
const WORD_BITS: usize = u64::BITS as usize;

/// Nodes by the system's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Nodes([u64; MOST_NODES / WORD_BITS]);

impl Nodes {
    const NONE: Self = Self([0; MOST_NODES / WORD_BITS]);

    fn one(number: u32) -> Self {
        let mut nodes = Self::NONE;
        if let Some(word) = nodes.0.get_mut(number as usize / WORD_BITS) {
            *word = 1 << (number as usize % WORD_BITS);
        }
        nodes
    }

    /// Those that the process may have memory of; node 0 where the system knows no nodes.
    fn allowed() -> Self {
        /// `MPOL_F_MEMS_ALLOWED`.
        const ALLOWED: usize = 4;
        let mut nodes = Self::NONE;
        let (mode, none) = (ptr::null_mut::<libc::c_int>(), ptr::null::<u8>());
        // SAFETY: the call writes the mask it is given, of so many bits.
        let told = keeping_errno(|| unsafe {
            libc::syscall(libc::SYS_get_mempolicy, mode, nodes.0.as_mut_ptr(), MOST_NODES, none, ALLOWED)
        });
        if told == 0 && nodes != Self::NONE { nodes } else { Self::one(0) }
    }

    fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn has(&self, number: u32) -> bool {
        let mask = Self::one(number);
        mask != Self::NONE && self.0.iter().zip(mask.0).all(|(own, other)| own & other == other)
    }
}

/// Whether the process may have memory as this says.
pub(crate) fn are_there(choice: NumaChoice) -> bool {
    match choice {
        NumaChoice::Local | NumaChoice::Interleave => true,
        NumaChoice::Bind(number) | NumaChoice::Preferred(number) => Nodes::allowed().has(number),
    }
}

/// Has the system take pages that nobody has touched yet from where `choice` says, if it has a choice at all. A system
/// that does not want to takes them from where it likes.
pub(crate) fn place(reservation: Reservation, range: Range<usize>, choice: NumaChoice) {
    if choice == NumaChoice::Local {
        return;
    }
    let allowed = Nodes::allowed();
    if allowed.count() > 1 {
        place_on(reservation, range, choice, allowed);
    }
}

/// The same among these nodes; `false` if the system does not want to.
fn place_on(reservation: Reservation, range: Range<usize>, choice: NumaChoice, allowed: Nodes) -> bool {
    let (mode, nodes) = match choice {
        NumaChoice::Local => return true,
        NumaChoice::Interleave => (libc::MPOL_INTERLEAVE, allowed),
        NumaChoice::Bind(number) => (libc::MPOL_BIND, Nodes::one(number)),
        NumaChoice::Preferred(number) => (libc::MPOL_PREFERRED, Nodes::one(number)),
    };
    let Some((first, bytes)) = reservation.pages(range) else { return false };
    // One more bit than there are: the system does not look at the last one.
    let most = MOST_NODES + 1;
    // SAFETY: a wish about pages of this reservation; the mask is read during the call.
    keeping_errno(|| unsafe {
        libc::syscall(libc::SYS_mbind, first.as_ptr(), bytes, mode, nodes.0.as_ptr(), most, 0) == 0
    })
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_bits() {
        assert_eq!(Nodes::one(1024), Nodes::NONE);
        assert!(Nodes::one(1023).has(1023) && !Nodes::one(1023).has(1022) && !Nodes::one(3).has(1024));
        assert_eq!((Nodes::NONE.count(), Nodes::one(70).count()), (0, 1));
    }

    #[test]
    fn the_process_has_a_node_and_pages_can_be_placed_there() {
        let allowed = Nodes::allowed();
        let number = (0..MOST_NODES as u32).find(|&number| allowed.has(number)).expect("at least one");
        assert!(are_there(NumaChoice::Bind(number)) && are_there(NumaChoice::Interleave));
        assert!(!are_there(NumaChoice::Preferred(u32::MAX)));
        let reservation = Reservation::new(4 << 20, 4096).expect("address space");
        assert!(reservation.commit(0..4 << 20));
        for (choice, mode) in [
            (NumaChoice::Interleave, libc::MPOL_INTERLEAVE),
            (NumaChoice::Bind(number), libc::MPOL_BIND),
            (NumaChoice::Preferred(number), libc::MPOL_PREFERRED),
        ] {
            if !place_on(reservation, 0..1 << 20, choice, allowed) {
                println!("the system places nothing");
                break;
            }
            let (mut found, of_address, none) = (-1, 2usize, ptr::null::<u64>());
            let (at, most) = (reservation.start(), 0usize);
            // SAFETY: the call writes the number it is given.
            let told = unsafe { libc::syscall(libc::SYS_get_mempolicy, &mut found, none, most, at, of_address) };
            assert_eq!((told, found), (0, mode), "{choice:?}");
        }
        place(reservation, 1 << 20..2 << 20, NumaChoice::Interleave);
        // SAFETY: usable, and nobody else's.
        unsafe { reservation.start().write(1) };
        reservation.give_up();
    }
}
