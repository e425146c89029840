//! What a machine shows of itself, the same text in every world.
