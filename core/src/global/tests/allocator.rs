//! The `Allocator` traits.

use super::*;

macro_rules! conforms {
    ($name:ident, $($allocator:ident)::+) => {
        #[test]
        fn $name() {
            use $($allocator)::+;

            let heap = heap::<Checked>(512, 1);
            let nothing = heap.allocate(layout(0, 64)).unwrap();
            assert!(nothing.is_empty() && is_aligned(nothing.cast(), layout(0, 64)));
            assert_eq!(heap.validate().unwrap().lent(), 0, "no bytes are not the heap's");
            let mut old = layout(0, 64);
            let mut object = nothing.cast::<u8>();
            for new in [layout(10, 1), layout(10, 64), layout(300, 8), layout(40_000, 8), layout(90_000, 4096)] {
                // SAFETY: lent as `old`.
                let grown = unsafe { heap.grow_zeroed(object, old, new) }.unwrap();
                assert_eq!(grown.len(), new.size());
                assert!(is_aligned(grown.cast(), new));
                // SAFETY: lent.
                let bytes = unsafe { &mut *grown.as_ptr() };
                assert!(is_all(&bytes[..old.size()], 7), "{new:?}");
                assert!(is_all(&bytes[old.size()..], 0), "{new:?}");
                bytes.fill(7);
                (object, old) = (grown.cast(), new);
            }
            for new in [layout(90_000, 1), layout(50_000, 8), layout(3000, 8), layout(2900, 1), layout(1, 1)] {
                // SAFETY: lent as `old`.
                let less = unsafe { heap.shrink(object, old, new) }.unwrap();
                // SAFETY: lent.
                assert!(is_all(unsafe { less.as_ref() }, 7), "{new:?}");
                assert_eq!(less.len(), new.size());
                (object, old) = (less.cast(), new);
            }
            // SAFETY: lent as `old`.
            let grown = unsafe { heap.grow(object, old, layout(5, 1)) }.unwrap();
            // SAFETY: lent.
            assert_eq!(unsafe { grown.cast::<u8>().read() }, 7);
            // SAFETY: lent so.
            let nothing = unsafe { heap.shrink(grown.cast(), layout(5, 1), layout(0, 16)) }.unwrap();
            assert!(nothing.is_empty());
            // SAFETY: no bytes at all.
            unsafe { heap.deallocate(nothing.cast(), layout(0, 16)) };
            let zeroed = heap.allocate_zeroed(layout(70_000, 1)).unwrap();
            // SAFETY: lent.
            assert!(is_all(unsafe { zeroed.as_ref() }, 0));
            // SAFETY: lent so.
            unsafe { heap.deallocate(zeroed.cast(), layout(70_000, 1)) };
            assert!(heap.allocate(layout(isize::MAX as usize, 1)).is_err());
            heap.drain();
            assert_eq!(heap.validate().unwrap().lent(), 0);
        }
    };
}

#[cfg(feature = "allocator-api2")]
conforms!(the_copy_for_stable_rust, allocator_api2::alloc::Allocator);
#[cfg(feature = "allocator_api")]
conforms!(that_of_the_standard_library, core::alloc::Allocator);

#[cfg(feature = "allocator_api")]
#[test]
fn collections_live_in_a_heap_of_their_own() {
    let heap = heap::<Checked>(512, 1);
    let mut numbers = Vec::new_in(heap);
    numbers.extend(0..20_000u64);
    assert_eq!(numbers.iter().sum::<u64>(), 19_999 * 10_000);
    numbers.truncate(3);
    numbers.shrink_to_fit();
    let boxes: Vec<_, _> = {
        let mut boxes = Vec::new_in(heap);
        boxes.extend((0..500u32).map(|number| std::boxed::Box::new_in(number, heap)));
        boxes
    };
    assert!(boxes.iter().map(|number| **number).eq(0..500));
    drop((numbers, boxes));
    heap.drain();
    assert_eq!(heap.validate().unwrap().lent(), 0);
}
