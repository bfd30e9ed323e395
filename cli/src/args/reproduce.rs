//! `stepscope reproduce`.

use std::path::PathBuf;

use clap::Args;

/// Run every row of another program's result here, and show both side by side, with what the difference is made of
///
/// Each static batch of the file (sglang's bench_one_batch, llama-bench, our own) runs as one point of `stepscope one-batch`; rows of a
/// server cannot be repeated without one and are named. What stands behind -- goes to `one-batch`:
///   stepscope reproduce result.jsonl --model-path ~/models/Qwen2.5-0.5B -- --device cuda --repetitions 3
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Reproduce {
    /// Result file
    pub(crate) result: PathBuf,

    /// The model: a folder, a GGUF file or a named shape [default: what the file names]
    #[arg(long, visible_alias = "model", value_name = "PATH")]
    pub(crate) model_path: Option<String>,

    /// Folder for the records
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    pub(crate) out: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,

    /// Options of `stepscope one-batch`
    #[arg(last = true, value_name = "OPTIONS")]
    pub(crate) one_batch: Vec<String>,
}
