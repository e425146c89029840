//! A limit on memory, and a program that lives with it: what does not fit is refused, and what was freed serves again.
//!
//! `cargo run --release -p pagemill-hosted --example oom_cap -- [MiB]`

use std::collections::TryReserveError;

use pagemill_hosted::Pagemill;

#[global_allocator]
static A: Pagemill = Pagemill::new();

const MIB: usize = 1 << 20;

/// A picture of so many bytes, or word that there is no memory for it.
fn picture(bytes: usize) -> Result<Vec<u8>, TryReserveError> {
    let mut picture = Vec::new();
    picture.try_reserve_exact(bytes)?;
    picture.resize(bytes, 0x80);
    Ok(picture)
}

fn main() {
    let mib = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(64);
    if let Err(error) = A.set_limit(mib * MIB) {
        eprintln!("{error}");
        std::process::exit(1);
    }
    let mut album = Vec::new();
    let refused = loop {
        match picture(2 * MIB) {
            Ok(picture) => album.push(picture),
            Err(error) => break error,
        }
    };
    println!("{} pictures fit into {mib} MiB; the next one: {refused}", album.len());
    let used = A.stats().used_bytes;
    assert!(used <= mib * MIB, "{used} bytes are used");
    album.truncate(album.len() / 2);
    let before = album.len();
    album.extend(std::iter::from_fn(|| picture(2 * MIB).ok()));
    println!("half of them went, and there was room again for {}", album.len() - before);
    println!("{}", A.stats());
    match A.set_limit(MIB) {
        Ok(()) => println!("less than a mebibyte is in use"),
        Err(error) => println!("a limit of one mebibyte: {error}"),
    }
}
