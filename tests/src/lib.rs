//! Scenarios.
#![no_std]
