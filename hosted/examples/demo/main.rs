//! The demonstration, in a process: a machine of threads and a mapping shows itself, works, and counts its frames.
//!
//! ```text
//! cargo run --release -p pagemill-hosted --example demo                 four CPUs, three nodes
//! cargo run --release -p pagemill-hosted --example demo -- system       the CPUs and nodes of this machine
//! cargo run --release -p pagemill-hosted --example demo -- "cpus 0-1 384M; 128M; distances 10 17 / 17 10"
//! ```

#[cfg(target_os = "linux")]
mod demonstration;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    demonstration::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("demo: hosted machines need Linux");
}
