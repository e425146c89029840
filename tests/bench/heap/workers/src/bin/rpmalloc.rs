//! rpmalloc as the crate comes, which is its version 1.4.

#[global_allocator]
static GLOBAL: rpmalloc::RpMalloc = rpmalloc::RpMalloc;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
