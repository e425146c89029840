//! Proof that no frame is lent twice: any allocator, with a shadow bitmap beside it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::frames::{Cpu, Frames};

/// An allocator whose every answer is held against a bitmap of the frames lent.
pub struct Checked<P> {
    inner: P,
    lent: Vec<AtomicU64>,
    frames: usize,
}

impl<P: Frames> Frames for Checked<P> {
    type Cpu<'a>
        = CheckedCpu<'a, P>
    where
        P: 'a;

    fn new(frames: usize, cpus: usize) -> Self {
        let lent = (0..frames.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { inner: P::new(frames, cpus), lent, frames }
    }

    fn cpu(&self, index: usize) -> CheckedCpu<'_, P> {
        CheckedCpu { shared: self, inner: self.inner.cpu(index) }
    }

    fn verify(&self) {
        self.inner.verify();
    }
}

/// One CPU's way in.
pub struct CheckedCpu<'a, P: Frames + 'a> {
    shared: &'a Checked<P>,
    inner: P::Cpu<'a>,
}

impl<P: Frames> Checked<P> {
    /// The words of the bitmap that a block covers, each with its mask.
    fn words(&self, frame: usize, order: usize) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let mask = if order < 6 { ((1 << (1 << order)) - 1) << (frame % 64) } else { u64::MAX };
        let words = (1usize << order).div_ceil(64);
        self.lent[frame / 64..frame / 64 + words].iter().map(move |word| (word, mask))
    }
}

impl<P: Frames> Cpu for CheckedCpu<'_, P> {
    fn alloc(&mut self, order: usize) -> Option<usize> {
        let frame = self.inner.alloc(order)?;
        assert!(frame % (1 << order) == 0, "frame {frame} is not aligned to order {order}");
        assert!(frame + (1 << order) <= self.shared.frames, "frame {frame} is beyond the end");
        for (word, mask) in self.shared.words(frame, order) {
            let before = word.fetch_or(mask, Ordering::AcqRel);
            assert_eq!(before & mask, 0, "frame {frame} of order {order} was lent twice");
        }
        Some(frame)
    }

    fn free(&mut self, frame: usize, order: usize) {
        // Cleared first: from the moment of the free another CPU may be lent the block.
        for (word, mask) in self.shared.words(frame, order) {
            let before = word.fetch_and(!mask, Ordering::AcqRel);
            assert_eq!(before & mask, mask, "the harness freed frame {frame} of order {order} twice");
        }
        self.inner.free(frame, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lends frame 0 to everybody.
    struct Generous;

    impl Frames for Generous {
        type Cpu<'a> = &'a Generous;

        fn new(_: usize, _: usize) -> Self {
            Generous
        }

        fn cpu(&self, _: usize) -> &Generous {
            self
        }
    }

    impl Cpu for &Generous {
        fn alloc(&mut self, _: usize) -> Option<usize> {
            Some(0)
        }

        fn free(&mut self, _: usize, _: usize) {}
    }

    #[test]
    fn a_frame_may_be_lent_again_after_its_free() {
        let frames = Checked::<Generous>::new(1024, 1);
        let mut cpu = frames.cpu(0);
        assert_eq!(cpu.alloc(9), Some(0));
        cpu.free(0, 9);
        assert_eq!(cpu.alloc(0), Some(0));
    }

    #[test]
    #[should_panic(expected = "lent twice")]
    fn a_frame_lent_twice_is_seen() {
        let frames = Checked::<Generous>::new(1024, 1);
        let mut cpu = frames.cpu(0);
        cpu.alloc(9);
        cpu.alloc(0);
    }
}
