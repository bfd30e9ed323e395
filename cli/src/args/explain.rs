//! `stepscope explain`.

use std::path::PathBuf;

use clap::Args;

use super::positive;

/// Say why a step takes as long as it does, from a record, another program's result, or a trace
///
/// A record of `stepscope one-batch`: wall time as floors (arithmetic, weights, KV cache), what lies above them, gaps, host phases;
/// operations by what could be saved:
///   stepscope explain runs/default
///
/// A result of sglang, vLLM, TensorRT-LLM, lmdeploy or llama-bench: floors, what is fixed and what grows with the batch, and what
/// each limiter would have to be to account for it:
///   stepscope explain result.jsonl --model qwen2.5-32b --tp 8 --gpu h100-sxm
///
/// A trace of PyTorch's profiler or of nsys (exported to SQLite): steps, kernel families, gaps and their causes:
///   stepscope explain trace.json.gz
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Explain {
    /// Record, run folder, result file or trace
    pub(crate) input: PathBuf,

    /// The model of a result or trace: a named shape, a config.json, a folder or a GGUF file
    #[arg(long, visible_alias = "model-path", value_name = "MODEL")]
    pub(crate) model: Option<String>,

    /// The GPU: h100-sxm, a100-80g-pcie, rtx4090, …; an unknown one lists them all
    #[arg(long, value_name = "NAME")]
    pub(crate) gpu: Option<String>,

    /// Tensor-parallel ranks of a result [default: what it says, or 1]
    #[arg(long, visible_alias = "tp-size", value_name = "N", value_parser = positive)]
    pub(crate) tp: Option<usize>,

    /// Pipeline-parallel ranks of a result [default: what it says, or 1]
    #[arg(long, visible_alias = "pp-size", value_name = "N", value_parser = positive)]
    pub(crate) pp: Option<usize>,

    /// Under each sentence, its figures and the arithmetic they came from
    #[arg(long)]
    pub(crate) why: bool,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Write a self-contained page with plots
    #[arg(long, value_name = "FILE.html")]
    pub(crate) html: Option<PathBuf>,
}
