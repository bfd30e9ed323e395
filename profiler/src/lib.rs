//! Spans, timers, the record, and what is computed from it.
//!
//! A run is measured through a [`Recorder`]: steps hold phases, phases hold operations, and each carries the work it could
//! not do without ([`Work`]). The outcome is a [`Record`], one JSON file; every table ([`report`]), trace ([`trace`]) and
//! flame graph is computed from a record, on any machine.
//!
//! ```
//! use stepscope_profiler::{Level, Phase, Recorder, StepKind, Timer, Work};
//!
//! let mut recorder = Recorder::new(Level::Operations);
//! recorder.begin_step(StepKind::Decode, 0, 1);
//! recorder.phase(Phase::Forward, |recorder| {
//!     recorder.operation("embedding", None, Work::default(), || Ok::<_, ()>("embedding_cpu"))
//! })?;
//! let step = recorder.end_step();
//! assert_eq!(step.phases.iter().map(|p| p.host_ns).sum::<u64>(), step.wall_ns);
//! assert_eq!(step.operations[0].timer, Timer::Wall);
//! # Ok::<(), ()>(())
//! ```
//!
//! **Invariant:** this crate knows no kernel and no model: costs reach it as numbers on spans.
//!
//! **Invariant:** the phases of a step add up to its wall time, to the nanosecond; what no phase covers is `other`.
//!
//! **Invariant:** every time carries the timer that took it.

#![forbid(unsafe_code)]

mod breakdown;
mod clock;
mod counts;
mod cupti_counters;
mod cupti_tracer;
mod error;
mod event_clock;
mod measured;
mod record;
mod recorder;
mod replays;

pub mod activity;
pub mod compare;
pub mod device_sheet;
pub mod environment;
pub mod explain;
pub mod gate;
pub mod gpu_watch;
pub mod gpus;
pub mod microbench;
pub mod python;
pub mod quantity;
pub mod report;
pub mod results;
pub mod roofline;
pub mod stats;
pub mod timeline;
pub mod trace;

pub use clock::{Clock, CycleClock, DeviceClock};
pub use counts::{Finding, KernelCount, Launch};
pub use cupti_counters::CuptiCounters;
pub use cupti_tracer::CuptiTracer;
pub use error::Error;
pub use event_clock::EventClock;
pub use measured::{CountSource, CountedOperation, CountedStep, KernelCounters};
pub use record::{
    BandwidthRoof, Cpu, Environment, Gpu, Memory, ModelInfo, Operation, OperationTotal, PhaseTime,
    PhaseTotal, Point, Program, Record, RecordingCost, Repetition, Roofs, Run, SCHEMA, Sampling,
    Skipped, Step, StepTotal, Timing, Tuning,
};
pub use recorder::{Choice, Level, Phase, Recorder, StepKind, Timer, Work};
pub use replays::{ReplayedOperation, time_replays};
