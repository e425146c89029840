//! pagemill
#![cfg_attr(not(any(test, loom)), no_std)]
#![deny(unsafe_code)]

// Values.
mod config;
mod error;
mod flags;
mod frame;
mod id;
mod kind;
mod order;
// Doors.
mod platform;
#[allow(unsafe_code, reason = "the door to the memory model")]
mod sync;
// Edges.
#[cfg(feature = "x86_64")]
mod adapter;
mod carve;
// Frames, lowest rung first.
mod arena;
mod buddy;
mod extent;
mod frame_pool;
mod frame_table;
mod frames;
mod ledger;
mod magazine;
mod node;
mod pending;
mod policy;
mod tree;
mod zone;
// Beside the ladder.
mod check;
mod hotplug;
mod report;
mod setup;
mod stats;
// Checks.
#[cfg(loom)]
mod models;
#[cfg(all(test, not(loom)))]
mod testing;

pub use carve::Metadata;
pub use check::{Census, Invalid};
pub use config::{Checked, Config, Fast};
pub use error::{AllocError, FreeError, Place, SetupError};
pub use flags::AllocFlags;
pub use frame::{FrameCount, FrameRange, FrameSpan, Pfn, SpanError};
pub use frames::{Frames, Request};
pub use id::{CpuId, NodeId, NodeMask};
pub use kind::ZoneKind;
pub use order::{Block, Order};
pub use platform::{Context, Pinned, Platform};
pub use policy::Policy;
pub use report::{FrameReport, ZoneInfo};
pub use stats::NumaCounts;
pub use zone::Watermarks;
