//! mimalloc 3, as the crate comes.

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
