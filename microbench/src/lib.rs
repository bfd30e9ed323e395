//! Kernels measured one by one, so that the numbers can be believed.
//!
//! [`Bench::measure`] takes anything that can be launched ([`Subject`]), checks its results, and then times it by the rules in
//! [`measure`]. [`Bench::measure_pair`] does so with two in turn, and [`verdict`] says whether one is slower. What comes out is a
//! [`Series`]: every sample with the clock it was taken at. [`operations`] has the operations of a step as such things, [`lab`]
//! kernels that somebody is working on, [`peers`] others that compute the same, and [`sheet`] what a device can really do.
//! `benches` are the groups behind `cargo bench`, over criterion.
//!
//! ```no_run
//! use stepscope_microbench::{Bench, Error, Settings, Subject, verdict};
//! use stepscope_profiler::gate::{Thresholds, Verdict};
//!
//! /// Whether a kernel is slower than the one that it is to replace; nothing where there is no time.
//! fn is_slower(bench: &Bench, old: &mut dyn Subject, new: &mut dyn Subject) -> Result<Option<bool>, Error> {
//!     let [old, new] = bench.measure_pair([old, new], &Settings::default())?;
//!     let pair = old.series().cloned().zip(new.series().cloned());
//!     Ok(pair.map(|(old, new)| verdict(&[old, new], &Thresholds::default()).verdict == Verdict::Slow))
//! }
//! ```
//!
//! **Invariant:** wrong results have no time, and neither has an emulated device.
//!
//! **Invariant:** no setting of a device is ever changed.

#[cfg(feature = "benches")]
pub mod benches;
mod error;
pub mod lab;
pub mod measure;
pub mod operations;
pub mod peers;
pub mod sheet;
#[cfg(test)]
mod testing;
pub mod tuning;

use stepscope_device::nvrtc::Program;

pub use error::Error;
pub use measure::{
    Bench, CacheState, L2, Measured, Rule, Sample, Series, Settings, Stopped, Subject, Work,
    copies, verdict,
};

/// The programs of this crate that a device without a compiler needs compiled beforehand.
pub fn programs() -> Vec<Program> {
    vec![measure::program()]
}
