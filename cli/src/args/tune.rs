//! `stepscope tune`.

use std::path::PathBuf;

use clap::Args;

use super::{Device, positive};

/// Find the fastest variant of each kernel for the shapes of a model, on this GPU
///
/// Runs every tile and split of a product, and every number of ranges of decode attention, at the shapes of a model's steps; checks
/// each one's results; and writes those that beat what this program would have chosen by 2 % or more. Runs on the same GPU then use
/// them, and their records name the table. STEPSCOPE_TUNING names another table, or `none`.
///   stepscope tune --model-path llama-3.2-1b --batch-size 1 8 32 --input-len 1024
/// Without a GPU, the emulated device checks all variants; it has no time, so that nothing wins there.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Tune {
    /// A model's folder, config.json or GGUF file, or a named shape as `llama-3.2-1b`
    #[arg(long, visible_alias = "model", value_name = "MODEL")]
    pub(crate) model_path: String,

    /// Requests of decode steps
    #[arg(long, visible_alias = "batch", num_args = 1.., value_name = "N", default_values_t = [1, 8, 32], value_parser = positive)]
    pub(crate) batch_size: Vec<usize>,

    /// Tokens of a prefill; several values tune for each
    #[arg(long, visible_alias = "input", num_args = 1.., value_name = "N", default_values_t = [1024], value_parser = positive)]
    pub(crate) input_len: Vec<usize>,

    /// Positions of a request in decode attention; an entry goes for half as many up to these
    #[arg(long, num_args = 1.., value_name = "N", default_values_t = [1024, 4096], value_parser = positive)]
    pub(crate) kv_len: Vec<usize>,

    /// Where it runs: auto (a GPU, or else the emulated device), cuda, cuda:N or emulated
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    pub(crate) device: Device,

    /// What the emulated device is: sm_80, sm_86, sm_89 or sm_90a
    #[arg(long, value_name = "ARCH", default_value = "sm_90a")]
    pub(crate) arch: String,

    /// File to write [default: where runs on this GPU look for it]
    #[arg(long, value_name = "FILE.json")]
    pub(crate) out: Option<PathBuf>,
}
