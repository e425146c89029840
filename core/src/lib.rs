//! pagemill
#![cfg_attr(not(any(test, loom)), no_std)]
#![deny(unsafe_code)]

// Values.
mod config;
mod error;
mod flags;
mod frame;
mod id;
mod order;
// Doors.
mod platform;
#[allow(unsafe_code, reason = "the door to the memory model")]
mod sync;
// Edges.
mod carve;
// Frames, lowest rung first.
mod buddy;
mod tree;

pub use carve::Metadata;
pub use config::{Checked, Config, Fast};
pub use error::{AllocError, FreeError, Place, SetupError};
pub use flags::AllocFlags;
pub use frame::{FrameCount, FrameRange, FrameSpan, Pfn, SpanError};
pub use id::{CpuId, NodeId, NodeMask};
pub use order::{Block, Order};
pub use platform::{Context, Pinned, Platform};
