//! Result files of all frameworks' benchmarks, in one set of dimensions.
//!
//! [`read`] and [`parse`] take a file of any form of [`Format::ALL`] and tell which it is from what it holds, never from its name.
//! They read what can be read: a line that is cut off, a row of another schema or a second form in the same appended file costs
//! no other row, and stands in [`Import::rejected`] with its line and the reason.
//!
//! ```
//! use stepscope_profiler::results::{self, Format, Load};
//!
//! let line = br#"{"run_name": "a", "batch_size": 4, "input_len": 1024, "output_len": 1, "prefill_latency": 3.5,
//!     "prefill_throughput": 1170.3, "total_latency": 3.5, "overall_throughput": 1171.4}"#;
//! let import = results::parse("result.jsonl", line)?;
//! assert_eq!(import.format, Format::SglangOneBatch);
//! assert_eq!(import.rows[0].load, Load::StaticBatch(4));
//! # Ok::<(), stepscope_profiler::Error>(())
//! ```
//!
//! **Invariant:** a figure is one that the file has, or is named in [`ResultRow::derived`]; nothing is guessed.
//!
//! **Invariant:** any bytes give rows or an error, never a panic.

mod checks;
mod fields;
pub(crate) mod llama_bench;
mod lmdeploy;
mod pieces;
mod reader;
mod row;
mod serving_stdout;
mod sglang;
mod sglang_stdout;
mod stepscope;
mod trtllm;
mod vllm;

use std::path::Path;

use serde::Serialize;

use crate::Error;
pub use checks::complete;
pub use row::{Basis, Framework, Latency, Length, Load, Percentiles, Rates, ResultRow};

/// A form of result file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON lines of sglang's `bench_one_batch`, and of `stepscope one-batch`; also objects that follow one another in any way.
    SglangOneBatch,
    /// What `bench_one_batch` prints.
    SglangOneBatchOutput,
    /// JSON lines of sglang's `bench_offline_throughput`.
    SglangOfflineThroughput,
    /// JSON lines of sglang's `bench_one_batch_server`.
    SglangOneBatchServer,
    /// JSON lines of sglang's `bench_serving`.
    SglangServing,
    /// What `bench_serving` prints.
    SglangServingOutput,
    /// What `bench_offline_throughput` prints.
    SglangOfflineThroughputOutput,
    /// JSON of `vllm bench latency`.
    VllmLatency,
    /// JSON of `vllm bench throughput`.
    VllmThroughput,
    /// JSON of `vllm bench serve`.
    VllmServe,
    /// What `vllm bench serve` prints.
    VllmServeOutput,
    /// JSON report of `trtllm-bench`.
    TrtllmBench,
    /// CSV of lmdeploy's `profile_throughput.py` and `profile_pipeline_api.py`.
    LmdeployProfiler,
    /// CSV of lmdeploy's `profile_restful_api.py`.
    LmdeployRestful,
    /// JSON and JSON lines of `llama-bench`.
    LlamaBenchJson,
    /// CSV of `llama-bench`.
    LlamaBenchCsv,
    /// Markdown of `llama-bench`.
    LlamaBenchMarkdown,
    /// SQL of `llama-bench`.
    LlamaBenchSql,
    /// `record.json` of this program.
    Record,
}

impl Format {
    /// Every form that is known.
    pub const ALL: [Format; 19] = [
        Format::SglangOneBatch,
        Format::SglangOneBatchOutput,
        Format::SglangOfflineThroughput,
        Format::SglangOneBatchServer,
        Format::SglangServing,
        Format::SglangServingOutput,
        Format::SglangOfflineThroughputOutput,
        Format::VllmLatency,
        Format::VllmThroughput,
        Format::VllmServe,
        Format::VllmServeOutput,
        Format::TrtllmBench,
        Format::LmdeployProfiler,
        Format::LmdeployRestful,
        Format::LlamaBenchJson,
        Format::LlamaBenchCsv,
        Format::LlamaBenchMarkdown,
        Format::LlamaBenchSql,
        Format::Record,
    ];

    /// The program and the form, as a person would say it.
    pub const fn name(self) -> &'static str {
        match self {
            Format::SglangOneBatch => "sglang bench_one_batch (JSON lines)",
            Format::SglangOneBatchOutput => "sglang bench_one_batch (what it prints)",
            Format::SglangOfflineThroughput => "sglang bench_offline_throughput",
            Format::SglangOneBatchServer => "sglang bench_one_batch_server",
            Format::SglangServing => "sglang bench_serving",
            Format::SglangServingOutput => "sglang bench_serving (what it prints)",
            Format::SglangOfflineThroughputOutput => {
                "sglang bench_offline_throughput (what it prints)"
            }
            Format::VllmLatency => "vllm bench latency",
            Format::VllmThroughput => "vllm bench throughput",
            Format::VllmServe => "vllm bench serve",
            Format::VllmServeOutput => "vllm bench serve (what it prints)",
            Format::TrtllmBench => "trtllm-bench --report_json",
            Format::LmdeployProfiler => "lmdeploy profile_throughput (CSV)",
            Format::LmdeployRestful => "lmdeploy profile_restful_api (CSV)",
            Format::LlamaBenchJson => "llama-bench (JSON)",
            Format::LlamaBenchCsv => "llama-bench (CSV)",
            Format::LlamaBenchMarkdown => "llama-bench (Markdown)",
            Format::LlamaBenchSql => "llama-bench (SQL)",
            Format::Record => "stepscope record",
        }
    }
}

/// A part of a file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Where it begins, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Import {
    /// The form of the first row; a file that was appended to by several programs can hold more than one.
    pub format: Format,
    /// The rows in the file's order.
    pub rows: Vec<ResultRow>,
    /// Measurements of a warm-up, which are no results: they pay for compilation and are never ranked.
    pub warmup: Vec<ResultRow>,
    /// What could not be read.
    pub rejected: Vec<Rejected>,
    /// What is to be known of the file as a whole, one sentence each.
    pub remarks: Vec<String>,
}

/// Reads a result file; `path` may also be a folder that holds `record.json`.
///
/// # Errors
/// When the file cannot be read, or [`parse`] finds no result in it.
pub fn read(path: &Path) -> Result<Import, Error> {
    let joined = path.join("record.json");
    let path = if path.is_dir() { &joined } else { path };
    let bytes = std::fs::read(path).map_err(|e| Error::read(path, e))?;
    parse(&path.display().to_string(), &bytes)
}

/// Reads a file's content; `name` is how messages call it.
///
/// # Errors
/// When it is empty, of a form that is not known, or holds no row that can be read; the message says which and why.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Import, Error> {
    let text = pieces::text(bytes);
    let read = reader::read(&text);
    if let Some(format) = read.format {
        return Ok(Import {
            format,
            rows: read.rows,
            warmup: read.warmup,
            rejected: read.rejected,
            remarks: read.remarks,
        });
    }
    let message = match read.rejected.as_slice() {
        _ if text.trim().is_empty() => format!("{name} holds no result: it is empty"),
        [] => {
            let forms: Vec<&str> = Format::ALL.map(Format::name).to_vec();
            format!(
                "{name} is in no form that is known; these are: {}",
                forms.join(", ")
            )
        }
        [first, others @ ..] => {
            let others = match others.len() {
                0 => String::new(),
                n => format!(" (and {n} more)"),
            };
            format!(
                "{name} holds no result that can be read: line {}: {}{others}",
                first.line, first.reason
            )
        }
    };
    Err(Error::content(message))
}
