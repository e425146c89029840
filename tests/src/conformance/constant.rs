//! Requests whose layouts the compiler knows: an allocator that is inlined into its caller becomes other code there,
//! with its size class a constant, and none of the other properties would run it.

use core::alloc::{GlobalAlloc, Layout};

/// How to ask for a block of one constant layout, and how to give it back.
pub(super) type Calls<A> = (fn(&A) -> *mut u8, unsafe fn(&A, *mut u8));

struct Fixed<const SIZE: usize, const ALIGN: usize>;

impl<const SIZE: usize, const ALIGN: usize> Fixed<SIZE, ALIGN> {
    const LAYOUT: Layout = match Layout::from_size_align(SIZE, ALIGN) {
        Ok(layout) if SIZE != 0 => layout,
        _ => panic!("not a layout to ask for"),
    };

    #[inline(never)]
    fn allocate<A: GlobalAlloc>(allocator: &A) -> *mut u8 {
        // SAFETY: the size is not zero.
        unsafe { allocator.alloc(Self::LAYOUT) }
    }

    /// # Safety
    /// The block was asked for with this layout, and is lent.
    #[inline(never)]
    unsafe fn deallocate<A: GlobalAlloc>(allocator: &A, start: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { allocator.dealloc(start, Self::LAYOUT) };
    }
}

struct Table<A>(A);

macro_rules! layouts {
    ($($size:literal @ $align:literal),* $(,)?) => {
        /// The layouts.
        pub(super) const LAYOUTS: [Layout; [$($size),*].len()] = [$(Fixed::<$size, $align>::LAYOUT),*];

        impl<A: GlobalAlloc> Table<A> {
            const CALLS: [Calls<A>; LAYOUTS.len()] =
                [$((Fixed::<$size, $align>::allocate::<A>, Fixed::<$size, $align>::deallocate::<A>)),*];
        }
    };
}

layouts![
    1 @ 1, 2 @ 2, 3 @ 1, 4 @ 4, 7 @ 1, 8 @ 8, 9 @ 1, 12 @ 4, 16 @ 8, 16 @ 16, 17 @ 1, 24 @ 8, 25 @ 1, 32 @ 8, 32 @ 32,
    33 @ 1, 40 @ 8, 48 @ 8, 48 @ 16, 56 @ 8, 64 @ 8, 64 @ 64, 65 @ 1, 72 @ 8, 80 @ 8, 88 @ 8, 96 @ 8, 96 @ 32, 104 @ 8,
    112 @ 8, 120 @ 8, 128 @ 8, 128 @ 128, 136 @ 8, 144 @ 16, 160 @ 8, 192 @ 64, 224 @ 8, 240 @ 8, 256 @ 8, 288 @ 32,
    320 @ 8, 384 @ 128, 512 @ 512, 576 @ 8, 640 @ 8, 1000 @ 8, 1024 @ 8, 1152 @ 8, 1280 @ 8, 2048 @ 8, 2560 @ 8,
    3000 @ 8, 4096 @ 8, 4096 @ 4096, 4368 @ 8, 5120 @ 8, 5632 @ 512, 6144 @ 2048, 8192 @ 8, 10240 @ 8, 16384 @ 8,
    18432 @ 8, 24576 @ 8, 30720 @ 8, 32768 @ 8, 32769 @ 1, 40960 @ 8, 65536 @ 8, 65536 @ 65536, 131072 @ 8, 1048576 @ 8,
    1 @ 64, 8 @ 16, 24 @ 64, 100 @ 4096,
];

/// The calls for one of the [`LAYOUTS`].
pub(super) fn calls<A: GlobalAlloc>(which: usize) -> Calls<A> {
    Table::<A>::CALLS[which]
}
