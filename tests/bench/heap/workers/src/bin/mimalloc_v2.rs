//! mimalloc 2, by the crate's feature.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
