//! `stepscope compare`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stepscope_profiler::compare::Override;
use stepscope_profiler::compare::export::Form;

/// Put results of sglang, vLLM, TensorRT-LLM, lmdeploy, llama-bench and this program side by side
///
/// Reads the files that these frameworks' benchmarks write, in any of their forms and versions; which form a file is of is told
/// from what it holds. Shows every figure with what it was measured over, ranks rows that measured the same work, and says of the
/// others why they are not ranked (docs/metrics.md has every definition).
///   stepscope compare result.jsonl vllm.json runs/mine
///   stepscope compare result.jsonl vllm.json --set result.jsonl:gpu='NVIDIA H100' --markdown > comparison.md
///   stepscope compare runs/mine --to sglang > result.jsonl
///
/// Exit code: 0 done; 2 a file could not be read (the rows of the others are printed).
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Compare {
    /// Result files, and records or the folders that hold them
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// What a file does not say; may be given again
    ///
    /// The keys are model, gpu, version, dtype, backend, tp, pp, batch, concurrency, requests, input-len, output-len.
    #[arg(long, value_name = "FILE:KEY=VALUE")]
    pub(crate) set: Vec<Override>,

    /// Print Markdown tables
    #[arg(long, group = "output")]
    pub(crate) markdown: bool,

    /// Print one line of CSV per result with every dimension, seconds and tokens per second
    #[arg(long, group = "output")]
    pub(crate) csv: bool,

    /// Print everything as one JSON document
    #[arg(long, group = "output")]
    pub(crate) json: bool,

    /// Print the results in another program's form instead
    #[arg(long, value_name = "FORM", group = "output")]
    pub(crate) to: Option<To>,
}

/// Another program's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// JSON lines of sglang's bench_one_batch
    Sglang,
    /// JSON of vllm bench latency (static batches) or vllm bench serve (what a client measured)
    Vllm,
    /// The Markdown table of llama-bench
    LlamaBenchMd,
}

impl To {
    pub(crate) fn form(self) -> Form {
        match self {
            To::Sglang => Form::Sglang,
            To::Vllm => Form::Vllm,
            To::LlamaBenchMd => Form::LlamaBenchMarkdown,
        }
    }
}
