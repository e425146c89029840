//! The macros that make a file a kernel.

/// Makes this file a kernel: tests to run, or a function to call, and then any items.
///
/// ```text
/// pagemill_bare::kernel! {
///     tests: [adds, subtracts];      // or  main: run;
///
///     fn adds() { assert_eq!(1 + 1, 2); }
///     fn subtracts() { assert_eq!(1 - 1, 0); }
/// }
/// ```
///
/// On the bare target the items are compiled, and run when the machine is up: interrupts on, all CPUs idle but this
/// one. On the host there is only a `main` that builds the kernel and boots it.
#[cfg(target_os = "none")]
#[macro_export]
macro_rules! kernel {
    (tests: [$($test:ident),* $(,)?]; $($item:item)*) => {
        $($item)*
        $crate::kernel_entry! { $crate::harness::run(&[$((stringify!($test), $test)),*]) }
    };
    (main: $main:ident; $($item:item)*) => {
        $($item)*
        $crate::kernel_entry! { $main() }
    };
}

/// Defines what boot calls, under the name boot calls it by.
#[cfg(target_os = "none")]
#[doc(hidden)]
#[macro_export]
macro_rules! kernel_entry {
    ($run:expr) => {
        // SAFETY: there is one kernel in an image, so the name is defined once, with the type boot declares.
        #[unsafe(no_mangle)]
        extern "Rust" fn pagemill_kernel_main() {
            $run
        }
    };
}

/// Makes this file a kernel; see the README. On the host: a `main` that builds the kernel and boots it.
#[cfg(not(target_os = "none"))]
#[macro_export]
macro_rules! kernel {
    (tests: [$($test:ident),* $(,)?]; $($item:item)*) => {
        fn main() {
            $crate::host::boot(env!("CARGO_CRATE_NAME"), &[$(stringify!($test)),*]);
        }
    };
    (main: $main:ident; $($item:item)*) => {
        fn main() {
            $crate::host::boot(env!("CARGO_CRATE_NAME"), &[]);
        }
    };
}

/// States the machine this kernel wants, in QEMU's words, inside its own image, where the runner finds them.
#[macro_export]
macro_rules! qemu_args {
    ($words:expr) => {
        #[cfg(target_os = "none")]
        const _: () = {
            const TEXT: &str = concat!("\0PAGEMILL-QEMU:", $words, "\0");
            // SAFETY: the section holds nothing but such texts; the linker script keeps it.
            #[unsafe(link_section = ".qemu_args")]
            #[used]
            static ARGS: [u8; TEXT.len()] = *TEXT.as_bytes().first_chunk().unwrap();
        };
    };
}
