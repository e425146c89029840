//! pagemill on a host.
