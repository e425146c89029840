//! The edge to other crates' traits.
#![allow(unsafe_code)]

use x86_64::PhysAddr;
use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, PageSize, PhysFrame, Size2MiB, Size4KiB};

use crate::config::Config;
use crate::flags::AllocFlags;
use crate::frame::{FrameCount, Pfn};
use crate::frames::Frames;
use crate::order::Order;
use crate::platform::Platform;

/// The order of a page of size `S`, if the instance counts 4 KiB frames.
const fn order_of<S: PageSize, C: Config>() -> Order {
    const { assert!(C::FRAME_BYTES as u64 == Size4KiB::SIZE, "the x86_64 traits are about 4 KiB frames") };
    match Order::new((S::SIZE / Size4KiB::SIZE).trailing_zeros()) {
        Some(order) => order,
        None => panic!("no instance has blocks of this page size"),
    }
}

fn lend<S: PageSize, P: Platform, C: Config>(frames: &Frames<'_, P, C>) -> Option<PhysFrame<S>> {
    let pfn = frames.alloc_raw(const { order_of::<S, C>() }, AllocFlags::empty()).ok()?;
    let address = PhysAddr::try_new((pfn.number() as u64).checked_mul(Size4KiB::SIZE)?).ok()?;
    PhysFrame::from_start_address(address).ok()
}

fn take_back<S: PageSize, P: Platform, C: Config>(frames: &Frames<'_, P, C>, frame: PhysFrame<S>) {
    let order = const { order_of::<S, C>() };
    let start = Pfn::new((frame.start_address().as_u64() / Size4KiB::SIZE) as usize);
    // A refused free has reached the fault hook; the trait has no way to say more.
    let _ = frames.free_raw(start, FrameCount::new(order.frames()));
}

// By shared reference: `Mapper::map_to` wants `&mut impl FrameAllocator`, and `&mut &FRAMES` is one, on every CPU at
// once.
macro_rules! frame_allocator {
    ($($size:ty),*) => {$(
        // SAFETY: a frame that `Frames` lends is lent to nobody else until it is freed, and its address is that of a
        // page of this size, because a block is aligned to its own size.
        unsafe impl<P: Platform, C: Config> FrameAllocator<$size> for &Frames<'_, P, C> {
            fn allocate_frame(&mut self) -> Option<PhysFrame<$size>> {
                lend(self)
            }
        }

        impl<P: Platform, C: Config> FrameDeallocator<$size> for &Frames<'_, P, C> {
            unsafe fn deallocate_frame(&mut self, frame: PhysFrame<$size>) {
                take_back(self, frame);
            }
        }
    )*};
}
frame_allocator!(Size4KiB, Size2MiB);

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::config::Checked;
    use crate::testing::{machine, span};

    #[test]
    fn both_page_sizes_come_and_go_through_a_shared_reference() {
        let frames = machine::<Checked>(span(512, 2048), 1);
        let mut shared = &frames;
        let small: PhysFrame<Size4KiB> = shared.allocate_frame().unwrap();
        let huge: PhysFrame<Size2MiB> = shared.allocate_frame().unwrap();
        assert_eq!(huge.start_address().as_u64() % Size2MiB::SIZE, 0);
        assert!(small.start_address().as_u64() >= 512 * 4096);
        // SAFETY: both were just allocated and are used by nobody.
        unsafe { shared.deallocate_frame(small) };
        // SAFETY: as above.
        unsafe { shared.deallocate_frame(huge) };
        frames.drain();
        frames.validate().unwrap();
        assert_eq!(frames.census().lent(), 0);
    }
}
