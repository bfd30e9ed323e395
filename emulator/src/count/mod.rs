//! What a kernel did, counted: never a time.

pub(crate) mod coalesce;
pub(crate) mod counters;
pub(crate) mod occupancy;
pub(crate) mod touched;

pub use counters::{Counters, Exactness, LineCounters, Metric};
pub use occupancy::{Capacity, Occupancy, occupancy};
