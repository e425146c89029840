//! A program on pagemill's heap: threads build collections and drop one another's, and the heap shows what it is made
//! of.
//!
//! ```text
//! cargo run --release -p pagemill-hosted --example objects
//! ```

extern crate alloc;

#[path = "../../tests/src/collections.rs"]
mod collections;

use std::hint::black_box;
use std::sync::mpsc;
use std::time::Instant;

use collections::Collections;
use pagemill_hosted::Pagemill;
use pagemill_tests::Rng;

#[global_allocator]
static ALLOCATOR: Pagemill = Pagemill::new();

const THREADS: u64 = 4;
const STEPS: usize = 50_000;

fn main() {
    let heap = ALLOCATOR.heap();
    let began = Instant::now();
    let built: Vec<Collections> = on_threads(|number| {
        let mut collections = Collections::new();
        collections.work(&mut Rng::new(number), STEPS);
        collections
    });
    println!("collections on the heap: built by {THREADS} threads in {:?}, and kept", began.elapsed());
    println!("slabinfo\n{}\n", heap.slabinfo());

    // A thread drops what others have built.
    std::thread::spawn(move || drop(built)).join().expect("a thread that drops");
    heap.drain();
    let census = heap.validate().expect("a heap that adds up");
    println!("dropped by another thread; the program itself holds {} objects", census.lent());
    println!("a pair of 64 bytes takes {:.1} ns", nanoseconds_of_a_pair());
}

/// Runs `work` on threads of its own, and answers what each came to.
fn on_threads<R: Send>(work: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for number in 0..THREADS {
            let (sender, work) = (sender.clone(), &work);
            scope.spawn(move || sender.send(work(number)));
        }
    });
    drop(sender);
    results.iter().collect()
}

/// The median of some rounds.
fn nanoseconds_of_a_pair() -> f64 {
    const PAIRS: u32 = 1_000_000;
    let mut rounds = [0.0; 15];
    for round in &mut rounds {
        let began = Instant::now();
        for _ in 0..PAIRS {
            drop(black_box(Box::<[u64; 8]>::new_uninit()));
        }
        *round = began.elapsed().as_nanos() as f64 / f64::from(PAIRS);
    }
    rounds.sort_unstable_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}
