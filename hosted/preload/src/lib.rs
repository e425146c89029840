//! `malloc` for any program: `LD_PRELOAD=libpagemill.so program`, or an archive to link with.
//!
//! ```text
//! abi    [unsafe] the functions of C, as glibc's manual has them
//! cxx    [unsafe] the operators of C++
//! told   [unsafe] what these functions tell: mallinfo, malloc_stats, malloc_info
//! ctl    [unsafe] pagemill's own functions, those of `pagemill.h`
//! heap   [unsafe] which of three heaps serves, one a level, and how
//! early  [unsafe] objects for who comes before the heap
//! scope  [unsafe] `dlopen`, so that plug-ins have these functions too
//! errno  [unsafe] error numbers
//! ```
//!
//! Nothing here allocates through the standard library, whose allocator this is.
#![deny(unsafe_code)]
#![cfg(target_os = "linux")]

pub mod abi;
pub mod ctl;
#[cfg(target_arch = "x86_64")]
pub mod cxx;
mod early;
mod errno;
mod heap;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub mod scope;
pub mod told;
