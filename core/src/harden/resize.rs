//! Another size for an object.

use core::alloc::Layout;

use super::guard::Guarded;
use super::{Ask, memory, slot_class};
use crate::config::Config;
use crate::error::{BadFree, BadFreeKind};
use crate::global::Refused;
use crate::heap::Heap;
use crate::platform::Platform;
use crate::size_class::SizeClass;

/// What is lent at an address, and how many bytes were asked for.
enum Lent {
    Small(SizeClass, usize),
    Large(Guarded),
}

impl Lent {
    fn size(&self) -> usize {
        match self {
            Self::Small(_, size) => *size,
            Self::Large(block) => block.size,
        }
    }
}

impl<'m, P: Platform, C: Config> Heap<'m, P, C> {
    /// Makes an object one for `new`: where it is if its slot or its frames are right for that, else somewhere else.
    /// `old` is what it was asked for as, if anybody knows.
    ///
    /// # Safety
    /// As [`Heap::realloc`].
    pub(crate) unsafe fn change_hardened(
        &self,
        address: usize,
        old: Option<Layout>,
        new: Layout,
        fault: fn(&Self, BadFree),
    ) -> Result<usize, Refused> {
        let lent = self.lent(address, old).map_err(Refused::Free)?;
        if self.resize_hardened(address, &lent, new) {
            return Ok(address);
        }
        let ask = Ask { layout: new, reclaim: true, zeroed: false };
        let moved = self.alloc_hardened(ask, fault).map_err(Refused::Alloc)?;
        let (from, to) = (self.window.pointer(address), self.window.pointer(moved));
        // SAFETY: two objects that are lent, neither shorter than this; the caller's promise.
        unsafe { memory::copy(from, to, lent.size().min(new.size())) };
        // Whatever was found here has been reported: the object is where it belongs all the same.
        let _ = self.free_hardened(address, None);
        Ok(moved)
    }

    /// The object that is lent at `address`.
    fn lent(&self, address: usize, layout: Option<Layout>) -> Result<Lent, BadFree> {
        let found = self.slab_of(address).and_then(|slab| slab.class().map(|class| (slab, class)));
        let Some((slab, class)) = found else { return self.lent_guarded(address, layout).map(Lent::Large) };
        let said = layout.map_or(Some(class), slot_class);
        if said != Some(class) || !self.is_lent(slab, class, address) {
            return Err(self.refuse_hardened(address, said));
        }
        self.is_as_lent(class, address, layout).map_err(|kind| self.accuse(kind, address, class.bytes()))?;
        match self.size_of(class, address) {
            Some(size) => Ok(Lent::Small(class, size)),
            None => Err(self.accuse(BadFreeKind::Overrun, address, class.bytes())),
        }
    }

    fn resize_hardened(&self, address: usize, lent: &Lent, new: Layout) -> bool {
        match lent {
            Lent::Small(class, size) => {
                let fits = slot_class(new) == Some(*class);
                if fits {
                    // What the slack was filled with is nothing for the user.
                    self.fill(address + size, new.size().saturating_sub(*size), C::POISON);
                    self.seal(address, class.bytes(), new.size());
                }
                fits
            }
            Lent::Large(block) => self.resize_guarded(address, block, new),
        }
    }
}
