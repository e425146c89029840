//! pagemill's own functions for C, those of `pagemill.h`.
#![allow(unsafe_code, reason = "C calls these, and names them")]

pagemill_hosted::export_c!();
