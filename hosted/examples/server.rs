//! A server as it lives: threads that answer requests, a busy hour and a quiet one, and what its memory does meanwhile.
//!
//! `cargo run --release -p pagemill-hosted --example server -- [seconds]`

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const THREADS: usize = 4;
/// Entries of a thread's cache: in a busy hour, in a quiet one.
const ENTRIES: [usize; 2] = [20_000, 500];

/// A request makes a text, keeps it for a while, and drops what it has displaced.
fn serve(thread: usize, is_busy: &AtomicBool, is_over: &AtomicBool, served: &AtomicU64) {
    let mut cache: Vec<String> = Vec::new();
    let mut random = thread as u64 + 1;
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..1000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let text = "x".repeat((random >> 33) as usize % 2000);
            let slot = (random >> 40) as usize % ENTRIES[0];
            match cache.get_mut(slot) {
                Some(entry) => *entry = text,
                None => cache.push(text),
            }
        }
        served.fetch_add(1000, Ordering::Relaxed);
        if !is_busy.load(Ordering::Relaxed) {
            cache.truncate(ENTRIES[1]);
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(4.0);
    let period = Duration::from_secs_f64(seconds / 8.0);
    let (is_busy, is_over, served) = (AtomicBool::new(true), AtomicBool::new(false), AtomicU64::new(0));
    // Somebody looks after the memory of a server whose threads wait for requests.
    if let Err(error) = A.tick_in_background(Duration::from_millis(100)) {
        eprintln!("no thread for that: {error}");
    }
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (is_busy, is_over, served) = (&is_busy, &is_over, &served);
            scope.spawn(move || serve(thread, is_busy, is_over, served));
        }
        let start = Instant::now();
        for turn in 0..8 {
            is_busy.store(turn < 4, Ordering::Relaxed);
            thread::sleep(period);
            let hour = if turn < 4 { "busy" } else { "quiet" };
            println!("{:>5.1} s, {hour}: {} requests", start.elapsed().as_secs_f64(), served.load(Ordering::Relaxed));
            println!("{}\n", A.stats());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    println!("{}", A.heap().slabinfo());
}
