//! pagemill itself, as its documentation shows it.

use pagemill::{AllocFlags, Block, Config, Order, Pfn, Platform};

use crate::frames::{Cpu, Frames};
use crate::machine::{Instance, Kernel, Simulated, become_cpu, locks_taken};

/// pagemill on the machine `P` at the level `C`.
pub struct Mill<P: Platform, C: Config> {
    instance: Instance<P, C>,
    cpus: usize,
    frames: usize,
}

/// In kernel style.
pub type KernelMill<C> = Mill<Kernel, C>;
/// On a machine that one thread plays.
pub type SimulatedMill<C> = Mill<Simulated, C>;

impl<P, C> Frames for Mill<P, C>
where
    P: Platform,
    C: Config,
    Instance<P, C>: Sync,
{
    type Cpu<'a>
        = MillCpu<'a, P, C>
    where
        Self: 'a;

    fn new(frames: usize, cpus: usize) -> Self {
        Self { instance: Instance::new(frames, cpus), cpus, frames }
    }

    fn cpu(&self, index: usize) -> MillCpu<'_, P, C> {
        become_cpu(index);
        MillCpu { instance: &self.instance, index }
    }

    fn verify(&self) {
        if let Err(invalid) = self.instance.frames().validate() {
            panic!("pagemill is not in order: {invalid:?}");
        }
    }

    fn metadata_bytes(&self) -> Option<usize> {
        Some(Instance::<P, C>::metadata_bytes(self.frames, self.cpus))
    }

    fn locks_taken(&self) -> Option<u64> {
        Some(locks_taken())
    }
}

/// A CPU of [`Mill`].
pub struct MillCpu<'a, P: Platform, C: Config> {
    instance: &'a Instance<P, C>,
    index: usize,
}

impl<P: Platform, C: Config> Cpu for MillCpu<'_, P, C> {
    fn enter(&mut self) {
        become_cpu(self.index);
    }

    #[inline]
    fn alloc(&mut self, order: usize) -> Option<usize> {
        let order = Order::new(order as u32)?;
        let block = self.instance.frames().alloc(order, AllocFlags::empty()).ok()?;
        Some(block.into_raw().0.number())
    }

    #[inline]
    fn free(&mut self, frame: usize, order: usize) {
        let block = Order::new(order as u32).and_then(|order| Block::from_raw(Pfn::new(frame), order));
        let freed = block.map(|block| self.instance.frames().free(block));
        assert!(freed.is_some_and(|freed| freed.is_ok()), "frame {frame} of order {order} was not taken back");
    }
}
