//! dlmalloc, in Rust, behind its own lock.

#[global_allocator]
static GLOBAL: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
