//! talc, in Rust, behind a spin lock; it takes its regions from the system's allocator.

use std::alloc::System;

use talc::TalcLock;
use talc::source::GlobalAllocSource;

#[global_allocator]
static GLOBAL: TalcLock<spinning_top::RawSpinlock, GlobalAllocSource<System>> =
    TalcLock::new(GlobalAllocSource::new(System));

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
