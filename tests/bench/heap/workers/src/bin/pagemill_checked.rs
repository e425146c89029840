//! pagemill as it comes, at level `Checked`.

#[global_allocator]
static GLOBAL: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
