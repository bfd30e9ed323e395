//! NVIDIA's CUPTI: when each kernel ran, what launched it, and what the hardware can count.
//!
//! [`Cupti::open`] finds the library. A [`Session`] records; [`Session::take`] gives an [`Activity`], plain values that nothing of
//! CUPTI's is needed to read. [`Metrics`] knows the hardware counters of each chip, and how often a kernel must run for them to be
//! counted; that needs no GPU. A [`RangeProfiler`] counts them, kernel by kernel.
//!
//! ```no_run
//! use stepscope_device::cupti::{Cupti, Graphs, Session};
//! use stepscope_device::driver::{Context, Driver};
//!
//! fn main() -> Result<(), stepscope_device::Error> {
//!     let context = Context::new(&Driver::open()?, 0)?;
//!     let mut session = Session::start(&Cupti::open()?, &context, Graphs::Nodes)?;
//!     session.enter(7)?;
//!     // … launches …
//!     session.leave()?;
//!     context.synchronize()?;
//!     for kernel in session.take()?.kernels {
//!         println!("{}: {} ns", kernel.name, kernel.end_ns - kernel.start_ns);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! **Invariant:** no lock is shared between CUPTI's callbacks and whoever calls CUPTI.
//!
//! **Invariant:** a session ends before its context does, and CUPTI is never finalised.
//!
//! **Invariant:** no clock, no power limit and no other setting of a GPU is changed.

mod api;
mod buffers;
mod host;
mod metrics;
mod range_profiler;
mod record;
mod session;
mod status;

pub use api::Cupti;
pub use metrics::{COUNTERS, L2_HIT_RATE, MetricType, Metrics, ROOFLINE};
pub use range_profiler::{Counted, RangeProfiler};
pub use record::{
    Activity, Call, Correlation, GraphNode, GraphReplay, Interface, Kernel, Overhead, Transfer,
    TransferKind,
};
pub use session::{Graphs, Session, is_other_profiler};
pub(crate) use status::{cuda_version, way_out};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
