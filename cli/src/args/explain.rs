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
///   stepscope explain vllm.json --model llama-3.1-8b --gpu h100-sxm --batch 8 --input-len 32 --output-len 128
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

    /// Ceilings that `stepscope device --json` measured, for a record [default: device.json beside it, or the card's last sheet]
    #[arg(long, value_name = "FILE", conflicts_with = "gpu")]
    pub(crate) ceilings: Option<PathBuf>,

    /// Tensor-parallel ranks of a result [default: what it says, or 1]
    #[arg(long, visible_alias = "tp-size", value_name = "N", value_parser = positive)]
    pub(crate) tp: Option<usize>,

    /// Pipeline-parallel ranks of a result [default: what it says, or 1]
    #[arg(long, visible_alias = "pp-size", value_name = "N", value_parser = positive)]
    pub(crate) pp: Option<usize>,

    /// Requests of the one batch that a result is of, where it does not say: vllm bench latency
    #[arg(long, visible_alias = "batch-size", value_name = "N", value_parser = positive)]
    pub(crate) batch: Option<usize>,

    /// Requests that a result had in flight at most, where it does not say
    #[arg(long, visible_alias = "max-concurrency", value_name = "N", value_parser = positive, conflicts_with = "batch")]
    pub(crate) concurrency: Option<usize>,

    /// Prompt tokens per request of a result, where it does not say
    #[arg(long, visible_alias = "input", value_name = "N", value_parser = positive)]
    pub(crate) input_len: Option<usize>,

    /// Generated tokens per request of a result, where it does not say
    #[arg(long, visible_alias = "output", value_name = "N", value_parser = positive)]
    pub(crate) output_len: Option<usize>,

    /// How the model's matrices are stored and multiplied: bfloat16, fp8, int8, w4a16 (awq, gptq), w4a8, nvfp4 [default: what the
    /// input says, or bfloat16]
    #[arg(long, visible_alias = "quantization", value_name = "TYPE")]
    pub(crate) dtype: Option<String>,

    /// How keys and values are stored: bfloat16, fp8, int8 [default: what the input says, or bfloat16]
    #[arg(long, value_name = "TYPE")]
    pub(crate) kv_cache_dtype: Option<String>,

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
