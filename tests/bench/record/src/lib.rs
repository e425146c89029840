//! What every benchmark here does with its samples: [`stats`] turns them into medians and paired ratios, and [`csv`]
//! records these with the commit, the command, the machine and the day.

pub mod csv;
pub mod stats;
