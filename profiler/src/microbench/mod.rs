//! The record of microbenchmarks: kernels measured one by one, each beside its roof and its peers.
//!
//! [`Microbench`] is the file, a [`Row`] is one kernel at one shape, a [`Series`] is every sample of it. [`text`] and [`json`] show
//! such a file, [`compare`] holds two of them against each other row by row. Benches, the laboratory and the device checks write
//! them; nothing here measures.
//!
//! ```
//! use stepscope_profiler::Timer;
//! use stepscope_profiler::microbench::{Sample, Series};
//!
//! let samples = [10.0, 12.0, 11.0].map(|time_ns| Sample { time_ns, sm_clock_hz: None });
//! let series = Series::new(Timer::Event, 1, samples.to_vec());
//! assert_eq!(series.median_ns(), Some(11.0));
//! ```
//!
//! **Invariant:** a row that is not `ok` has no time, and a row without a sample that counts has no median: never a NaN, never a
//! zero.

mod gate;
mod report;
mod series;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::gate::Verdict;
use crate::gpu_watch::GpuWatch;
use crate::record::{Environment, Program, parse, write_whole};
use crate::{Error, gpus};

pub use gate::{Judged, Outcome, compare};
pub use report::{json, text};
pub use series::{CacheState, Sample, Series, Stopped};

/// The schema of the files this program writes. A change that breaks readers raises the number.
pub const SCHEMA: &str = "stepscope.microbench/1";

/// The file's name within a folder of results.
pub const FILE: &str = "microbench.json";

/// One run of microbenchmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Microbench {
    /// [`SCHEMA`].
    pub schema: String,
    /// The program that measured.
    pub program: Program,
    /// When it started, RFC 3339 in UTC.
    pub started: String,
    /// The machine, with the GPU that ran the kernels.
    pub environment: Environment,
    /// The state of the GPU meanwhile, where it was watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuWatch>,
    /// In the order in which they were measured.
    pub rows: Vec<Row>,
}

/// One kernel at one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The group of benchmarks: `gemm`, `attention`, `launch`.
    pub group: String,
    /// What is computed: `gemm`, `rms_norm`.
    pub operation: String,
    /// The kernel that ran; empty where none did.
    #[serde(default)]
    pub kernel: String,
    /// The shape as people write it: `m=1 n=4096 k=4096`.
    pub shape: String,
    /// The type of the elements: `bf16`.
    pub dtype: String,
    /// What became of it.
    pub status: Status,
    /// Why it is not `ok`, or what else is to be known of it: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Floating-point operations of a launch.
    pub flops: u64,
    /// Bytes that a launch cannot help moving.
    pub bytes: u64,
    /// What bounds a launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roof: Option<Roof>,
    /// Every sample, where it was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// Others that compute the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its results are right. It may still have no time: an emulated device has none.
    Ok,
    /// It did not run.
    Skipped,
    /// Its results are wrong, so it has no time.
    Wrong,
}

/// The rates that bound a launch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Floating-point operations per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_per_s: Option<f64>,
    /// Bytes per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<f64>,
    /// Where the rates come from: `measured on this card`, `data sheet of …`.
    pub source: String,
}

impl Roof {
    /// The peaks of a GPU's data sheet: of dense products in 16 bits, and of its memory.
    pub fn of_data_sheet(gpu: &gpus::Gpu) -> Roof {
        Roof {
            flops_per_s: Some(gpu.flops_per_s),
            bytes_per_s: Some(gpu.bytes_per_s),
            source: format!("data sheet of {}", gpu.title),
        }
    }

    /// The time below which no launch of this work can be, nanoseconds; none where no rate bounds it.
    pub fn floor_ns(&self, flops: u64, bytes: u64) -> Option<f64> {
        let at = |amount: u64, rate: Option<f64>| {
            let rate = rate.filter(|rate| rate.is_finite() && *rate > 0.0)?;
            (amount > 0).then(|| 1e9 * amount as f64 / rate)
        };
        let floors = [at(flops, self.flops_per_s), at(bytes, self.bytes_per_s)];
        floors.into_iter().flatten().reduce(f64::max)
    }
}

/// Somebody else's way to the same result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// `cuBLASLt`, `torch SDPA`, `Triton`.
    pub name: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What of it ran, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Whether the two were timed in turn, A B A B, and not one behind the other.
    pub in_turn: bool,
    /// What became of it; wrong where it differs from ours.
    pub status: Status,
    /// Why it is not `ok`: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// Whether ours is faster or slower, by the rule of [`crate::gate`], where the two were timed in turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

impl Peer {
    /// The middle of its times, nanoseconds.
    pub fn median_ns(&self) -> Option<f64> {
        self.series.as_ref()?.median_ns()
    }
}

impl Row {
    /// The middle of its times, nanoseconds.
    pub fn median_ns(&self) -> Option<f64> {
        self.series.as_ref()?.median_ns()
    }

    /// Our time by a peer's: below 1 is faster.
    pub fn ratio_to(&self, peer: &Peer) -> Option<f64> {
        Some(self.median_ns()? / peer.median_ns()?)
    }

    /// Which part of what the roof allows is reached, from 0 to 1; more says that the work or the roof is wrong.
    pub fn share_of_roof(&self) -> Option<f64> {
        let floor = self.roof.as_ref()?.floor_ns(self.flops, self.bytes)?;
        Some(floor / self.median_ns()?)
    }

    /// Floating-point operations per second.
    pub fn flops_per_s(&self) -> Option<f64> {
        let median = self.median_ns()?;
        (self.flops > 0).then(|| self.flops as f64 / (median * 1e-9))
    }

    /// Bytes per second.
    pub fn bytes_per_s(&self) -> Option<f64> {
        let median = self.median_ns()?;
        (self.bytes > 0).then(|| self.bytes as f64 / (median * 1e-9))
    }
}

impl Microbench {
    /// A file without rows yet.
    pub fn new(program: Program, started: String, environment: Environment) -> Microbench {
        Microbench {
            schema: SCHEMA.to_owned(),
            program,
            started,
            environment,
            gpu: None,
            rows: Vec::new(),
        }
    }

    /// Whether the file at `path` says that it is such a record; `path` may also be a folder that holds [`FILE`].
    pub fn is_at(path: &Path) -> bool {
        let joined = path.join(FILE);
        let path = if path.is_dir() { &joined } else { path };
        std::fs::read(path)
            .is_ok_and(|text| schema_of(&text).is_some_and(|s| s.starts_with(PREFIX)))
    }

    /// Reads a record; `path` may also be a folder that holds [`FILE`].
    ///
    /// # Errors
    /// When the file is missing, is not JSON, or has another schema.
    pub fn read(path: &Path) -> Result<Microbench, Error> {
        let joined = path.join(FILE);
        let path = if path.is_dir() { &joined } else { path };
        let text = std::fs::read(path).map_err(|e| Error::read(path, e))?;
        match schema_of(&text) {
            Some(schema) if schema == SCHEMA => parse(path, &text),
            Some(other) => Err(Error::not_a_record(
                path,
                format!(
                    "its schema is {other:?}; of microbenchmarks this program reads {SCHEMA:?}"
                ),
            )),
            None => Err(Error::not_a_record(path, "it has no \"schema\"")),
        }
    }

    /// Writes it so that no reader ever meets half a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_whole(self, path)
    }
}

/// What the schemas of such records begin with.
const PREFIX: &str = "stepscope.microbench/";

fn schema_of(text: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<String>,
    }
    serde_json::from_slice::<Head>(text).ok()?.schema
}

#[cfg(test)]
mod tests;
