//! Like xmalloc-test: one half of the threads allocates, and the other half frees.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};

use crate::block::Block;
use crate::load::Load;
use crate::meter::Meter;
use crate::rng::Rng;

const BATCH: usize = 4096;
const QUEUED: usize = 16;
const LOW: usize = 8;
const HIGH: usize = 128;

type Batch = Vec<Block>;

/// Pairs of a producer and a consumer on one queue. One thread is both.
pub fn run(load: &Load, _: &mut Meter) -> u64 {
    let batches = load.times(1500) / load.threads.div_ceil(2) + 1;
    if load.threads == 1 {
        alone(batches);
        return (batches * BATCH) as u64;
    }
    let producers = load.threads / 2;
    let queue = Queue::new(producers);
    load.on_each_thread(|index| {
        if index >= producers {
            while queue.pop().is_some() {}
            return;
        }
        let mut rng = Rng::new(index);
        for _ in 0..batches {
            queue.push(produce(&mut rng));
        }
        queue.close();
    });
    (batches * BATCH * producers) as u64
}

fn produce(rng: &mut Rng) -> Batch {
    (0..BATCH).map(|_| Block::new(rng.within(LOW, HIGH))).collect()
}

fn alone(batches: usize) {
    let mut rng = Rng::new(0);
    let mut queue = VecDeque::with_capacity(QUEUED);
    for _ in 0..batches {
        if queue.len() == QUEUED {
            queue.pop_front();
        }
        queue.push_back(produce(&mut rng));
    }
}

struct State {
    batches: VecDeque<Batch>,
    /// Those that are still at work.
    producers: usize,
}

struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

impl Queue {
    fn new(producers: usize) -> Self {
        let state = State { batches: VecDeque::with_capacity(QUEUED), producers };
        Self { state: Mutex::new(state), filled: Condvar::new(), emptied: Condvar::new() }
    }

    fn push(&self, batch: Batch) {
        let state = self.state.lock().expect("nobody panics with the lock");
        let mut state = self.emptied.wait_while(state, |s| s.batches.len() >= QUEUED).expect("nobody panics");
        state.batches.push_back(batch);
        self.filled.notify_one();
    }

    /// The oldest batch; `None` when there will be no more.
    fn pop(&self) -> Option<Batch> {
        let state = self.state.lock().expect("nobody panics with the lock");
        let waiting = |s: &mut State| s.batches.is_empty() && s.producers > 0;
        let mut state = self.filled.wait_while(state, waiting).expect("nobody panics");
        let batch = state.batches.pop_front();
        self.emptied.notify_one();
        batch
    }

    fn close(&self) {
        self.state.lock().expect("nobody panics with the lock").producers -= 1;
        self.filled.notify_all();
    }
}
