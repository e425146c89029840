//! pagemill at level `Fast`.

#[global_allocator]
static GLOBAL: pagemill_hosted::Pagemill<pagemill::Fast> = <pagemill_hosted::Pagemill<pagemill::Fast>>::new();

fn main() -> std::process::ExitCode {
    heap_workloads::worker::main()
}
