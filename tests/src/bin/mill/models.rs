//! The loom models that must run, with the number of mutants each must catch.
//!
//! The list is kept by hand on purpose: a model that vanishes, or a cfg that turns a run into an empty one, then fails
//! `cargo loom` instead of passing it.

/// Name of a model and how many mutants it has.
pub(crate) const MODELS: &[(&str, usize)] = &[("pending", 2), ("pending_three", 2)];
