//! The models that must run, with the number of mutants each must catch.
//!
//! The list is kept by hand on purpose: a model that vanishes, or a cfg that turns a run into an empty one, then fails
//! `cargo loom` or `cargo shuttle` instead of passing it.

/// Name of a loom model and how many mutants it has.
pub(crate) const MODELS: &[(&str, usize)] = &[
    ("depot", 1),
    ("drain", 2),
    ("drain_refilled", 1),
    ("exhaustion_arenas", 1),
    ("exhaustion_lock", 1),
    ("exhaustion_mark", 2),
    ("exhaustion_pending", 3),
    ("fold", 1),
    ("heap_exit", 2),
    ("heap_mailed", 2),
    ("heap_requests", 1),
    ("heap_spill", 1),
    ("pending", 2),
    ("pending_three", 2),
    ("ready_hints", 2),
    ("ready_taken", 1),
    ("reserve_claimed", 1),
    ("reserve_taken", 2),
    ("shrinker_moved", 1),
    ("shrinker_removed", 2),
    ("slab_late_bit", 1),
    ("slab_life", 4),
    ("slab_overfull", 1),
    ("slab_queue", 1),
    ("slab_refill", 3),
    ("split", 1),
    ("split_pending", 1),
    ("tiny_pending", 2),
    ("tiny_twice", 1),
    ("twice_held", 1),
    ("twice_held_fast", 1),
    ("twice_posted", 1),
    ("twice_racing", 1),
    ("twice_racing_fast", 1),
    ("word", 1),
    ("word_mailed", 1),
];

/// The same for shuttle, whose models are runs of the whole heap.
pub(crate) const RUNS: &[(&str, usize)] =
    &[("heap_lives", 1), ("heap_nodes", 1), ("heap_plenty", 3), ("heap_scarce", 2)];
