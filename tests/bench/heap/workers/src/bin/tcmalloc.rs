//! Google's tcmalloc as the crate comes.

#[global_allocator]
static GLOBAL: tcmalloc_better::TCMalloc = tcmalloc_better::TCMalloc;

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
