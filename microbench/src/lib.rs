//! Kernels measured one by one, so that the numbers can be believed.
//!
//! [`Bench::measure`] takes anything that can be launched ([`Subject`]), checks its results, and then times it by the rules in
//! [`measure`]. [`operations`] has the operations of a step as such things, and [`lab`] kernels that somebody is working on.
//! [`Bench::measure_pair`] does so with two in turn. What comes out is a [`Series`]: every sample with the clock it was
//! taken at.
//!
//! **Invariant:** wrong results have no time, and neither has an emulated device.
//!
//! **Invariant:** no setting of a device is ever changed.

mod error;
pub mod lab;
pub mod measure;
pub mod operations;
pub mod sheet;
pub mod tuning;

pub use error::Error;
pub use measure::{
    Bench, CacheState, L2, Measured, Sample, Series, Settings, Stopped, Subject, Work,
};
