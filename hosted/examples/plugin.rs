//! A plug-in whose heap is pagemill's: a library that other programs load. Once it has been loaded it stays, whatever
//! `dlclose` is told, since threads call it at their end.
#![allow(unsafe_code, reason = "a name that programs look up")]

#[global_allocator]
static A: pagemill_hosted::Pagemill = pagemill_hosted::Pagemill::new();

/// Allocates and frees; answers the sum of the numbers below `count`, by the lengths of as many blocks.
// SAFETY: nobody else has names of this kind.
#[unsafe(no_mangle)]
pub extern "C" fn pagemill_plugin_sum(count: usize) -> usize {
    let rows: Vec<Vec<u8>> = (0..count).map(|bytes| vec![1; bytes]).collect();
    rows.iter().map(Vec::len).sum()
}
