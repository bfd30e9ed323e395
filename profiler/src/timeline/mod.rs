//! Traces that other profilers wrote: read, taken apart into steps, and explained.
//!
//! [`read`] takes PyTorch's Chrome traces (`.json`, `.json.gz`; what the profilers of sglang, vLLM and transformers write),
//! SQLite exports of Nsight Systems, and the traces that [`crate::trace`] writes. [`analyse`] finds the steps, ties kernels to
//! them, and says of each when the GPU was busy, with what, and why it was idle; [`text`] and [`json`] show it.
//!
//! ```
//! use stepscope_profiler::timeline;
//!
//! let json = br#"{"traceEvents": [
//!   {"ph": "X", "cat": "user_annotation", "name": "step[DECODE bs=4]", "pid": 1, "tid": 1, "ts": 0, "dur": 30},
//!   {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts": 5, "dur": 4,
//!    "args": {"correlation": 7}},
//!   {"ph": "X", "cat": "kernel", "name": "nvjet_tst_128x64", "pid": 0, "tid": 7, "ts": 12, "dur": 20,
//!    "args": {"device": 0, "stream": 7, "correlation": 7}}]}"#;
//! let trace = timeline::from_json(&json[..], "example")?;
//! let analysis = timeline::analyse(&trace);
//! assert_eq!(analysis.devices[0].steps[0].busy_ns, 20_000);
//! assert_eq!(analysis.devices[0].steps[0].requests, Some(4));
//! # Ok::<(), stepscope_profiler::Error>(())
//! ```
//!
//! **Invariant:** what a trace holds is kept in tens of bytes per kernel; host operations are passed over while reading, so that
//! a trace of gigabytes needs the memory of its kernels.
//!
//! **Invariant:** whatever could not be read, tied or told is counted and said; nothing is made up in its place.

mod analysis;
mod annotations;
mod chrome;
mod drawing;
mod events;
mod families;
mod gaps;
mod hta;
mod intervals;
mod layers;
mod lenient;
mod names;
mod nsys;
mod remarks;
mod steps;
mod tables;
mod text;
mod trust;
mod values;

use std::path::Path;

use crate::Error;

pub use analysis::{
    Analysis, DeviceAnalysis, Floor, HostSide, KernelTotal, Outside, StepAnalysis, Window, analyse,
};
pub use annotations::{Kind, Spelling, StepLabel};
pub use chrome::from_json;
pub use drawing::{Drawing, DrawnActivity, DrawnCall, drawing};
pub use events::{
    Activity, ActivityKind, Annotation, Call, CallKind, Damage, Device, Format, NameId, Names,
    Place, Trace,
};
pub use families::{Family, FamilyTime, classify};
pub use gaps::{Cause, GapTotal};
pub use hta::HtaShares;
pub use layers::Layers;
pub use steps::Tie;
pub use text::{sentences, text, typical_step};

/// The first bytes of a SQLite database.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Reads a trace, whatever its format; its content decides, not its name.
///
/// # Errors
/// When the file cannot be read, or nothing in it is a trace of a known format. A trace that breaks off is no error: what came
/// before is kept, and [`Trace::damage`] says so.
pub fn read(path: &Path) -> Result<Trace, Error> {
    use std::io::Read;

    let mut file = std::fs::File::open(path).map_err(|e| Error::read(path, e))?;
    let mut start = Vec::with_capacity(SQLITE.len());
    (&mut file)
        .take(SQLITE.len() as u64)
        .read_to_end(&mut start)
        .map_err(|e| Error::read(path, e))?;
    if start == SQLITE {
        drop(file);
        return nsys::read(path);
    }
    chrome::from_reader(start.as_slice().chain(file), &path.display().to_string())
}

/// The analysis for programs: every number carries its unit in its name.
pub fn json(analysis: &Analysis) -> String {
    // Its maps have text keys and its numbers are finite, so that nothing in it can fail.
    serde_json::to_string_pretty(analysis).unwrap_or_default()
}
