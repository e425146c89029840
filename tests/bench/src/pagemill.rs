//! pagemill itself, as its documentation shows it.

use pagemill::{AllocFlags, Block, Config, Order, Pfn};
use pagemill_hosted::Hosted;

use crate::frames::{Cpu, Frames};
use crate::machine::{Cpus, Instance, Kernel, Simulated, locks_taken};

/// pagemill on the machine `P` at the level `C`.
pub struct Mill<P: Cpus, C: Config> {
    instance: Instance<P, C>,
    cpus: usize,
    frames: usize,
}

/// In kernel style.
pub type KernelMill<C> = Mill<Kernel, C>;
/// In a process.
pub type HostedMill<C> = Mill<Hosted, C>;
/// On a machine that one thread plays.
pub type SimulatedMill<C> = Mill<Simulated, C>;

impl<P, C> Frames for Mill<P, C>
where
    P: Cpus,
    C: Config + 'static,
    Instance<P, C>: Sync,
{
    const SIMULATES_CPUS: bool = P::SIMULATED;

    type Cpu<'a>
        = MillCpu<'a, P, C>
    where
        Self: 'a;

    fn new(frames: usize, cpus: usize) -> Self {
        P::prepare();
        Self { instance: Instance::new(frames, cpus), cpus, frames }
    }

    fn cpu(&self, index: usize) -> MillCpu<'_, P, C> {
        let place = P::become_cpu(index);
        self.instance.settle();
        MillCpu { instance: &self.instance, place }
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
pub struct MillCpu<'a, P: Cpus, C: Config> {
    instance: &'a Instance<P, C>,
    place: P::Place,
}

impl<P: Cpus, C: Config> Cpu for MillCpu<'_, P, C> {
    fn enter(&mut self) {
        P::return_to(&self.place);
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
